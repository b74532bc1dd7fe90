"""The results page of a tiny study: its record holds what the study measured, and the page quotes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import results_page
from benchmarks.pages import figures_of
from benchmarks.records import PublishedTable, read_record
from copl.ablate.conduct import Found
from copl.ablate.grid import Plan
from copl.evaluate.tables import number

STUDY = """
title = "a tiny study"
[search]
num_trials = 2
[search.ranges.mf]
"encoder.num_steps" = [3, 4]
[[variants]]
name = "mf"
[[variants]]
name = "effects"
values = { encoder = "none" }
[[variants]]
name = "length"
values = { method = "length" }
"""


def test_the_page_quotes_the_record_and_the_record_the_study(
    make_plan: Callable[..., Plan], run_plan: Callable[..., tuple[Found, list[str]]], tmp_path: Path
) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    study = tmp_path / "out"
    run_plan(make_plan(tmp_path / "study.toml", num_seeds=2), study)
    page, results = tmp_path / "results.md", tmp_path / "records"
    arguments = [str(study), "--name", "tiny", "--ours", "mf", "--page", str(page), "--results", str(results)]
    results_page.main(arguments)
    record = read_record(results / "tiny.json")
    assert record.title == "a tiny study"
    assert record.changed() == []
    rows = pq.read_table(study / "accuracy.parquet").to_pylist()
    for title in ("seen-users", "new-prompts", "unseen-users", "gains", "worst-group", "cost", "search"):
        assert f"<!-- table: tiny/{title} -->" in page.read_text()
        assert record.tables[title].rows
    table = record.tables["unseen-users"]
    assert set(record.tables["front"].rows) <= set(record.tables["overview"].rows)
    assert "tiny/front" not in page.read_text()  # that is for the front page
    (mf,) = [row for row in table.rows if row[0] == "`mf`"]
    value = next(r["value"] for r in rows if (r["variant"], r["data"], r["split"]) == ("mf", "two", "heldout"))
    assert number(value) in mf[table.header.index("two")]
    marked = {row[0] for row in table.rows if "†" in row[table.header.index("two")]}
    assert marked <= {"`effects`", "`length`"}
    assert len(marked) == 1
    known = figures_of(" ".join([*record.notes, *(c for t in record.tables.values() for row in t.rows for c in row)]))
    assert figures_of(page.read_text()) <= known
    best = max((r for r in rows if (r["data"], r["split"]) == ("one", "cold")), key=lambda r: r["value"])
    ours = next(r["value"] for r in rows if (r["variant"], r["data"], r["split"]) == ("mf", "one", "cold"))
    assert (best["value"] > ours) == any("On one, new prompts" in sentence for sentence in record.notes)


def test_a_study_that_has_not_ended_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"study\.json, accuracy\.parquet, results\.parquet is not there"):
        results_page.main([str(tmp_path)])


def test_where_others_are_ahead_is_said_with_by_how_much() -> None:
    rows = [
        {"variant": name, "data": "votes", "split": "test", "value": value}
        for name, value in (("copl", 0.8), ("vpl", 0.825), ("btl", 0.7), ("gpo", 0.801))
    ]
    assert results_page.other_winners(rows, "copl") == [
        "On votes, seen users, ahead of `copl` (.800): `vpl` by .025, `gpo` by .001."
    ]
    assert results_page.other_winners(rows, "vpl") == []


def test_the_front_page_shows_ours_the_best_of_each_kind_and_the_bound() -> None:
    rows = {
        "`ours`": (".700 ± .010", ".600 ± .010"),
        "`graph`": (".690 ± .010", "\N{EN DASH}"),
        "`none`": (".600 ± .010†", ".550 ± .010"),
        "`btl`": (".590 ± .010", ".560 ± .010†"),
        "`length`": (".500 ± .010", ".510 ± .010"),
        "`first`": (".695 ± .010", ".620 ± .010"),
        "`equal`": ("**.710** ± .010", ".620 ± .010"),
        "`group-oracle`": (".900 ± .010", ".900 ± .010"),
    }
    overview = PublishedTable("On average", ("method", "seen users", "new prompts"), [(k, *v) for k, v in rows.items()])
    shown = results_page.front_table(overview, "ours")
    assert [row[0] for row in shown.rows] == ["`ours`", "`none`", "`btl`", "`equal`", "`group-oracle`"]
    assert all(row[1:] == rows[row[0]] for row in shown.rows)
