"""Source ``llmfao``: crowd comparisons of the answers of language models to a few prompts."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import numpy as np

from copl.data.canonical import canonical_id
from copl.data.checking.positions import one_sided_users
from copl.data.making.notes import Note, left_out
from copl.data.making.origin import Origin, finding
from copl.data.making.splits import ComparisonSplitOptions, make_splits
from copl.data.pairs import compact, intern_responses, intern_users
from copl.data.reading.faults import Faults
from copl.data.reading.scan import scan_csv, scan_jsonl
from copl.data.reading.texts import clean, storable
from copl.errors import CoplError, DataError, quoted, suggest
from copl.options import option
from copl.plugins import Component
from copl.records import Comparisons, ComparisonSet, PreferenceData, UserTable

if TYPE_CHECKING:
    from copl.data.reading.table import Table
    from copl.records import BoolArray, IntArray

ATTRIBUTION = "LLMFAO by Dmitry Ustalov, github.com/dustalov/llmfao"

_PROMPTS, _ANSWERS, _JUDGEMENTS = "prompts.jsonl", "results.jsonl", "crowd-comparisons.csv"
_WINNERS = ("left", "right", "tie")


@final
@attrs.frozen(kw_only=True)
class LlmfaoOptions(ComparisonSplitOptions):
    """Options of the source for LLMFAO."""

    path: Path = option(help="directory with prompts.jsonl, results.jsonl and crowd-comparisons.csv")
    cold_fraction: float = option(
        0.15,
        help="share of the prompts (or of single answers) never trained on, for the cold split",
        validator=attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.lt(1.0)),
    )
    unseen_fraction: float = option(
        0.2,
        help="share of workers kept out of training as unseen",
        validator=attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.lt(1.0)),
    )
    drop_one_sided: bool = option(
        True, help="leave out workers who nearly always pick the same side: they judge places, not answers"
    )


@final
@attrs.frozen(eq=False)
class _Judgements:
    """Decided comparisons with their texts [N], and what was left out on the way."""

    workers: tuple[str, ...]
    user: IntArray
    prompt: list[str]
    chosen: list[str]
    rejected: list[str]
    picked_left: BoolArray
    counts: dict[str, int]


@final
class LlmfaoSource:
    """Reads the published files."""

    def __init__(self, options: LlmfaoOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read and split the comparisons.

        Raises:
            DataError: one fault for each file that is missing or damaged and each row that is wrong.
        """
        options = self._options
        judged = _read(options.path)
        biased = one_sided_users(judged.user, judged.picked_left, len(judged.workers))
        usable, reasons = _usable(judged, biased & options.drop_one_sided)
        responses, chosen, rejected = intern_responses(judged.prompt, judged.chosen, judged.rejected)
        comparisons = Comparisons(judged.user, chosen, rejected).take(usable)
        split = make_splits(
            ComparisonSet(UserTable.ungrouped(judged.workers), responses, comparisons), options, seed=seed
        )
        users, responses, splits = compact(UserTable.ungrouped(judged.workers), responses, split.splits)
        notes: list[Note] = [
            _position_note([judged.workers[row] for row in np.flatnonzero(biased).tolist()], options.drop_one_sided),
            f"{judged.counts['ties']:,} ties are left out: a tie says nothing about which is preferred.",
            f"{judged.counts['empty_answers']:,} of {judged.counts['answers']:,} answers that were shown are empty.",
            f"{judged.counts['repeated_answers']:,} answers that were shown repeat another answer to the same prompt "
            "word by word; they are one response here.",
            *left_out(reasons, "comparisons"),
            *split.notes,
        ]
        provenance = Origin("llmfao", "CC BY 4.0", ATTRIBUTION, "").provenance(
            options,
            seed=seed,
            split=options.strategy,
            counts={**judged.counts, "one_sided_workers": int(biased.sum()), "kept": sum(map(len, splits.values()))},
            notes=notes,
            positions={"judgements": len(judged.user), "first": int(judged.picked_left.sum())},
            findings=_findings(judged, biased, options.drop_one_sided),
        )
        return PreferenceData("llmfao", users, responses, splits, provenance)


def _usable(judged: _Judgements, dropped_users: BoolArray) -> tuple[BoolArray, dict[str, int]]:
    """Return which comparisons to keep [N], and how many are left out for each reason."""
    biased = dropped_users[judged.user]
    sides = list(zip(judged.chosen, judged.rejected, strict=True))
    empty = np.array([not a.strip() or not b.strip() for a, b in sides], dtype=np.bool_)
    same = np.array([a == b for a, b in sides], dtype=np.bool_)
    reasons = {
        "by one-sided workers": int(biased.sum()),
        "with an empty answer": int((empty & ~biased).sum()),
        "between answers of the same words": int((same & ~empty & ~biased).sum()),
    }
    return ~biased & ~empty & ~same, reasons


