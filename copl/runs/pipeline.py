"""Composes the stages: trains a recipe on a data set, and evaluates a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, final

import attrs
import numpy as np

from copl.data.dataset import dataset_fingerprint, load_dataset
from copl.data.making.everyone import for_everyone
from copl.errors import BackboneError, CoplError, DataError, OptionsError, PluginError, RunError, quoted
from copl.evaluate.context import SplitContext
from copl.evaluate.paired import accuracy_difference
from copl.evaluate.verdict import AVERAGE_USER, CONSENSUS
from copl.interfaces import Metric, PreferenceModel, Progress
from copl.plugins import Plugins
from copl.records import NOBODY, SPLITS, AdaptedUsers, ComparisonSet, FloatArray, Measurement, PreferenceData, UserTable
from copl.reward.reading.memory import told_when_memory_is_short
from copl.runs.consensus import consensus_margins
from copl.runs.continuing import CONTINUED, UNCHANGED, WHOLE, Continuation, Former, with_parts
from copl.runs.directory import LOG_FILE, Run, create_run
from copl.runs.explaining import explain_some, save_reasons
from copl.runs.facts import FormerFacts
from copl.runs.learnt import LearntRows
from copl.runs.recipe import Recipe
from copl.runs.reference import keep_reference
from copl.runs.results import References, load_margins, load_references, save_diagnostics, save_margins, write_metrics
from copl.runs.stages import EVALUATION, fitted_stages
from copl.runs.workspace import RunWorkspace
from copl.system.files import is_free
from copl.system.processes import is_main, num_processes, rank, wait

OpenProgress = Callable[[Path | None], AbstractContextManager[Progress]]
"""Opens a progress display that keeps its log in the file given."""

EVALUATED = ("validation", "test", "cold", "heldout")
"""Splits that an evaluation measures; ``heldout`` after adapting to ``support``."""


_SMALLER = "lower what it is sized by, such as encoder.embedding_dim, or train on fewer rows; what is finished is kept"


@final
@attrs.frozen(eq=False)
class Evaluation:
    """What an evaluation found.

    Attributes:
        measurements: all metrics of all splits.
        margins: the margin of each comparison, by split.
    """

    measurements: tuple[Measurement, ...]
    margins: Mapping[str, FloatArray]


def train(
    recipe: Recipe,
    data_directory: Path,
    out: Path,
    *,
    open_progress: OpenProgress,
    cache: Path | None,
    everyone: bool = False,
    former: Run | None = None,
    data: PreferenceData | None = None,
) -> tuple[Run, PreferenceModel]:
    """Train a recipe on a data set into a run directory; what is already there or in the cache is not computed again.

    Args:
        recipe: the recipe.
        data_directory: where the data set is.
        out: the run directory.
        open_progress: opens a progress display.
        cache: directory shared between runs.
        everyone: learn from everyone and everything, with nothing held out but for validation.
        former: a finished run of the same recipe to go on from; what new rows do not touch is taken from it.
        data: what `training_data` has read there, where that is at hand.

    Raises:
        CoplError: the data, the recipe, the backbone, the directory or the former run is unfit, and nothing has been
            written; or another process writes into the directory.
    """
    is_new = is_free(out)
    data = training_data(data_directory, everyone=everyone) if data is None else data
    learnt = data.split("train")
    if not len(learnt):
        why = "every user's thumbs and ratings are alike" if learnt.speakers else "split 'train' is empty"
        raise DataError(f"{data_directory}: the data set has no comparisons to train on ({why})")
    if "backbone" in recipe.stages.parts:
        recipe.stages.backbone().fingerprint()  # a missing backbone is found before anything is written
    ancestor = None if former is None else _ancestor(former, recipe, data, out, everyone=everyone)
    for process in range(num_processes()):  # the main one makes the directory, the others find it
        if process == rank():
            run = create_run(
                out,
                recipe,
                data_directory,
                dataset_fingerprint(data_directory),
                everyone=everyone,
                former=None if ancestor is None else ancestor.facts,
            )
        wait()
    with run.locked():
        try:
            with told_when_memory_is_short("training", _SMALLER):
                return _fit(run, data, open_progress, cache, ancestor)
        except (BackboneError, DataError, OptionsError):
            if is_new:
                run.discard()
            raise


def _ancestor(former: Run, recipe: Recipe, data: PreferenceData, out: Path, *, everyone: bool) -> Former:
    if former.root.resolve() == out.resolve():
        raise RunError(f"{out}: a run cannot go on from itself; choose another --out")
    ancestor = Former.of(former, recipe, data, everyone=everyone)
    read_by = ancestor.weights_of_backbone
    if "backbone" in recipe.stages.parts and read_by not in (None, recipe.stages.backbone().fingerprint()):
        raise OptionsError(f"{former.root}: --from needs the backbone of the run, and this one has other weights")
    return ancestor


def training_data(directory: Path, *, everyone: bool) -> PreferenceData:
    """Read what a run is trained on; with nothing held out where it learns from everyone.

    Raises:
        DataError: it cannot be read.
    """
    data = load_dataset(directory)
    return for_everyone(data) if everyone else data


def _fit(
    run: Run, data: PreferenceData, open_progress: OpenProgress, cache: Path | None, former: Former | None
) -> tuple[Run, PreferenceModel]:
    started = time.monotonic()
    method: PreferenceModel = run.recipe.build()
    facts = run.facts.former
    with open_progress(run.root / LOG_FILE) as progress:
        workspace = RunWorkspace(run.root, progress, cache, before_change=run.reopen)
        if former is None:
            method.fit(data, seed=run.recipe.seed, workspace=workspace)
        else:
            facts = _fit_from(run, method, data, former, workspace)
        if is_main():
            keep_reference(run.root, data)
            (LearntRows.of(data) if former is None else former.learnt).save(run.root)
            workspace.tidy()
    # a stage that several parts of a method ask for is computed for the first and reused by the others
    stages = dict.fromkeys(workspace.reused, "reused") | dict.fromkeys(workspace.computed, "computed")
    if is_main():
        run = run.finish(time.monotonic() - started, stages, facts)
    return run, method


def _fit_from(
    run: Run, method: PreferenceModel, data: PreferenceData, former: Former, workspace: RunWorkspace
) -> FormerFacts:
    """Fit a method with what a former run can give; return what is to be said of that."""
    continuation = Continuation(former.run, workspace.progress)
    seed, reason = run.recipe.seed, former.why_not(method, run.recipe.method.name)
    if former.is_same:
        continuation.tell(WHOLE, UNCHANGED)
        workspace.take_over(fitted_stages(former.run.root))
        method.load(run.root)
    elif reason is not None:
        continuation.tell(WHOLE, reason)
        method.fit(data, seed=seed, workspace=workspace)
    else:
        continuation.tell(WHOLE, CONTINUED)
        method.fit_from(data, continuation, seed=seed, workspace=workspace)
    return with_parts(former.facts, continuation.parts, former.changes.total)


def load_data(run: Run, directory: Path | None = None) -> tuple[PreferenceData, bool]:
    """Return a data set to measure a run on, and whether it is the one that the run was trained on.

    What a run has learned whole comes back as it was learned, with nothing held out.

    Args:
        run: the run.
        directory: where the data set is; None takes the one that the run was trained on.

    Raises:
        DataError: it cannot be read; or none was named, and where it was is another one now, or none.
    """
    place = directory or run.data_directory
    if directory is None and not place.exists():
        raise DataError(f"{place}: here was the data set that {run.root} was trained on, which this needs; put it back")
    same = dataset_fingerprint(place) == run.facts.data.fingerprint
    if directory is None and not same:
        raise DataError(
            f"{place}: not the data set any more that {run.root} was trained on: it has been made anew since; "
            "train on it, or name it with --data to measure the run on it all the same"
        )
    return training_data(place, everyone=same and run.facts.data.everyone), same


def evaluate(
    run: Run,
    data: PreferenceData,
    *,
    plugins: Plugins,
    open_progress: OpenProgress,
    cache: Path | None,
    method: PreferenceModel | None = None,
) -> Evaluation:
    """Measure a run on the held-out splits of a data set and write ``metrics.json``.

    Margins are kept as a stage, so a second evaluation only computes the metrics.
    """
    with run.locked(), open_progress(run.root / LOG_FILE) as progress:
        workspace = RunWorkspace(run.root, progress, cache)
        splits = [name for name in EVALUATED if len(data.split(name))]
        fingerprint = run.fingerprint

        def compute(directory: Path) -> None:
            fitted = method or run.load_method()
            adapted = None
            if "heldout" in splits and not data.split("support").says_nothing:
                from copl.adapt.store import save_adapted

                adapted = attrs.evolve(fitted.adapt(data.split("support")), run=fingerprint)
                save_adapted(adapted, directory / "adapted.safetensors")
            margins, average = _margins(fitted, data, splits, adapted, progress)
            consensus: Mapping[str, FloatArray] = {}
            try:
                learned = load_data(run)[0]
                consensus = consensus_margins(
                    run, learned, data, splits, plugins=plugins, progress=progress, cache=cache
                )
            except CoplError as error:  # what the run was trained on, or its backbone, is not there any more
                progress.log("evaluate", finding=f"not compared with {CONSENSUS}: {error.faults[0]}")
            save_margins(margins, References(average, consensus), directory)
            save_diagnostics(fitted.diagnostics(), directory)
            save_reasons(explain_some(fitted, data, margins), directory)

        key = {
            "run": run.recipe.key(),
            "fitted": fingerprint,
            "data": data.digest(*SPLITS),
            "versus": [AVERAGE_USER, CONSENSUS],
        }
        stage = workspace.stage(EVALUATION, key=key, compute=compute)
        margins = load_margins(stage, data)
        measurements = measure(margins, data, plugins, seed=run.recipe.seed, references=load_references(stage, data))
        write_metrics(run, measurements)
    return Evaluation(tuple(measurements), margins)


def _margins(
    method: PreferenceModel,
    data: PreferenceData,
    splits: Sequence[str],
    adapted: AdaptedUsers | None,
    progress: Progress,
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return the margins of each split, and those that everybody gets who is nobody in particular."""
    margins, average = {}, {}
    with progress.task("evaluate", total=2 * len(splits)) as task:
        for split in splits:
            margins[split] = method.margins(data.split(split), adapted if split == "heldout" else None)
            task.advance()
            average[split] = average_margins(method, data.split(split))
            task.advance()
    return margins, average


