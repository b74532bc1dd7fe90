"""``copl evaluate``: a run on held-out comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copl.commands.parts.arguments import JSON_OPTION, NO_CACHE_OPTION, RUN_ARGUMENT, shared_cache
from copl.commands.parts.display import open_progress, say, show, show_json
from copl.commands.parts.interrupts import interruptible


def evaluate(
    run_directory: RUN_ARGUMENT,
    data_directory: Annotated[
        Path | None, typer.Option("--data", help="Another data set than the one the run was trained on.")
    ] = None,
    as_json: JSON_OPTION = False,
    no_cache: NO_CACHE_OPTION = False,
) -> None:
    """Measure a run on held-out comparisons, new responses and unseen users; write metrics.json and report.html."""
    import attrs

    from copl.evaluate.tables import side_by_side
    from copl.plugins import load
    from copl.runs.directory import open_run
    from copl.runs.pipeline import evaluate as evaluate_run
    from copl.runs.pipeline import load_data
    from copl.runs.reporting import report_run

    run = open_run(run_directory, load())
    data, same = load_data(run, data_directory)
    notes = [] if same else [f"measured on {data_directory}, which is not the data set that the run was trained on"]
    cache = shared_cache(no_cache)
    with interruptible(lambda: "the run is kept as it was trained, and the same command measures what is missing"):
        evaluation = evaluate_run(run, data, plugins=load(), open_progress=open_progress, cache=cache)
        report = report_run(run, data, notes=notes)
    for note in notes:
        say(note)
    if as_json:
        show_json([attrs.asdict(m) for m in evaluation.measurements])
        return
    show(side_by_side({run.recipe.method.name: evaluation.measurements}, title=f"{data.name}, with 95 % intervals"))
    say(f"report: {report}")
