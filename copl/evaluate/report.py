"""The report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from attrs import Factory, evolve, frozen
from markupsafe import Markup

from copl.evaluate.curves import training_panels
from copl.evaluate.examples import Example
from copl.evaluate.findings import differences_to_tell, percent
from copl.evaluate.pages import fill
from copl.evaluate.tables import Table, held_out, points, says_nothing, side_by_side, split_order, split_title
from copl.evaluate.verdict import CONSENSUS, Verdict, above_chance, ahead_of, below_chance
from copl.records import Measurement

if TYPE_CHECKING:
    from copl.evaluate.plots import Plot
    from copl.records import FloatArray

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
_COMPARISONS = "comparisons:"


@final
@frozen
class AnswerCards:
    """One prompt with the answers that several people are shown.

    Attributes:
        prompt: the prompt.
        cards: who sees it, what is said beside it, and the text.
    """

    prompt: str
    cards: tuple[tuple[str, str, str], ...]


@final
@frozen(eq=False)
class AnswersPage:
    """What users are shown, and what it is worth to them.

    Attributes:
        tables: gains by what chooses.
        examples: answers to look at, side by side.
    """

    tables: Sequence[Table]
    examples: Sequence[AnswerCards]


@final
@frozen
class Why:
    """Why a user wants one response rather than another.

    Attributes:
        user: who.
        prompt: what was asked; chat messages in one text.
        pair: the two responses, in words.
        score: by how much.
        lines: what makes the score: amount, words, and whether it is a part of the line above.
        sure: how sure it is, in words.
    """

    user: str
    prompt: str
    pair: str
    score: str
    lines: tuple[tuple[str, str, bool], ...]
    sure: str


@final
@frozen(eq=False)
class ReportInputs:
    """What a report is made of; any part may be missing.

    Attributes:
        title: heading of the report.
        verdicts: by name of the method, what is to be said first (`copl.evaluate.verdict`).
        measurements: by name of the method.
        curves: records of the run's log (see `copl.evaluate.curves`).
        user_ids: ids of the users shown [U].
        user_embeddings: their embeddings [U, D].
        groups: group of each user by id; users without one may be missing.
        expert_weights: their gate weights [U, M].
        data: description of the data, as rows of a name and a value.
        examples: what two users want, and the model knew.
        facts: how the run was made: command, versions, seed, data hash; plain JSON values.
        notes: what there is to know beside the figures, in words.
        inside: what the methods say of their users and experts.
        answers: what users are shown and what it is worth to them, where that was measured.
        why: what makes the scores of some users.
    """

    title: str = "Preference learning run"
    verdicts: Mapping[str, Verdict] = Factory(dict)
    measurements: Mapping[str, Sequence[Measurement]] = Factory(dict)
    curves: Sequence[Mapping[str, Any]] = ()
    user_ids: Sequence[str] = ()
    user_embeddings: FloatArray | None = None
    groups: Mapping[str, str | None] = Factory(dict)
    expert_weights: FloatArray | None = None
    data: Sequence[tuple[str, str]] = ()
    examples: Sequence[Example] = ()
    facts: Mapping[str, Any] = Factory(dict)
    notes: Sequence[str] = ()
    inside: Sequence[str] = ()
    answers: AnswersPage | None = None
    why: Sequence[Why] = ()


@final
@frozen
class _Cell:
    """An accuracy with its interval, and where to draw it between 0 and 1 (in percent).

    Attributes:
        value: the accuracy in words.
        interval: its interval in words.
        left: where the interval begins.
        width: how long it is.
        mark: where the accuracy is.
        style: ``best`` of its column, ``below`` where it lies below chance or the consensus of all users, or empty.
        remark: what it lies below, or empty.
    """

    value: str
    interval: str
    left: float
    width: float
    mark: float
    style: str
    remark: str


@final
@frozen
class _Results:
    """The result table: methods as rows, splits as columns."""

    splits: tuple[str, ...]
    rows: tuple[tuple[str, tuple[_Cell | str, ...]], ...]


@final
@frozen
class _Differences:
    """The table of differences: methods and whom they are compared with as rows, splits as columns.

    A cell is the difference and its interval in words, None where there is none.
    """

    splits: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[tuple[str, str] | None, ...]], ...]


@final
@frozen(eq=False)
class _Section:
    """Plots under one heading.

    Attributes:
        heading: heading.
        lead: what to know first.
        layout: ``rows`` of figures; ``beside``: the first one large, two others beside it; ``half``: one figure alone,
            in a card that takes half of the page.
        figures: title, SVG and width in sixths of the page of each plot.
    """

    heading: str
    lead: str
    layout: str
    figures: tuple[tuple[str, Markup, int], ...]


def render_report(inputs: ReportInputs) -> str:
    """Return the report as one HTML document without outside references; the same inputs give the same text."""
    headline = evolve(inputs, measurements=held_out(inputs.measurements))
    return fill(
        TEMPLATE,
        title=inputs.title,
        verdicts=inputs.verdicts,
        notes=inputs.notes,
        results=_results(headline.measurements),
        yardsticks=_yardsticks(inputs.verdicts),
        differences=_differences(headline.measurements),
        details=side_by_side(inputs.measurements) if any(inputs.measurements.values()) else None,
        sections=_sections(headline),
        answers=inputs.answers,
        why=inputs.why,
        examples=[(split_title(e.split), e.prompt, (e.first, e.second)) for e in inputs.examples],
        data=inputs.data,
        facts=list(_flat(inputs.facts)),
    )


def _yardsticks(verdicts: Mapping[str, Verdict]) -> list[str]:
    """The methods that know no users, where they stand beside some that do."""
    alike = [name for name, verdict in verdicts.items() if not verdict.knows_users]
    return alike if len(alike) < len(verdicts) else []


def _results(measurements: Mapping[str, Sequence[Measurement]]) -> _Results | None:
    measured = {
        (method, m.split): m
        for method, ms in measurements.items()
        for m in ms
        if (m.metric, m.subset) == ("accuracy", "all")
    }
    if not measured:
        return None
    splits = split_order([split for _, split in measured])
    best = {split: max(m.value for (_, s), m in measured.items() if s == split) for split in splits}

    def place(value: float) -> float:
        return float(points(value))

    def cell(method: str, split: str) -> _Cell | str:
        m = measured.get((method, split))
        if m is None or says_nothing(m):
            return "not measured" if m is None else "\N{EN DASH}"
        reach = f"{points(m.low)} to {percent(m.high)}"
        width = max(round(place(m.high) - place(m.low), 1), 0.5)
        versus = ahead_of(CONSENSUS, measurements[method]).get(split)
        below = "chance" if below_chance(m) else CONSENSUS if versus is not None and versus.high < 0 else ""
        best_here = m.value == best[split] and above_chance(m)
        style, remark = ("below", f"below {below}") if below else ("best" if best_here else "", "")
        return _Cell(percent(m.value), reach, place(m.low), width, place(m.value), style, remark)

    rows = tuple(
        (method, tuple(cell(method, split) for split in splits))
        for method in measurements
        if any((method, split) in measured for split in splits)
    )
    return _Results(tuple(split_title(split) for split in splits), rows)


def _differences(measurements: Mapping[str, Sequence[Measurement]]) -> _Differences | None:
    """Return how far each method is ahead of others on the same comparisons, in points."""
    by_pair: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    for method, other, m in differences_to_tell(measurements):
        shown = points(m.value, signed=True), f"{points(m.low, signed=True)} to {points(m.high, signed=True)}"
        by_pair.setdefault((method, other), {})[m.split] = shown
    rows: list[tuple[str, list[str], dict[str, tuple[str, str]]]] = []
    for (method, other), cells in by_pair.items():
        same = (row for row in rows if row[0] == method and cells.items() <= row[2].items())
        if (twin := next(same, None)) is None:
            rows.append((method, [other], cells))
        else:  # a run of the consensus beside the consensus that the evaluation trained: one row for both
            twin[1].append(other)
    splits = split_order([split for *_, cells in rows for split in cells])
    shown_rows = tuple((m, " and ".join(others), tuple(map(cells.get, splits))) for m, others, cells in rows)
    return _Differences(tuple(map(split_title, splits)), shown_rows) if rows else None


def _sections(inputs: ReportInputs) -> list[_Section]:
    """Return the sections that have plots, laid out so that rows are full."""
    shown = [(heading, lead, wanted, plots) for heading, lead, wanted, plots in _plots(inputs) if plots]
    halves = _halves([len(plots) for *_, plots in shown])
    sections = []
    for (heading, lead, wanted, plots), half in zip(shown, halves, strict=True):
        layout = "half" if half else wanted if len(plots) == 3 else "rows"
        # made by us, text escaped
        figures = [(p.title, Markup(p.svg), width) for p, width in zip(plots, _sixths(len(plots)), strict=True)]
        sections.append(_Section(heading, lead, layout, tuple(figures)))
    return sections


def _halves(counts: Sequence[int]) -> list[bool]:
    """Return which sections, by their numbers of plots, take half of the page: neighbours of one plot, two by two.

    >>> _halves([3, 1, 1, 1, 2])
    [False, True, True, False, False]
    """
    halves: list[bool] = []
    for count, following in zip(counts, [*counts[1:], 0], strict=False):
        opened = sum(halves) % 2 == 1
        halves.append(opened or (count == 1 and following == 1))
    return halves


def _sixths(count: int) -> list[int]:
    """Return how many sixths of a row each of `count` figures takes: two in a row as far as need be, then three.

    >>> [_sixths(count) for count in (1, 2, 3, 4, 5)]
    [[6], [3, 3], [2, 2, 2], [3, 3, 3, 3], [3, 3, 2, 2, 2]]
    """
    if count == 1:
        return [6]
    large = (0, 4, 2)[count % 3]
    return [3] * large + [2] * (count - large)


def _plots(inputs: ReportInputs) -> Iterator[tuple[str, str, str, list[Plot]]]:
    """Yield heading, lead, layout of three plots, and plots of each section; matplotlib is loaded only here."""
    from copl.evaluate import plots

    by_count = _by_comparisons(inputs.measurements)
    shown = [m for by_method in by_count.values() for points in by_method.values() for _, m in points]
    reach = (min((m.low for m in shown), default=0.0) - 0.02, max((m.high for m in shown), default=1.0) + 0.02)
    yield (
        "Accuracy by number of comparisons",
        "How much a user has to say before the method knows them. Bars are 95 % intervals.",
        "rows",
        [
            plots.accuracy_by_comparisons(split_title(split), by_count[split], reach, f"count{number}")
            for number, split in enumerate(split_order(list(by_count)))
        ],
    )
    yield (
        "Users and experts",
        " ".join(("Each point of the map is a user; users with like preferences lie close together.", *inputs.inside)),
        "beside",
        list(_user_plots(inputs)),
    )
    yield (
        "Training",
        "",
        "rows",
        [
            plots.training_curves(stage, panels, f"curve{number}")
            for number, (stage, panels) in enumerate(training_panels(inputs.curves).items())
        ],
    )


def _user_plots(inputs: ReportInputs) -> Iterator[Plot]:
    from copl.evaluate import plots

    embeddings, weights = inputs.user_embeddings, inputs.expert_weights
    groups = [inputs.groups.get(user) for user in inputs.user_ids]
    if embeddings is not None and len(embeddings):
        yield plots.user_map(embeddings, groups, "map")
    if weights is not None and weights.size:
        yield plots.gate_usage(weights.mean(axis=0), "gate")
        names = sorted({group for group in groups if group is not None})
        if names:
            member = np.array([[group == name for group in groups] for name in names], dtype=np.float64)
            yield plots.group_experts(names, member @ weights / member.sum(axis=1, keepdims=True), "heat")


def _by_comparisons(
    measurements: Mapping[str, Sequence[Measurement]],
) -> dict[str, dict[str, list[tuple[str, Measurement]]]]:
    """Return by split, by method, the label and the measurement of each range of numbers of comparisons."""
    by_split: dict[str, dict[str, list[tuple[str, Measurement]]]] = {}
    for method, ms in measurements.items():
        for m in ms:
            if m.metric == "accuracy" and m.subset.startswith(_COMPARISONS) and not says_nothing(m):
                label = m.subset.removeprefix(_COMPARISONS).replace("-", "\N{EN DASH}")
                by_split.setdefault(m.split, {}).setdefault(method, []).append((label, m))
    return by_split


def _flat(values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield a row for each plain value, and one for all plain values of each inner table; empty values are left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _inner(value, _words(name))
        elif shown := _shown(value):
            yield _words(name), shown


def _inner(values: Mapping[str, object], path: str) -> Iterator[tuple[str, str]]:
    plain = [f"{_words(k)} {_shown(v)}" for k, v in values.items() if not isinstance(v, Mapping) and _shown(v)]
    if plain:
        yield path, ", ".join(plain)
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _inner(value, f"{path} \N{MIDDLE DOT} {_words(name)}")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(part) for part in value)
    return "" if value is None else str(value)