def average_margins(method: PreferenceModel, pairs: ComparisonSet) -> FloatArray:
    """Return the margins [N] of comparisons for a user of whom nothing is known."""
    rows = pairs.comparisons
    alike = attrs.evolve(rows, user=np.zeros_like(rows.user))
    return method.margins(ComparisonSet(UserTable.ungrouped([NOBODY]), pairs.responses, alike, pairs.features))


def measure(
    margins: Mapping[str, FloatArray],
    data: PreferenceData,
    plugins: Plugins,
    *,
    seed: int,
    references: References | None = None,
) -> list[Measurement]:
    """Apply every registered metric to the margins of each split, and compare them with references.

    Raises:
        PluginError: a metric gave something else than measurements with finite numbers.
    """
    measurements: list[Measurement] = []
    parts = {split: (data.split(split), SplitContext.of(data, split, seed=seed)) for split in margins}
    for registered in plugins.registry("metric"):
        name = registered.component.name
        metric: Metric = plugins.registry("metric").create(name)
        for split, values in margins.items():
            measured: list[Any] = list(metric(values, *parts[split]))
            if not all(isinstance(m, Measurement) and np.isfinite([m.value, m.low, m.high]).all() for m in measured):
                raise PluginError(
                    f"metric {name!r} of package {registered.package!r} gave {quoted(measured)} on split {split!r}; "
                    "a metric returns measurements with finite numbers"
                )
            measurements.extend(measured)
    if references is not None:
        measurements += ahead(margins, references, data, seed=seed)
    order = {name: place for place, name in enumerate(SPLITS)}
    return sorted(measurements, key=lambda m: order.get(m.split, len(order)))


def ahead(
    margins: Mapping[str, FloatArray], references: References, data: PreferenceData, *, seed: int
) -> list[Measurement]:
    """Return how far margins are ahead of those who know no users, on each split."""
    compared = ((AVERAGE_USER, references.average), (CONSENSUS, references.consensus))
    return [m for versus, others in compared for m in differences(margins, others, data, versus=versus, seed=seed)]


def differences(
    margins: Mapping[str, FloatArray],
    reference: Mapping[str, FloatArray],
    data: PreferenceData,
    *,
    versus: str,
    seed: int,
) -> list[Measurement]:
    """Return the paired difference of accuracy on each split that both were measured on."""
    return [
        accuracy_difference(
            margins[split],
            reference[split],
            data.split(split),
            SplitContext.of(data, split, seed=seed),
            versus=versus,
        )
        for split in margins
        if split in reference
    ]
