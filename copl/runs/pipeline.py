"""Composes the stages: train a recipe on a data set, evaluate a run, score and adapt with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, final

import attrs
import numpy as np
from safetensors.numpy import load_file, save_file

from copl.adapt.store import save_adapted
from copl.data.dataset import dataset_fingerprint, load_dataset
from copl.errors import DataError
from copl.evaluate.context import SplitContext
from copl.interfaces import Backbone, PreferenceModel, Progress
from copl.plugins import Plugins
from copl.records import SPLITS, AdaptedUsers, Diagnostics, FloatArray, Measurement, PreferenceData
from copl.runs.directory import LOG_FILE, METRICS_FILE, Run, create_run
from copl.runs.recipe import Recipe
from copl.runs.workspace import RunWorkspace
from copl.system.files import write_text
from copl.system.processes import is_main, num_processes, rank, wait

OpenProgress = Callable[[Path | None], AbstractContextManager[Progress]]
"""Opens a progress display that keeps its log in the file given."""

EVALUATED = ("validation", "test", "cold", "heldout")
"""Splits that an evaluation measures; ``heldout`` after adapting to ``support``."""

EVALUATION = "evaluation"
"""Stage that holds margins, adapted users and diagnostics."""


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
    recipe: Recipe, data_directory: Path, out: Path, *, open_progress: OpenProgress, cache: Path | None
) -> tuple[Run, PreferenceModel]:
    """Train a recipe on a data set into a run directory; what is already there or in the cache is not computed again.

    Raises:
        CoplError: the data, the recipe, the backbone or the directory is unfit; nothing has been written then.
    """
    data = load_dataset(data_directory)
    if not len(data.split("train")):
        raise DataError(f"{data_directory}: the data set has no comparisons to train on (split 'train' is empty)")
    if "backbone" in recipe.stages.parts:
        backbone: Backbone = recipe.stages.build("backbone")
        backbone.fingerprint()  # a missing backbone is found before anything is written
    for process in range(num_processes()):  # the main one makes the directory, the others find it
        if process == rank():
            run = create_run(out, recipe, data_directory, dataset_fingerprint(data_directory))
        wait()
    started = time.monotonic()
    method: PreferenceModel = recipe.build()
    with open_progress(run.root / LOG_FILE) as progress:
        workspace = RunWorkspace(run.root, progress, cache)
        method.fit(data, seed=recipe.seed, workspace=workspace)
        if is_main():
            workspace.tidy()
    # a stage that several parts of a method ask for is computed for the first and reused by the others
    stages = dict.fromkeys(workspace.reused, "reused") | dict.fromkeys(workspace.computed, "computed")
    if run.facts["status"] != "finished" and is_main():
        run = run.finish(time.monotonic() - started, stages)
    return run, method


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
    with open_progress(run.root / LOG_FILE) as progress:
        workspace = RunWorkspace(run.root, progress, cache)
        splits = [name for name in EVALUATED if len(data.split(name))]

        def compute(directory: Path) -> None:
            fitted = method or run.load_method()
            save_margins(_margins(fitted, data, splits, directory, progress), directory)
            save_diagnostics(fitted.diagnostics(), directory)

        key = {"run": run.recipe.key(), "fitted": _stage_keys(run.root), "data": data.digest(*SPLITS)}
        directory = workspace.stage(EVALUATION, key=key, compute=compute)
        margins = load_margins(directory)
    measurements = measure(margins, data, plugins, seed=run.recipe.seed)
    write_metrics(run.root / METRICS_FILE, measurements)
    return Evaluation(tuple(measurements), margins)


def _stage_keys(root: Path) -> dict[str, str]:
    keys = {}
    for path in sorted(root.glob("*/stage.json")):
        if path.parent.name != EVALUATION:
            keys[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))["key"]
    return keys


def _margins(
    method: PreferenceModel, data: PreferenceData, splits: Sequence[str], directory: Path, progress: Progress
) -> dict[str, FloatArray]:
    margins = {}
    adapted: AdaptedUsers | None = None
    with progress.task("evaluate", total=len(splits)) as task:
        for split in splits:
            if split == "heldout" and len(data.split("support")):
                adapted = method.adapt(data.split("support"))
                save_adapted(adapted, directory / "adapted.safetensors")
            margins[split] = method.margins(data.split(split), adapted if split == "heldout" else None)
            task.advance()
    return margins


def save_margins(margins: Mapping[str, FloatArray], directory: Path) -> None:
    """Write the margins of each split."""
    save_file(
        {name: np.ascontiguousarray(values) for name, values in margins.items()}, directory / "margins.safetensors"
    )


def load_margins(directory: Path) -> dict[str, FloatArray]:
    """Read the margins of each split."""
    return dict(load_file(directory / "margins.safetensors"))


def save_diagnostics(found: Diagnostics, directory: Path) -> None:
    """Write what a method shows of its inside."""
    arrays = {
        name: np.ascontiguousarray(array)
        for name, array in (("user_embeddings", found.user_embeddings), ("expert_weights", found.expert_weights))
        if array is not None
    }
    save_file(arrays, directory / "diagnostics.safetensors")
    write_text(directory / "diagnostics.json", json.dumps({"user_ids": found.user_ids, "notes": found.notes}))


def load_diagnostics(directory: Path) -> Diagnostics:
    """Read what a method showed of its inside."""
    arrays = load_file(directory / "diagnostics.safetensors")
    words = json.loads((directory / "diagnostics.json").read_text(encoding="utf-8"))
    return Diagnostics(tuple(words["user_ids"]), notes=tuple(words["notes"]), **arrays)


def measure(
    margins: Mapping[str, FloatArray], data: PreferenceData, plugins: Plugins, *, seed: int
) -> list[Measurement]:
    """Apply every registered metric to the margins of each split."""
    measurements: list[Measurement] = []
    for registered in plugins.registry("metric"):
        metric = plugins.registry("metric").create(registered.component.name)
        for split, values in margins.items():
            measurements.extend(metric(values, data.split(split), SplitContext.of(data, split, seed=seed)))
    order = {name: place for place, name in enumerate(SPLITS)}
    return sorted(measurements, key=lambda m: order.get(m.split, len(order)))


def write_metrics(path: Path, measurements: Sequence[Measurement]) -> None:
    """Write measurements as ``metrics.json``: one record a measurement."""
    records: list[dict[str, Any]] = [attrs.asdict(m) for m in measurements]
    write_text(path, json.dumps(records, indent=1) + "\n")


def read_metrics(path: Path) -> list[Measurement]:
    """Read ``metrics.json``."""
    return [Measurement(**record) for record in json.loads(path.read_text(encoding="utf-8"))]
