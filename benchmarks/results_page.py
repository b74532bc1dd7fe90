"""The results page out of a finished study: its record, and a page that quotes it.

    copl ablate configs/report.toml --out report
    python -m benchmarks.results_page report

Writes ``benchmarks/results/<name>.json`` and ``docs/results.md`` (or what ``--page`` says). The page has a table for
each kind of held-out comparisons, gains over the best method that knows no users, the group served worst, what a run
costs, what the search was worth, and a sentence for each place where something else than the method in question wins.
Run it at the commit the study was run at: the record keeps a digest of the code as it is now.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow.parquet as pq
from attrs import evolve

from benchmarks.measured import RESULTS, ROOT
from benchmarks.pages import filled, forget_records
from benchmarks.records import TOLD, PublishedTable, new_record, write_record
from copl.ablate.results import AVERAGE
from copl.evaluate.tables import is_no_answer, number, split_order, split_title
from copl.system.files import write_text

CODE = (
    "copl/data",
    "copl/graph",
    "copl/reward",
    "copl/experts",
    "copl/adapt",
    "copl/methods",
    "copl/evaluate",
    "copl/ablate",
    "plugins/copl-baselines/src",
)
Row: TypeAlias = "Mapping[str, Any]"
Place: TypeAlias = "tuple[str, str, str]"
"""Variant, data set, split."""


def accuracy_tables(rows: Sequence[Row], differences: Sequence[Row]) -> Iterator[tuple[str, PublishedTable]]:
    """Yield a table for each split: variants by data sets, the reference marked, the highest not `TOLD` bold."""
    found: dict[Place, Row] = {(row["variant"], row["data"], row["split"]): row for row in rows}
    marks = {_place(d): "↑" if d["value"] > 0 else "↓" for d in differences if d["p_corrected"] < 0.05}
    variants = [*dict.fromkeys(row["variant"] for row in rows)]
    for split in split_order([row["split"] for row in rows]):
        columns = [*dict.fromkeys(row["data"] for row in rows if row["split"] == split)]
        columns.sort(key=lambda data: data == AVERAGE)
        best: dict[str, float] = {}
        for (name, data, own), measured in found.items():
            if own == split and not _is_told(name):
                best[data] = max(best.get(data, 0.0), round(measured["value"], 3))
        lines = []
        for variant in variants:
            cells = []
            for data in columns:
                row = found.get((variant, data, split))
                cells.append("" if row is None else _cell(row, best.get(data), marks.get(_place(row), "")))
            lines.append((f"`{variant}`", *cells))
        yield _slug(split), PublishedTable(f"Accuracy, {split_title(split)}", ("method", *columns), lines)


def overview_table(rows: Sequence[Row], differences: Sequence[Row]) -> PublishedTable:
    """Return methods by kinds of held-out comparisons, on average over the data sets where there are several."""
    several = any(row["data"] == AVERAGE for row in rows)
    one = [{**row, "data": row["split"]} for row in rows if not several or row["data"] == AVERAGE]
    marks = [{**d, "data": d["split"]} for d in differences if not several or d["data"] == AVERAGE]
    as_columns = [{**row, "split": "test"} for row in one], [{**mark, "split": "test"} for mark in marks]
    ((_, table),) = accuracy_tables(*as_columns)
    header = ("method", *(split_title(split) for split in table.header[1:]))
    return PublishedTable("Accuracy, on average", header, table.rows)


def front_table(overview: PublishedTable, ours: str) -> PublishedTable:
    """Return what a visitor needs of an overview: ours, and by column the best that knows users and that knows none.

    What is told what no method knows stays as the bound. Of equals the one is shown that is shown already.
    """
    chosen = {f"`{ours}`", *TOLD}
    others = [row for row in overview.rows if row[0] not in chosen]
    for knows_users in (True, False):
        for column in range(1, len(overview.header)):
            figures = {row[0]: _figure(row[column]) for row in others if ("†" not in "".join(row)) == knows_users}
            best = [name for name, figure in figures.items() if figure == max(figures.values())]
            if not chosen.intersection(best):
                chosen.update(best[:1])
    return evolve(overview, rows=tuple(row for row in overview.rows if row[0] in chosen))


def _figure(cell: str) -> float:
    """Return the figure that a cell begins with; below all others where it has none."""
    match = re.match(r"[01]?\.\d+", cell.strip("*"))
    return float(match.group()) if match else -1.0


def _place(row: Row) -> Place:
    return row["variant"], row["data"], row["split"]


def _is_told(variant: str) -> bool:
    return f"`{variant}`" in TOLD


def _cell(row: Row, best: float | None, mark: str) -> str:
    mark = "†" if row["is_reference"] else mark
    if is_no_answer(row["value"], row["low"], row["high"]):
        return f"\N{EN DASH}{mark}"
    half = max(row["value"] - row["low"], row["high"] - row["value"])
    value = number(row["value"])
    shown = f"**{value}**" if round(row["value"], 3) == best and not _is_told(row["variant"]) else value
    return f"{shown} ± {number(half)}{mark}"


def gains_table(differences: Sequence[Row], ours: str) -> PublishedTable:
    """Return by how much methods are ahead of the best that knows no users: each on average, ours on each data set."""
    several = any(d["data"] == AVERAGE for d in differences)
    rows = [
        (
            f"`{d['variant']}`",
            d["data"],
            split_title(d["split"]),
            f"`{d['versus']}`",
            f"{number(d['value'], signed=True)} ({number(d['low'], signed=True)} to {number(d['high'], signed=True)})",
            "<.001" if d["p_corrected"] < 0.001 else number(d["p_corrected"]),
        )
        for d in differences
        if d["variant"] == ours or d["data"] == AVERAGE or not several
    ]
    return PublishedTable("Gains", ("method", "data", "split", "compared with", "difference", "p (Holm)"), rows)


def worst_group_table(results: Sequence[Row]) -> PublishedTable:
    """Return the mean accuracy of the group served worst, over seeds, for seen and for unseen users."""
    return _means_table(
        "Accuracy of the group served worst",
        [row for row in results if row["metric"] == "worst_group_accuracy"],
        lambda values: f"{number(float(np.mean(values)))} (seeds {number(min(values))} to {number(max(values))})",
    )


def _means_table(title: str, rows: Sequence[Row], show: Any) -> PublishedTable:
    rows = [row for row in rows if row["split"] not in ("train", "validation", "support")]
    by_place: dict[Place, list[float]] = {}
    for row in rows:
        by_place.setdefault(_place(row), []).append(row["value"])
    columns = [*dict.fromkeys((data, split) for _, data, split in by_place)]
    lines = [
        (f"`{variant}`", *(show(by_place[variant, *c]) if (variant, *c) in by_place else "" for c in columns))
        for variant in dict.fromkeys(variant for variant, _, _ in by_place)
    ]
    return PublishedTable(title, ("method", *(f"{data}, {split_title(split)}" for data, split in columns)), lines)


def cost_table(study: Path, results: Sequence[Row]) -> PublishedTable:
    """Return the median seconds that training took; what a run shares with an earlier one costs it nothing."""
    seconds: dict[tuple[str, str], dict[str, float]] = {}
    for row in results:
        run = study / row["run"]
        if row["run"] not in seconds.setdefault((row["variant"], row["data"]), {}):
            facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
            seconds[row["variant"], row["data"]][row["run"]] = float(facts["seconds"])
    columns = [*dict.fromkeys(data for _, data in seconds)]
    lines = [
        (
            f"`{variant}`",
            *(
                f"{np.median([*seconds[variant, data].values()]):.1f}" if (variant, data) in seconds else ""
                for data in columns
            ),
        )
        for variant in dict.fromkeys(variant for variant, _ in seconds)
    ]
    return PublishedTable("Seconds of training", ("method", *columns), lines)


def search_rows(trials: Sequence[Row]) -> PublishedTable:
    """Return what the search was worth: validation loss as it stands, best, median and worst."""
    by_place: dict[tuple[str, str], list[Row]] = {}
    for trial in trials:
        by_place.setdefault((trial["variant"], trial["data"]), []).append(trial)
    lines = []
    for (variant, data), here in by_place.items():
        losses = [trial["loss"] for trial in here if trial["loss"] is not None]
        if not losses:
            continue
        stands = "" if here[0]["loss"] is None else number(here[0]["loss"])
        chosen = next(trial for trial in here if trial["chosen"])
        values = ", ".join(f"{key}={value}" for key, value in chosen["values"].items()) or "as it stands"
        spread = [number(float(value)) for value in (min(losses), np.median(losses), max(losses))]
        lines.append((f"`{variant}`", data, str(len(here)), stands, *spread, values))
    header = ("method", "data", "trials", "loss as it stands", "best", "median", "worst", "chosen")
    return PublishedTable("Search, on validation", header, lines)


def other_winners(rows: Sequence[Row], ours: str) -> list[str]:
    """Return a sentence for each data set and split on which another method is ahead of ours, by how much."""
    found: list[str] = []
    for data, split in dict.fromkeys((row["data"], row["split"]) for row in rows):
        here = {row["variant"]: row["value"] for row in rows if (row["data"], row["split"]) == (data, split)}
        ahead = sorted((v for v in here if here[v] > here.get(ours, 1.0)), key=lambda v: -here[v])
        if ahead:
            others = ", ".join(f"`{v}` by {number(here[v] - here[ours])}" for v in ahead)
            found.append(f"On {data}, {split_title(split)}, ahead of `{ours}` ({number(here[ours])}): {others}.")
    return found


def page_of(name: str, title: str, tables: Mapping[str, PublishedTable], winners: Sequence[str], ours: str) -> str:
    """Return the page, its blocks still to be filled."""
    lines = [
        "# Results",
        "",
        f"{title[0].upper()}{title[1:]}, by the rules of [how figures are made](protocol.md). Means over seeds ±",
        "half the width of the 95 % interval, by Student's t over seeds and over users and prompts that seeds share.",
        "†: the best method that knows no users, which gains are over; ↑ and ↓: significantly above and below",
        "it, after Holm's correction for all differences of the study. Bold is the highest mean of a method that is",
        "not told the groups of users, significant or not.",
        "",
    ]
    for table_name, table in tables.items():
        lines += [f"## {table.title}", "", f"<!-- table: {name}/{table_name} -->", "<!-- end -->", ""]
    if (RESULTS / "minorities.json").is_file():
        lines += [
            "## Minorities",
            "",
            "Planted graphs, where the limit is known (`python -m benchmarks.minorities`):",
            "",
        ]
        lines += ["<!-- table: minorities/by-group -->", "<!-- end -->", ""]
    lines += [f"## Where something else than `{ours}` is ahead", ""]
    lines += [f"- {sentence}" for sentence in winners] or ["Nowhere in these tables."]
    return "\n".join(lines) + "\n"


def _slug(split: str) -> str:
    return split_title(split).replace(" ", "-")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_page", description=__doc__)
    parser.add_argument("study", type=Path, help="directory that `copl ablate` wrote")
    parser.add_argument("--name", default="report", help="name of the record")
    parser.add_argument("--ours", default="copl", help="the method that the others are held against in words")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md", help="file of the page")
    parser.add_argument("--record-only", action="store_true", help="write no page")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    wanted = parser.parse_args(arguments)
    study: Path = wanted.study
    missing = [name for name in ("study.json", "accuracy.parquet", "results.parquet") if not (study / name).is_file()]
    if missing:
        sys.exit(f"{study}: {', '.join(missing)} is not there; run `copl ablate CONFIG --out {study}` to its end first")
    facts = json.loads((study / "study.json").read_text(encoding="utf-8"))
    rows, results, differences = (
        pq.read_table(study / f"{name}.parquet").to_pylist() for name in ("accuracy", "results", "differences")
    )
    tables = {"overview": overview_table(rows, differences), **dict(accuracy_tables(rows, differences))}
    if differences:
        tables["gains"] = gains_table(differences, wanted.ours)
    if any(row["metric"] == "worst_group_accuracy" for row in results):
        tables["worst-group"] = worst_group_table(results)
    tables["cost"] = cost_table(study, results)
    if (study / "search.json").is_file():
        tables["search"] = search_rows(json.loads((study / "search.json").read_text(encoding="utf-8")))
    winners = other_winners(rows, wanted.ours)
    notes = [f"Seeds {', '.join(map(str, facts['seeds']))}.", *winners]
    record = new_record(facts["title"], facts["command"], code=CODE, notes=notes)
    front = front_table(tables["overview"], wanted.ours)
    write_record(evolve(record, tables={**tables, "front": front}), wanted.results / f"{wanted.name}.json")
    if wanted.record_only:
        print(wanted.results / f"{wanted.name}.json")
        return
    forget_records()
    page = page_of(wanted.name, facts["title"], tables, winners, wanted.ours)
    if wanted.results == RESULTS:
        page = filled(page, wanted.page)
    write_text(wanted.page, page)
    print(wanted.results / f"{wanted.name}.json", wanted.page)


if __name__ == "__main__":
    main()