def _findings(judged: _Judgements, biased: BoolArray, dropped: bool) -> list[dict[str, object]]:
    """Return what was found in the published files, for `copl.data.checking.checks`."""
    counts, workers = judged.counts, ", ".join(sorted(judged.workers[row] for row in np.flatnonzero(biased)))
    entries = [
        finding(
            "info" if dropped else "warning",
            "users who nearly always pick the same side",
            f"workers {workers}",
            int(biased.sum()),
            "they are left out" if dropped else "they judge places, not answers; leave them out: drop_one_sided=true",
        ),
        finding("info", "empty answers", "source", counts["empty_answers"], "comparisons with them are left out"),
        finding(
            "info",
            "answers that repeat an earlier one to the letter",
            "source, whatever the prompt, empty ones among them",
            counts["duplicate_answers"],
            f"apart from spaces, {counts['repeated_answers']} that are not empty repeat another answer to the same "
            "prompt; they are one response here",
        ),
    ]
    return [entry for entry in entries if entry["count"]]


def _position_note(workers: list[str], dropped: bool) -> str:
    if not workers:
        return "No worker picks one side more often than chance explains."
    fate = "are left out" if dropped else "are kept"
    return f"{len(workers)} workers nearly always pick the same side and {fate}: {', '.join(sorted(workers))}."


def _read(directory: Path) -> _Judgements:
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; name the data directory of llmfao")
    faults: list[str] = []
    tables: dict[str, Table] = {}
    readers = {_PROMPTS: scan_jsonl, _ANSWERS: scan_jsonl, _JUDGEMENTS: scan_csv}
    columns = {
        _PROMPTS: ("id", "text"),
        _ANSWERS: ("model", "prompt", "result"),
        _JUDGEMENTS: ("prompt", "model_x", "model_y", "worker", "winner"),
    }
    for name, reader in readers.items():
        try:
            table = tables[name] = reader(directory / name, columns[name]).checked()
        except CoplError as error:
            faults += error.faults
            continue
        faults += [
            f"{table.where}: no column {quoted(column)}{suggest(column, table.columns)}; is this a file of llmfao?"
            for column in columns[name]
            if column not in table.columns
        ]
    if faults:
        raise DataError(faults)
    return _join(tables[_PROMPTS], tables[_ANSWERS], tables[_JUDGEMENTS])


def _join(prompts: Table, answers: Table, judgements: Table) -> _Judgements:
    text = {str(key): _spelt(value) for key, value in zip(prompts.values("id"), prompts.values("text"), strict=True)}
    raw = {
        (str(prompt), str(model)): str(value or "")
        for prompt, model, value in zip(*map(answers.values, ("prompt", "model", "result")), strict=True)
    }
    answer = {key: _spelt(value) for key, value in raw.items()}
    rows = list(zip(*map(judgements.values, ("prompt", "model_x", "model_y", "worker", "winner")), strict=True))
    _check(judgements, rows, text, answer)
    shown = {(row[0], model) for row in rows for model in row[1:3]}
    texts = [(prompt, answer[prompt, model]) for prompt, model in shown]
    spoken = [pair for pair in texts if pair[1]]
    # As counted where the data is described: answers equal to an earlier one to the letter, to whatever prompt.
    published = [raw[key] for key in shown]
    decided = [row for row in rows if row[4] != "tie"]
    workers, user = intern_users([canonical_id(row[3]) for row in decided])
    picked_left = np.array([row[4] == "left" for row in decided], dtype=np.bool_)
    sides = [(answer[row[0], row[1]], answer[row[0], row[2]]) for row in decided]
    counts = {
        "judgements": len(rows),
        "decisive": len(decided),
        "ties": len(rows) - len(decided),
        "workers": len({row[3] for row in rows}),
        "prompts": len({row[0] for row in rows}),
        "models": len({model for _, model in shown}),
        "answers": len(shown),
        "empty_answers": len(texts) - len(spoken),
        "repeated_answers": len(spoken) - len(set(spoken)),
        "duplicate_answers": len(published) - len(set(published)),
    }
    return _Judgements(
        workers,
        user,
        [text[row[0]] for row in decided],
        [pair[0] if row[4] == "left" else pair[1] for row, pair in zip(decided, sides, strict=True)],
        [pair[1] if row[4] == "left" else pair[0] for row, pair in zip(decided, sides, strict=True)],
        picked_left,
        counts,
    )


def _check(judgements: Table, rows: Sequence[Sequence[str]], text: Container[str], answer: Container[object]) -> None:
    faults = Faults(judgements.where)
    for place, (prompt, left, right, _, winner) in enumerate(rows):
        wrong = [] if prompt in text else [f"prompt: {quoted(prompt)} is not in {_PROMPTS}"]
        wrong += [
            f"model {quoted(model)} has no answer to prompt {quoted(prompt)} in {_ANSWERS}"
            for model in (left, right)
            if (prompt, model) not in answer
        ]
        if winner not in _WINNERS:
            wrong.append(f"winner: {quoted(winner)}{suggest(winner, _WINNERS)}; expected left, right or tie")
        for message in wrong:
            faults.add(message, row=judgements.rows[place], label=judgements.label(place))
    faults.raise_any()


def _spelt(value: object) -> str:
    # Three answers are nothing but a zero-width space; they were shown and judged, and count as published.
    return clean(value or "") or storable(value or "").strip()


COMPONENTS = [
    Component(
        "llmfao",
        LlmfaoOptions,
        LlmfaoSource,
        "crowd comparisons of the answers of 59 language models to 13 prompts",
        reference="Dmitry Ustalov, LLMFAO: Large Language Model Feedback Analysis and Optimization, 2023",
    )
]
