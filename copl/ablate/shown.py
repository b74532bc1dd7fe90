"""What users are shown by one run of a study, measured in its cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import final

import attrs
from attrs import field, frozen

from copl.ablate.answers import Answers, Named
from copl.align.judging import REFERENCES, PolicySize
from copl.errors import CoplError
from copl.plugins import Plugins
from copl.records import Measurement, PreferenceData
from copl.runs.directory import Run
from copl.runs.pipeline import OpenProgress
from copl.runs.policy import evaluate_policy
from copl.runs.recipe import canonical_hash
from copl.system.documents import read_document


def _measurements(values: Iterable[Measurement]) -> tuple[Measurement, ...]:
    return tuple(values)


def _rows(values: Iterable[ShownBy]) -> tuple[ShownBy, ...]:
    return tuple(values)


@final
@frozen
class ShownBy:
    """What one aligner shows with one generator.

    Attributes:
        aligner: what the aligner is called.
        generator: what the generator is called.
        measurements: what users got; none where it could not work.
        fault: why it could not.
    """

    aligner: str
    generator: str
    measurements: tuple[Measurement, ...] = field(converter=_measurements)
    fault: str = ""


@final
@frozen
class Shown:
    """What users are shown by a run; nothing where its users are not simulated."""

    rows: tuple[ShownBy, ...] = field(converter=_rows)


def shown_file(run: Path, answers: Answers) -> Path:
    """Return where a cell keeps what its users are shown."""
    return run / f"answers-{canonical_hash(attrs.asdict(answers))[:10]}.json"


def read_shown(run: Path, answers: Answers) -> Shown:
    """Return what a finished cell has measured.

    Raises:
        RunError: the file is missing or damaged.
    """
    return read_document(shown_file(run, answers), Shown, advice="--retry runs the cell again")


def measure_shown(
    run: Run,
    data: PreferenceData,
    answers: Answers,
    *,
    plugins: Plugins,
    open_progress: OpenProgress,
    cache: Path | None,
) -> Shown:
    """Measure what a run shows its users, for each aligner and generator; one that cannot work with it says why.

    Args:
        run: the finished run.
        data: the data set that it was trained on.
        answers: what to measure.
        plugins: where components come from.
        open_progress: opens a progress display.
        cache: the cache that runs share.
    """
    if data.provenance.get("source") != "facets":
        return Shown(())
    method = run.load_method()
    size = PolicySize(answers.size.num, answers.size.prompts, answers.size.users)

    def rows(aligner: Named, generator: Named, references: tuple[str, ...]) -> Iterator[ShownBy]:
        own = aligner.choice("aligner", plugins)
        choices = [own, *(_plain(name).choice("aligner", plugins) for name in references if name != own.name)]
        try:
            result = evaluate_policy(
                run,
                data,
                choices,
                generator.choice("generator", plugins),
                size=size,
                open_progress=open_progress,
                cache=cache,
                method=method,
            )
        except CoplError as error:
            yield ShownBy(aligner.label, generator.label, (), error.faults[0])
            return
        for name, measurements in result.measurements.items():
            yield ShownBy(aligner.label if name == own.name else name, generator.label, measurements)

    listed = [
        row
        for generator in answers.generators
        for place, aligner in enumerate(answers.aligners)
        for row in rows(aligner, generator, () if place else REFERENCES)
    ]
    return Shown({(row.aligner, row.generator): row for row in listed}.values())


def _plain(name: str) -> Named:
    return Named(name, name, {})
