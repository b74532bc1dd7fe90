"""A cell: one recipe on one data set with one seed, trained and evaluated in a run directory of its own."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

import attrs
import numpy as np
from attrs import field, frozen

from copl.ablate.answers import Answers
from copl.ablate.datasets import DataAt
from copl.ablate.grid import Plan
from copl.ablate.shown import measure_shown, read_shown, shown_file
from copl.bradley_terry import correct, mean_log_loss
from copl.data.dataset import load_dataset
from copl.errors import CoplError, DataError, RunError
from copl.interfaces import PreferenceModel, Progress
from copl.plugins import Plugins, load
from copl.records import PreferenceData
from copl.runs.pipeline import evaluate, train
from copl.runs.recipe import Recipe, canonical_hash, resolve
from copl.runs.results import METRICS_FILE, evaluation_of, load_margins, read_metrics
from copl.system.documents import parse_document, read_document, to_json, write_document
from copl.system.files import locked
from copl.system.progress import NotedProgress, RunLog

VALIDATION_FILE = "validation.json"
"""How a trial of a search was judged."""

State = Literal["finished", "failed", "missing"]


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@final
@frozen(eq=False)
class Cell:
    """One run of the study, as plain values that can be sent to another process.

    Attributes:
        variants: names of the variants it is the run of; two of them may come to the same recipe.
        data: name of the data set.
        seed: seed of the run.
        recipe: the resolved recipe, as written to ``config.toml``.
        data_directory: where the data set is.
        run: the run directory.
        cache: directory of the stages that cells share.
        is_trial: the cell is a trial of a search: it is judged on the split ``validation`` and on nothing else.
        answers: what is measured of the answers its users are shown; None for nothing.
    """

    variants: tuple[str, ...] = field(converter=_texts)
    data: str
    seed: int
    recipe: Mapping[str, Any]
    data_directory: Path = field(converter=Path)
    run: Path = field(converter=Path)
    cache: Path = field(converter=Path)
    is_trial: bool = False
    answers: Answers | None = None

    def __str__(self) -> str:
        return f"{self.data}, {' = '.join(self.variants)}, seed {self.seed}"

    @property
    def failure_file(self) -> Path:
        return self.run.with_name(f"{self.run.name}.failed.json")

    @property
    def lock_file(self) -> Path:
        return self.run.with_name(f".{self.run.name}.lock")

    @property
    def note_file(self) -> Path:
        """Says what the cell is doing while it runs."""
        return self.run.with_name(f".{self.run.name}.now")

    def to_json(self) -> str:
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Cell:
        return parse_document(text, cls, where="a cell", advice="run the study again")

    def state(self) -> State:
        """Say whether the cell is finished, failed, or has neither ended well nor badly."""
        results = [self.run / (VALIDATION_FILE if self.is_trial else METRICS_FILE)]
        results += [shown_file(self.run, self.answers)] if self.answers else []
        if all(path.is_file() for path in results):
            return "finished"
        return "failed" if self.failure_file.is_file() else "missing"

    def damage(self) -> str | None:
        """Return what keeps the results of a finished cell from being read, or None."""
        try:
            if self.is_trial:
                self.validation()
                return None
            splits = {m.split for m in read_metrics(self.run) if (m.metric, m.subset) == ("accuracy", "all")}
            if lacking := load_margins(evaluation_of(self.run)).keys() - splits:
                return f"{self.run / METRICS_FILE}: has no accuracy on {', '.join(sorted(lacking))}"
            if self.answers is not None:
                read_shown(self.run, self.answers)
        except RunError as error:
            return error.faults[0].partition(";")[0]
        return None

    def discard(self) -> None:
        """Remove what is there of the run."""
        with locked(self.lock_file):
            shutil.rmtree(self.run, ignore_errors=True)

    def validation(self) -> Validation:
        """Return how a finished trial was judged.

        Raises:
            RunError: the file is missing or damaged.
        """
        return read_document(self.run / VALIDATION_FILE, Validation, advice="--retry runs the cell again")


@final
@frozen
class Validation:
    """How a trial does on the split ``validation``.

    Attributes:
        loss: Bradley-Terry loss at the factor that suits the margins best.
        accuracy: share of comparisons it is right about.
    """

    loss: float
    accuracy: float


@final
@frozen
class Outcome:
    """How a cell ended.

    Attributes:
        faults: why it failed, a line each; empty where it did not.
        trace: where the failure came from, if it was not a user's mistake.
    """

    faults: tuple[str, ...] = field(default=(), converter=_texts)
    trace: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.faults)

    def to_json(self) -> str:
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        return parse_document(text, cls, where="outcome of a cell", advice="run it again")


def cells_of(
    plan: Plan,
    data: Mapping[tuple[str, int], DataAt],
    out: Path,
    cache: Path,
    plugins: Plugins,
    *,
    recipes: Mapping[tuple[str, str], Recipe] | None = None,
    are_trials: bool = False,
) -> list[Cell]:
    """Return the cells of a plan, variant by variant; each distinct run is there once.

    A run directory is named after a digest of all that the run depends on, the code of its components included, so a
    study whose settings have changed finds those cells that have not.

    Args:
        plan: the study.
        data: the data sets by name and seed.
        out: directory of the study.
        cache: directory of the stages that cells share.
        plugins: where metrics come from.
        recipes: by variant and data set, what a search has chosen in place of the variant's own recipe.
        are_trials: the cells are trials of a search.
    """
    measured_by = [(r.component.name, r.package, r.package_version) for r in plugins.registry("metric")]
    cells: dict[Path, Cell] = {}
    for variant in plan.variants:
        for seed in plan.study.seeds:
            for spec in plan.study.data:
                at = data[spec.name, seed]
                recipe = attrs.evolve((recipes or {}).get((variant.name, spec.name), variant.recipe), seed=seed)
                place = out / ("trials" if are_trials else "cells") / spec.name
                run = place / _run_name(recipe, at, [] if are_trials else measured_by)
                names = (*cells[run].variants, variant.name) if run in cells else (variant.name,)
                answers = None if are_trials else plan.answers
                cells[run] = Cell(
                    names, spec.name, seed, recipe.to_dict(), at.directory, run, cache, are_trials, answers
                )
    return list(cells.values())


def _run_name(recipe: Recipe, at: DataAt, measured_by: list[Any]) -> str:
    digest = canonical_hash({"recipe": recipe.key(), "data": at.fingerprint, "measured_by": measured_by})
    return f"{recipe.method.name}-{digest[:10]}-seed{recipe.seed}"


def run_cell(cell: Cell) -> Outcome:
    """Train and evaluate a cell unless it is finished; a failure is recorded beside the run directory.

    Two processes never work on the same cell; the second waits, and finds it finished.
    """
    with locked(cell.lock_file):
        if cell.state() == "finished":
            return Outcome()
        cell.failure_file.unlink(missing_ok=True)
        try:
            _run(cell)
        except CoplError as error:
            return record_failure(cell, Outcome(error.faults))
        except Exception as error:  # noqa: BLE001  # whatever a component raises ends this cell, not the study
            fault = f"{type(error).__name__}: {error}".splitlines()[0]
            return record_failure(cell, Outcome((fault,), traceback.format_exc()))
        finally:
            cell.note_file.unlink(missing_ok=True)
        return Outcome()


def _run(cell: Cell) -> None:
    draft = {name: dict(values) for name, values in cell.recipe.items() if name != "seed"}
    plugins = load()
    recipe = resolve(draft, plugins, seed=cell.seed)
    open_progress = partial(_noted, cell.note_file)
    run, method = train(recipe, cell.data_directory, cell.run, open_progress=open_progress, cache=cell.cache)
    if cell.is_trial:
        write_document(cell.run / VALIDATION_FILE, _judged(method, load_dataset(cell.data_directory)))
        return
    # the method is read back, so that a cell killed in between and taken up again gives the very same numbers
    data = load_dataset(cell.data_directory)
    evaluate(run, data, plugins=plugins, open_progress=open_progress, cache=cell.cache)
    if cell.answers is not None:
        shown = measure_shown(run, data, cell.answers, plugins=plugins, open_progress=open_progress, cache=cell.cache)
        write_document(shown_file(cell.run, cell.answers), shown)


def _judged(method: PreferenceModel, data: PreferenceData) -> Validation:
    pairs = data.split("validation")
    if not len(pairs):
        raise DataError("a search needs validation comparisons; the data set has none")
    margins = method.margins(pairs)
    size = float(np.sqrt(np.square(margins).mean())) or 1.0
    weight = np.ones(len(pairs))  # as metrics count them
    losses = [mean_log_loss(factor * margins / size, weight) for factor in np.geomspace(0.01, 30.0, 60)]
    return Validation(float(min(losses)), float(correct(margins).mean()))


def record_failure(cell: Cell, outcome: Outcome) -> Outcome:
    """Leave the cause of a failure beside the run directory."""
    write_document(cell.failure_file, outcome)
    return outcome


def recorded_failure(cell: Cell) -> Outcome:
    """Return the cause that an earlier run has left."""
    return read_document(cell.failure_file, Outcome, advice="--retry runs the cell again")


@contextmanager
def _noted(note: Path, log: Path | None) -> Iterator[Progress]:
    yield NotedProgress(note, RunLog(log))
