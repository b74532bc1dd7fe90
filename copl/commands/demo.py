"""``copl demo``: the whole pipeline on the embedded corpus, `copl` beside its baselines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from copl.commands.display import open_progress, say, show
from copl.data.dataset import load_dataset, save_dataset
from copl.evaluate.findings import findings
from copl.evaluate.tables import held_out, methods_table
from copl.plugins import load
from copl.runs.directory import REPORT_FILE, Run
from copl.runs.pipeline import evaluate, train
from copl.runs.recipe import Draft, merge, parse_assignments, resolve
from copl.runs.reporting import compared, report_runs
from copl.system.files import cache_directory

METHODS = ("copl", "btl", "graph")
"""What the demo compares: the method, one reward model for everybody, the graph without text."""


def run_demo(out: Path, *, backbone: str | None, assignments: Sequence[str], seed: int, use_cache: bool) -> Path:
    """Make the corpus, train and evaluate each method, print the table, write the report.

    Returns:
        the report's path.
    """
    started = time.monotonic()
    plugins = load()
    cache = cache_directory() if use_cache else None
    settings = parse_assignments(assignments)
    source_options = settings.pop("source", {})
    chosen: Draft = {"backbone": {"name": backbone}} if backbone else {}
    recipes = {
        name: resolve(merge({"method": {"name": name}}, chosen, settings), plugins, seed=seed) for name in METHODS
    }
    for recipe in recipes.values():
        if "backbone" in recipe.stages.parts:
            recipe.stages.build("backbone").fingerprint()  # an error now, rather than with half a demo on disk
    data_directory = out / "data"
    source = plugins.registry("source").create("facets", source_options)
    if not data_directory.exists():
        save_dataset(source.load(seed=seed), data_directory)
    data = load_dataset(data_directory)
    say(f"data: {data.name}, {len(data.users)} users, {len(data.split('train'))} training comparisons")
    runs: dict[str, Run] = {}
    for name, recipe in recipes.items():
        say(f"training {name}")
        run, method = train(recipe, data_directory, out / name, open_progress=open_progress, cache=cache)
        evaluate(run, data, plugins=plugins, open_progress=open_progress, cache=cache, method=method)
        runs[name] = run
    measurements = held_out(compared(runs, data, baseline="btl"))
    report = report_runs(runs, data, out / REPORT_FILE, baseline="btl")
    show(methods_table(measurements, title="accuracy on held-out comparisons (95 % interval)"))
    for sentence in findings({"copl": [m for m in measurements["copl"] if m.metric == "accuracy_difference"]}):
        print(sentence)
    say(f"report: {report}  ({time.monotonic() - started:.0f} s)")
    return report
