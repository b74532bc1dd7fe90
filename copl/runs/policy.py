"""Whether a run's choices help people, kept in the run as a stage: `copl evaluate --policy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import attrs

from copl.align.choosing import candidates_of
from copl.align.context import FittedRun
from copl.align.judging import (
    REFERENCES,
    UNPERSONALISED,
    Example,
    PolicyJudge,
    PolicyResult,
    PolicySize,
    Written,
    prompts_to_ask,
)
from copl.align.policies.options import CARD
from copl.evaluate.policy import newcomers_table, policy_table
from copl.evaluate.report import AnswerCards, AnswersPage
from copl.evaluate.tables import number
from copl.interfaces import Generator, PreferenceModel
from copl.records import SPLITS, Measurement, PreferenceData
from copl.runs.directory import LOG_FILE, Run
from copl.runs.pipeline import OpenProgress
from copl.runs.recipe import Choice, canonical_hash
from copl.runs.stages import CANDIDATES, POLICY, STAGE_FILE, read_stage, verify_stage
from copl.runs.workspace import RunWorkspace
from copl.system.documents import read_document, write_document
from copl.system.files import is_scratch

_FILE = "policy.json"
_CANDIDATES_FILE = "candidates.json"
_AGAIN = "run `copl evaluate --policy` again"


@final
@attrs.frozen
class _Candidates:
    texts: tuple[tuple[str, ...], ...]


def policies_of(run: Run) -> Path:
    """Return where a run keeps the policies that were trained on what it has learnt; trained anew, it has others."""
    return run.root / "policies" / run.fingerprint[:12]


def policy_directory(run: Run, aligner: Choice, quality: str = "") -> Path:
    """Return where an aligner keeps what it makes for a run: one place for each setting of its options.

    Args:
        run: the run.
        aligner: the aligner.
        quality: fingerprint of the quality reward that stands beside the run's rewards, if there is one.
    """
    key = {**aligner.key(), "quality": quality} if quality else aligner.key()
    return policies_of(run) / f"{aligner.name}-{canonical_hash(key)[:12]}"


def kept_policies(run: Run, aligner: str) -> list[Path]:
    """Return the directories of the policies that an aligner keeps for a run, whatever its settings, the newest last.

    What a killed training was just writing is none of them.
    """
    root = policies_of(run)
    cards = [card for card in root.glob(f"{aligner}-*/*/{CARD}") if not is_scratch(card.relative_to(root))]
    return [card.parent for card in sorted(cards, key=lambda card: card.stat().st_mtime_ns)]


def evaluate_policy(
    run: Run,
    data: PreferenceData,
    aligners: Sequence[Choice],
    generator: Choice,
    *,
    size: PolicySize,
    open_progress: OpenProgress,
    cache: Path | None,
    method: PreferenceModel | None = None,
) -> PolicyResult:
    """Measure what aligners show the simulated users of a run's data; what was measured before is only read.

    Args:
        run: the run.
        data: the data set that it was trained on.
        aligners: who decides what is shown; examples are taken of the first.
        generator: who writes the candidates.
        size: how much is measured.
        open_progress: opens a progress display.
        cache: the cache that runs share.
        method: the fitted method, where it is loaded already.

    Raises:
        CoplError: the data are not simulated, or an aligner cannot work with the run.
    """
    seed = run.recipe.seed
    with run.locked(), open_progress(run.root / LOG_FILE) as progress:
        workspace = RunWorkspace(run.root, progress, cache)
        written = _written(workspace, generator, prompts_to_ask(data, size, seed), size.num_candidates, seed)

        def compute(directory: Path) -> None:
            fitted = method or run.load_method()
            context = FittedRun(run.root, fitted, run.recipe.stages, lambda: data, fitted.scores)
            judge = PolicyJudge(
                context,
                {choice.name: choice.build() for choice in aligners},
                written,
                lambda name: policy_directory(run, next(c for c in aligners if c.name == name)),
                size=size,
                seed=seed,
                progress=progress,
            )
            write_document(directory / _FILE, judge.result())

        key = {
            "run": run.recipe.key(),
            "fitted": run.fingerprint,
            "data": data.digest(*SPLITS),
            "aligners": [choice.key() for choice in aligners],
            "generator": {**generator.key(), "writer": written.generator.fingerprint()},
            "size": attrs.asdict(size),
        }
        directory = workspace.stage(POLICY, key=key, compute=compute)
        return _read(directory)


def _written(workspace: RunWorkspace, generator: Choice, prompts: Sequence[str], num: int, seed: int) -> Written:
    """Let a generator write; what it has written for another aligner, or for another run of the seed, is read."""
    writer: Generator = generator.build()

    def compute(directory: Path) -> None:
        texts = candidates_of(writer, prompts, num=num, seed=seed, progress=workspace.progress)
        write_document(directory / _CANDIDATES_FILE, _Candidates(tuple(texts)))

    about = {**generator.key(), "writer": writer.fingerprint()}
    key = {"generator": about, "prompts": list(prompts), "num": num, "seed": seed}
    directory = workspace.stage(CANDIDATES, key=key, compute=compute)
    return Written(writer, prompts, read_document(directory / _CANDIDATES_FILE, _Candidates, advice=_AGAIN).texts)


def policy_of(run: Run, data: PreferenceData) -> PolicyResult | None:
    """Return what `evaluate_policy` found of a run as it is, on these data; None where it was not measured.

    Raises:
        RunError: the stage is damaged.
    """
    directory = run.root / POLICY
    if not (directory / STAGE_FILE).is_file():
        return None
    inputs = read_stage(directory).inputs
    if (inputs.get("fitted"), inputs.get("data")) != (run.fingerprint, data.digest(*SPLITS)):
        return None
    verify_stage(directory)
    return _read(directory)


def choosers(results: Mapping[str, PolicyResult]) -> dict[str, tuple[Measurement, ...]]:
    """Return the measurements of several runs by what chooses: references once, each other aligner by run and name."""
    several = len(results) > 1
    first = next(iter(results.values())).measurements
    chosen = {
        f"{run}: {aligner}" if several else aligner: measurements
        for run, result in results.items()
        for aligner, measurements in result.measurements.items()
        if aligner not in (UNPERSONALISED, *REFERENCES)
    }
    usual = f"{next(iter(results))}: {UNPERSONALISED}" if several else UNPERSONALISED
    begin = {name: first[name] for name in REFERENCES[:1] if name in first} | {usual: first[UNPERSONALISED]}
    return begin | chosen | {name: first[name] for name in REFERENCES[1:] if name in first}


def answers_page(results: Mapping[str, PolicyResult]) -> AnswersPage | None:
    """Return what a report shows of the answers of several runs, None where none was measured."""
    if not results:
        return None
    rows = choosers(results)
    tables = [policy_table(rows, title="True utility of what is shown, with 95 % intervals over users and prompts")]
    newcomers = newcomers_table(rows, title="Gain of newcomers by how many answers they have given")
    tables += [newcomers] if newcomers.rows else []
    examples = next(iter(results.values())).examples
    return AnswersPage(tables, [_cards(example) for example in examples])


def _cards(example: Example) -> AnswerCards:
    own = [(shown.user_id, f"{shown.group}, gain {number(shown.gain)}", shown.text) for shown in example.shown]
    return AnswerCards(example.prompt, (*own, ("anybody", "the average user's favourite", example.unpersonalised)))


def _read(directory: Path) -> PolicyResult:
    return read_document(directory / _FILE, PolicyResult, advice=_AGAIN)
