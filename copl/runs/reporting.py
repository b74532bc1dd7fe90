"""From run directories to a report: one run alone, or several side by side with paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from copl.data.checking.description import describe_data
from copl.data.dataset import load_dataset
from copl.errors import RunError
from copl.evaluate.context import SplitContext
from copl.evaluate.paired import accuracy_difference
from copl.evaluate.report import ReportInputs, render_report
from copl.plugins import load
from copl.records import Diagnostics, FloatArray, Measurement, PreferenceData
from copl.runs.directory import LOG_FILE, METRICS_FILE, REPORT_FILE, Run, open_run
from copl.runs.pipeline import EVALUATION, load_diagnostics, load_margins, read_metrics
from copl.system.files import write_text
from copl.system.progress import read_log

_EMPTY = Diagnostics()


def report_path(directory: Path) -> Path:
    """Write the report of a run directory, or of all evaluated runs in a directory.

    Raises:
        RunError: there is no evaluated run.
    """
    plugins = load()
    if (directory / "run.json").is_file():
        run = open_run(directory, plugins)
        return report_run(run, load_dataset(run.data_directory))
    runs = [open_run(path.parent, plugins) for path in sorted(directory.glob("*/run.json"))]
    if not runs:
        raise RunError(f"{directory}: neither a run directory nor a directory of runs")
    data = load_dataset(runs[0].data_directory)
    names = {run.root.name: run for run in runs}
    return report_runs(names, data, directory / REPORT_FILE, baseline="btl" if "btl" in names else "")


def report_run(run: Run, data: PreferenceData) -> Path:
    """Write the report of one run into its directory."""
    return report_runs({run.recipe.method.name: run}, data, run.root / REPORT_FILE)


def report_runs(runs: Mapping[str, Run], data: PreferenceData, out: Path, *, baseline: str = "") -> Path:
    """Write one report of several evaluated runs on one data set.

    Args:
        runs: runs by the name to show; the inside of the first one that has any is shown.
        data: the data set they were evaluated on.
        out: file to write.
        baseline: name of the run the others are compared with on the same comparisons.

    Raises:
        RunError: a run has not been evaluated.
    """
    measurements = compared(runs, data, baseline=baseline)
    inside = next((d for d in map(_inside, runs.values()) if d.user_ids), _EMPTY)
    first = next(iter(runs.values()))
    inputs = ReportInputs(
        title=f"{', '.join(runs)} on {data.name}",
        measurements=measurements,
        curves=_curves(runs),
        user_ids=inside.user_ids,
        user_embeddings=inside.user_embeddings,
        groups=dict(zip(data.users.ids, data.users.groups, strict=True)),
        expert_weights=inside.expert_weights,
        data=describe_data(data),
        facts=_facts(first),
        notes=inside.notes,
    )
    write_text(out, render_report(inputs))
    return out


def compared(runs: Mapping[str, Run], data: PreferenceData, *, baseline: str = "") -> dict[str, list[Measurement]]:
    """Return the measurements of each run, with its paired differences to the baseline.

    Raises:
        RunError: a run has not been evaluated.
    """
    faults = [
        f"{run.root}: not evaluated yet; run `copl evaluate {run.root}`"
        for run in runs.values()
        if not (run.root / METRICS_FILE).is_file()
    ]
    if faults:
        raise RunError(faults)
    measurements = {name: read_metrics(run.root / METRICS_FILE) for name, run in runs.items()}
    if baseline:
        reference = load_margins(runs[baseline].root / EVALUATION)
        for name, run in runs.items():
            if name != baseline:
                margins = load_margins(run.root / EVALUATION)
                measurements[name] += differences(margins, reference, data, versus=baseline, seed=run.recipe.seed)
    return measurements


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


def _inside(run: Run) -> Diagnostics:
    directory = run.root / EVALUATION
    return load_diagnostics(directory) if directory.is_dir() else _EMPTY


def _curves(runs: Mapping[str, Run]) -> list[Mapping[str, Any]]:
    several = len(runs) > 1
    return [
        {**record, "method": name} if several else record
        for name, run in runs.items()
        for record in read_log(run.root / LOG_FILE)
    ]


def _facts(run: Run) -> dict[str, Any]:
    facts = run.facts
    return {
        "command": facts.get("command", ""),
        "created": facts.get("created", ""),
        "seconds": facts.get("seconds", ""),
        "seed": run.recipe.seed,
        "data": facts["data"],
        "components": {
            kind: f"{about['name']} ({about['package']} {about['version']})"
            for kind, about in facts["components"].items()
        },
        "versions": facts["versions"],
    }
