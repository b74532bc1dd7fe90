"""A study from beginning to end: run, killed, run again, failed, tried again."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pyarrow.parquet as pq
import pytest

from copl import builtin
from copl.ablate import cells as cells_module
from copl.ablate.conduct import Found
from copl.ablate.grid import Plan, plan
from copl.ablate.results import SIGNIFICANT
from copl.ablate.study import Flags, load_study
from copl.bradley_terry import correct
from copl.errors import RunError, TrainingError
from copl.interfaces import GraphEncoder, Progress
from copl.plugins import Component, Plugins, load
from copl.records import NodeEmbeddings, PreferenceGraph
from copl.runs.recipe import read_recipe, resolve
from copl.runs.results import load_margins
from copl.system import files

MakePlan = Callable[..., Plan]
RunPlan = Callable[..., tuple[Found, list[str]]]

OUTPUTS = ("results.parquet", "differences.parquet", "table.md", "table.tex", "table.html")
QUICK = ["encoder=mf,signed-gcn", "encoder.num_epochs=1"]  # without `gcf`, whose start fits factors in full


@pytest.fixture(scope="module")
def study(
    make_plan: MakePlan, run_plan: RunPlan, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, Path, Found, list[str]]:
    """A finished study: two encoders on two data sets with two seeds."""
    out = tmp_path_factory.mktemp("study") / "out"
    planned = make_plan(vary=QUICK, num_seeds=2)
    found, said = run_plan(planned, out)
    return planned, out, found, said


def contents(out: Path) -> dict[str, bytes]:
    names = [*OUTPUTS, "best.toml", *(f"plots/{path.name}" for path in sorted((out / "plots").iterdir()))]
    return {name: (out / name).read_bytes() for name in names}


def test_every_cell_and_measurement_is_a_row(study: tuple[Plan, Path, Found, list[str]]) -> None:
    _, out, found, said = study
    assert not found.failed
    assert said[0] == "8 cells: 0 finished, 0 failed, 8 to run"
    assert len(said) == 9
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert {(r["variant"], r["data"], r["seed"]) for r in rows} == {
        (variant, data, seed)
        for variant in ("encoder=mf", "encoder=signed-gcn, encoder.num_epochs=1")
        for data in ("one", "two")
        for seed in (0, 1)
    }
    assert {(r["encoder"], r["encoder.num_epochs"]) for r in rows} == {("mf", None), ("signed-gcn", "1")}
    for row in rows:
        measured = json.loads((out / row["run"] / "metrics.json").read_text())
        keys = ("split", "subset", "metric", "value", "low", "high", "count")
        assert {key: row[key] for key in keys} in measured
    assert {r["split"] for r in rows} == {"validation", "test", "cold", "heldout"}


def test_the_table_holds_means_over_seeds(study: tuple[Plan, Path, Found, list[str]]) -> None:
    _, out, found, _ = study
    rows = pq.read_table(out / "results.parquet").to_pylist()
    values = [
        r["value"]
        for r in rows
        if (r["variant"], r["data"], r["split"], r["metric"], r["subset"])
        == ("encoder=mf", "one", "test", "accuracy", "all")
    ]
    (table,) = [table for table in found.tables if table.split == "test"]
    entry = table.rows["encoder=mf"][table.columns.index("one")]
    assert entry is not None
    assert entry.value == pytest.approx(np.mean(values))
    assert entry.over_seeds
    assert [table.split for table in found.tables] == ["test", "cold", "heldout"]  # validation is no result
    assert table.columns == ("one", "two", "average")


def test_differences_are_of_the_same_comparisons(study: tuple[Plan, Path, Found, list[str]]) -> None:
    _, out, found, _ = study
    rows = pq.read_table(out / "results.parquet").to_pylist()
    runs = {(r["variant"], r["data"], r["seed"]): out / r["run"] / "evaluation" for r in rows}
    (difference,) = [d for d in found.differences if (d.data, d.split) == ("two", "heldout")]
    assert difference.variant == "encoder=signed-gcn, encoder.num_epochs=1"
    by_hand = [
        correct(load_margins(runs[difference.variant, "two", seed])["heldout"])
        - correct(load_margins(runs["encoder=mf", "two", seed])["heldout"])
        for seed in (0, 1)
    ]
    assert difference.value == pytest.approx(np.concatenate(by_hand).mean())
    assert difference.num_seeds == 2
    assert len(found.differences) == 3 * 3  # splits x (data sets and their average)
    assert all(d.p_value <= d.p_corrected <= 1 for d in found.differences)
    assert all((d.mark != "") == (d.p_corrected < SIGNIFICANT) for d in found.differences)


def test_the_best_is_chosen_by_validation_and_its_recipe_is_written(
    study: tuple[Plan, Path, Found, list[str]],
) -> None:
    _, out, found, _ = study
    mean: dict[str, list[float]] = {}
    for result in found.results:
        if (result.measured.split, result.measured.metric, result.measured.subset) == ("validation", "accuracy", "all"):
            mean.setdefault(result.variant, []).append(result.measured.value)
    best = max(mean, key=lambda name: np.mean(mean[name]))
    text = (out / "best.toml").read_text()
    assert text.startswith(f"# {best}: the best by accuracy on validation")
    draft, seed = read_recipe(out / "best.toml")
    assert resolve(draft, load(), seed=seed or 0).stages.parts["encoder"].name in best
    (remark,) = [line for line in found.remarks if line.startswith("Best by accuracy on validation")]
    assert f"average: {best}" in remark


def test_a_finished_study_is_not_run_again(
    study: tuple[Plan, Path, Found, list[str]], run_plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, out, _, _ = study
    before = contents(out)
    monkeypatch.setattr(cells_module, "train", None)  # calling it would fail
    _, said = run_plan(planned, out)
    assert said == ["8 cells: 8 finished, 0 failed, 0 to run"]
    assert contents(out) == before


def test_what_a_cell_noted_that_was_killed_when_it_had_ended_is_cleared_away(
    study: tuple[Plan, Path, Found, list[str]], run_plan: RunPlan
) -> None:
    planned, out, _, _ = study
    notes = [run.with_name(f".{run.name}.now") for run in (out / "cells").glob("*/*") if run.is_dir()]
    for note in notes:
        note.write_text("evaluate")
    run_plan(planned, out)
    assert [note.exists() for note in notes] == [False] * 8


def test_a_cell_that_was_damaged_is_run_again_and_its_numbers_are_the_same(
    study: tuple[Plan, Path, Found, list[str]], run_plan: RunPlan, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(study[1], tmp_path / "copy"))
    table = (out / "table.md").read_bytes()
    cells = sorted(path for path in (out / "cells").glob("*/*") if path.is_dir())
    (cells[0] / "metrics.json").write_text("[]")
    (cells[1] / "evaluation" / "margins.safetensors").write_bytes(b"no tensors")
    (cells[2] / "run.json").write_text("{}")
    one = json.loads((cells[3] / "metrics.json").read_text())
    (cells[3] / "metrics.json").write_text(json.dumps([{**m, "value": 0.999} for m in one]))
    _, said = run_plan(study[0], out)
    assert len([line for line in said if "run again: " in line]) == 4
    assert "8 cells: 4 finished, 0 failed, 4 to run" in said
    assert (out / "table.md").read_bytes() == table


def test_one_more_seed_runs_only_what_is_new(
    study: tuple[Plan, Path, Found, list[str]], make_plan: MakePlan, run_plan: RunPlan, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(study[1], out)
    _, said = run_plan(make_plan(vary=["encoder=mf"], num_seeds=3), out)
    assert said[0] == "6 cells: 4 finished, 0 failed, 2 to run"


class KilledError(BaseException):
    """Stands for the end of the process: nothing may catch it."""


def test_a_study_killed_at_any_write_ends_with_the_same_numbers(
    study: tuple[Plan, Path, Found, list[str]],
    make_plan: MakePlan,
    run_plan: RunPlan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process ends at the first write, taken up again it ends at the second one after, and so on."""
    out = tmp_path / "out"
    planned = make_plan(vary=QUICK, num_seeds=2)
    writes = {"left": 0}
    write = files.write_atomically

    def deadly(path: Path, action: Callable[[Path], Any]) -> None:
        if not writes["left"]:
            raise KilledError
        writes["left"] -= 1
        write(path, action)

    for module in ("copl.system.files", "copl.ablate.results"):
        monkeypatch.setattr(f"{module}.write_atomically", deadly)
    kills = 0
    while True:
        writes["left"] = kills
        try:
            run_plan(planned, out)
        except KilledError:
            kills += 1
            continue
        break
    assert kills > 10
    (again, other) = (contents(path) for path in (out, study[1]))
    runs = [pq.read_table(path / "results.parquet").column("run").to_pylist() for path in (out, study[1])]
    assert runs[0] == runs[1]
    assert {name: again[name] == other[name] for name in other} == dict.fromkeys(other, True)


