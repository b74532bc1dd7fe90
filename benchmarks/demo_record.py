"""The record of a finished demo, or of any folder of evaluated runs on one data set beside each other.

    copl demo --out demo-run
    python -m benchmarks.demo_record demo-run

Writes ``benchmarks/results/demo.json`` with the accuracy of each run and its gain over the best that knows no users;
``python docs/generate.py`` then fills in the pages that quote it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from benchmarks.measured import RESULTS
from benchmarks.records import PublishedTable, new_record, write_record
from benchmarks.results_page import CODE
from copl.evaluate.paired import VERSUS
from copl.evaluate.tables import cell, held_out, split_order, split_title
from copl.plugins import load
from copl.records import Measurement
from copl.runs.directory import Run, open_run
from copl.runs.pipeline import load_data
from copl.runs.reporting import compared


def accuracy_table(measurements: dict[str, list[Measurement]]) -> PublishedTable:
    """Return runs by kinds of held-out comparisons."""
    found = {
        (name, m.split): m
        for name, ms in measurements.items()
        for m in ms
        if (m.metric, m.subset) == ("accuracy", "all")
    }
    splits = split_order([split for _, split in found])
    rows = [
        (f"`{name}`", *(cell(found[name, split]) if (name, split) in found else "" for split in splits))
        for name in measurements
    ]
    return PublishedTable("Accuracy", ("method", *map(split_title, splits)), rows)


def gains_table(measurements: dict[str, list[Measurement]]) -> PublishedTable:
    """Return by how much each run is ahead of the best that knows no users."""
    rows = [
        (f"`{name}`", split_title(m.split), f"`{m.subset.removeprefix(VERSUS)}`", cell(m))
        for name, ms in measurements.items()
        for m in ms
        if m.metric == "accuracy_difference" and m.subset.removeprefix(VERSUS) in measurements
    ]
    return PublishedTable("Gains", ("method", "held-out comparisons", "compared with", "difference"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_record", description=__doc__)
    parser.add_argument("directory", type=Path, help="what the demo wrote")
    parser.add_argument("--command", default="copl demo", help="how it was made")
    parser.add_argument("--out", type=Path, default=RESULTS / "demo.json", help="file of the record")
    wanted = parser.parse_args(arguments)
    runs: dict[str, Run] = {
        path.parent.name: open_run(path.parent, load()) for path in sorted(wanted.directory.glob("*/run.json"))
    }
    if not runs:
        sys.exit(f"{wanted.directory}: there are no runs below it")
    ordered = {name: runs[name] for name in sorted(runs, key=lambda name: (not runs[name].recipe.personal, name))}
    data, _ = load_data(next(iter(ordered.values())))
    measurements = held_out(compared(ordered, data))
    seconds = sum(run.facts.seconds or 0.0 for run in runs.values())
    record = new_record("The demo", wanted.command, code=CODE, notes=[f"{seconds:.0f} s of training in all runs."])
    tables = {"accuracy": accuracy_table(measurements), "gains": gains_table(measurements)}
    write_record(evolve(record, tables=tables), wanted.out)
    print(wanted.out)


if __name__ == "__main__":
    main()