def test_cells_that_share_a_stage_compute_it_once(make_plan: MakePlan, run_plan: RunPlan, tmp_path: Path) -> None:
    found, _ = run_plan(make_plan(vary=["adapter=mean,empirical,population"]), tmp_path / "out")
    stages = [json.loads((run / "run.json").read_text())["stages"] for run in sorted({r.run for r in found.results})]
    assert sorted(stage["graph"] for stage in stages) == ["computed"] * 2 + ["reused"] * 4


def test_one_seed_has_the_interval_of_its_run(make_plan: MakePlan, run_plan: RunPlan, tmp_path: Path) -> None:
    found, _ = run_plan(make_plan(vary=["encoder=mf"], num_seeds=1), tmp_path / "out")
    (table,) = [table for table in found.tables if table.split == "test"]
    (entries,) = table.rows.values()
    (measured,) = [
        r.measured
        for r in found.results
        if (r.data, r.measured.split, r.measured.metric, r.measured.subset) == ("one", "test", "accuracy", "all")
    ]
    entry = entries[0]
    assert entry is not None
    assert (entry.value, entry.low, entry.high, entry.over_seeds) == (
        measured.value,
        measured.low,
        measured.high,
        False,
    )
    assert found.differences == []
    assert "which says nothing about other seeds" in found.remarks[0]


@attrs.frozen
class NoOptions:
    pass


class Moody(GraphEncoder):
    """An encoder that fails for one data set, as long as a file is there."""

    def __init__(self, mood: Path, encoder: Any) -> None:
        self.mood, self.encoder = mood, encoder

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        if self.mood.exists():
            kind = self.mood.read_text()
            raise (
                TrainingError(["the loss is not finite", "lower the rate"])
                if kind == "told"
                else ZeroDivisionError("x")
            )
        embeddings: NodeEmbeddings = self.encoder.fit(graph, seed=seed, progress=progress)
        return embeddings


@pytest.mark.parametrize(("kind", "fault"), [("told", "the loss is not finite"), ("bug", "ZeroDivisionError: x")])
def test_a_failed_cell_is_reported_with_its_cause_and_tried_again_when_asked(
    kind: str, fault: str, planted: Path, run_plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mood = tmp_path / "mood"
    mood.write_text(kind)
    plugins = Plugins()
    plugins.register(builtin, "builtin", "copl", "1")
    mf = load().registry("encoder").create("mf", {"num_steps": 2})
    toy = Component("moody", NoOptions, lambda options: Moody(mood, mf), "fails at will")
    plugins.register(SimpleNamespace(copl_graph_encoders=lambda: [toy]), "toys", "toys", "1")
    monkeypatch.setattr(cells_module, "load", lambda: plugins)
    flags = Flags(vary=["encoder=mf,moody"], data=[str(planted / "one")], settings=["method.name=graph"], num_seeds=1)
    planned, out = plan(load_study(None, flags), plugins), tmp_path / "out"

    found, said = run_plan(planned, out)
    ((cell, outcome),) = found.failed.items()
    assert outcome.faults[0] == fault
    assert ("Traceback" in outcome.trace) == (kind == "bug")
    assert f"one, moody, seed 0: failed: {fault}" in said[2]
    (table,) = [table for table in found.tables if table.split == "test"]
    assert table.rows["moody"] == (None,)
    assert any("Cells that failed: 1" in remark for remark in found.remarks)

    mood.unlink()
    found, said = run_plan(planned, out)
    assert said == ["2 cells: 1 finished, 1 failed, 0 to run"]
    assert [outcome.faults[0] for outcome in found.failed.values()] == [fault]
    found, said = run_plan(planned, out, retry=True)
    assert said[0] == "2 cells: 1 finished, 0 failed, 1 to run"
    assert not found.failed
    assert not cell.failure_file.exists()


def test_data_are_made_once_and_for_each_seed_where_asked(run_plan: RunPlan, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    small = "{ num_seen_users = 12, num_unseen_users = 4, num_prompts = 30 }"
    text = f"""
    seeds = 2
    base = {{ method = "graph", encoder = {{ name = "mf", num_steps = 2 }} }}
    [data.same]
    source = "facets"
    options = {small}
    [data.drawn]
    source = "facets"
    options = {small}
    per_seed = true
    """
    path.write_text(text)
    planned, out = plan(load_study(path, Flags()), load()), tmp_path / "out"
    _, said = run_plan(planned, out)
    assert sum(line.startswith("making data set same") for line in said) == 1
    assert sum(line.startswith("making data set drawn") for line in said) == 2
    facts = json.loads((out / "study.json").read_text())
    prints = {(entry["name"], entry["seed"]): entry["fingerprint"] for entry in facts["data"]}
    assert prints["same", 0] == prints["same", 1]
    assert prints["drawn", 0] != prints["drawn", 1]
    _, said = run_plan(planned, out)
    assert len(said) == 1
    assert tomllib.loads((out / "best.toml").read_text())["encoder"]["name"] == "mf"


def test_a_directory_of_something_else_is_left_alone(make_plan: MakePlan, run_plan: RunPlan, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="holds something else than a study"):
        run_plan(make_plan(), tmp_path)
    with pytest.raises(RunError, match="is a file"):
        run_plan(make_plan(), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_two_names_of_one_recipe_share_their_cells(make_plan: MakePlan, run_plan: RunPlan, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('[[variants]]\nname = "a"\n[[variants]]\nname = "b"\n')
    found, said = run_plan(make_plan(path), tmp_path / "out")
    assert said[0] == "2 cells: 0 finished, 0 failed, 2 to run"
    assert {r.variant for r in found.results} == {"a", "b"}
    assert {d.value for d in found.differences} == {0.0}


def test_a_gain_is_over_the_best_that_knows_no_users(make_plan: MakePlan, run_plan: RunPlan, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text("""
    [[variants]]
    name = "mf"
    values = { method = "graph" }
    [[variants]]
    name = "effects"
    values = { encoder = "none" }
    [[variants]]
    name = "length"
    values = { method = "length" }
    """)
    found, _ = run_plan(make_plan(path, num_seeds=2), tmp_path / "out")
    entries = {table.split: table.rows for table in found.tables}
    assert {d.variant for d in found.differences} == {"mf"}
    for difference in found.differences:
        if difference.data == "average":
            continue
        rows = entries[difference.split]
        column = ["one", "two"].index(difference.data)
        values = {name: row[column].value for name, row in rows.items() if row[column]}  # type: ignore[union-attr]  # there
        best = max(("effects", "length"), key=lambda name: values[name])
        assert difference.versus == best
        assert difference.value == pytest.approx(values["mf"] - values[best])
        marked = rows[best][column]
        assert marked is not None
        assert str(marked).find("†") == -1
        assert marked.mark == "reference"
    assert "†: the best of the variants that know no users" in (tmp_path / "out" / "table.md").read_text()
