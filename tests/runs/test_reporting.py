"""Runs side by side: each is compared with the best that knows no users, on each split."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import demo_record
from benchmarks.records import read_record
from copl.data.dataset import load_dataset, save_dataset
from copl.errors import RunError
from copl.evaluate.tables import split_title
from copl.evaluate.verdict import CONSENSUS
from copl.plugins import load
from copl.records import Measurement
from copl.runs.directory import open_run
from copl.runs.reporting import Evaluated, compared


def test_gains_are_over_the_best_that_knows_no_users(
    run_copl: Callable[..., tuple[int, str, str]], small_data: Path, tmp_path: Path
) -> None:
    chosen = {
        "mf": ("--method", "graph", "--encoder", "mf", "--set", "encoder.num_steps=5"),
        "effects": ("--method", "graph", "--encoder", "none"),
        "length": ("--method", "length"),
    }
    for name, flags in chosen.items():
        assert run_copl("train", small_data, "--out", tmp_path / name, *flags)[0] == 0
        assert run_copl("evaluate", tmp_path / name)[0] == 0
    runs = {name: open_run(tmp_path / name, load()) for name in chosen}
    data = load_dataset(small_data)
    measurements = compared(runs, data)
    accuracy = {
        (name, m.split): m.value
        for name, ms in measurements.items()
        for m in ms
        if (m.metric, m.subset) == ("accuracy", "all")
    }

    def gains_of(measured: list[Measurement]) -> list[Measurement]:
        """Differences to other runs; an evaluation holds those to the average user, too."""
        return [m for m in measured if m.subset.removeprefix("versus:") in chosen]

    for m in measurements["mf"]:
        if m.subset == f"versus:{CONSENSUS}":  # without texts, what all think of responses is their effects
            assert m.value == pytest.approx(accuracy["mf", m.split] - accuracy["effects", m.split])
    by_name = {name: {m.split for m in ms if m.subset == f"versus:{CONSENSUS}"} for name, ms in measurements.items()}
    assert by_name == {"mf": {"validation", "test", "cold", "heldout"}, "effects": set(), "length": set()}
    gains = gains_of(measurements["mf"])
    assert {m.split for m in gains} == {split for name, split in accuracy if name == "mf"}
    for gain in gains:
        best = max(("effects", "length"), key=lambda name: accuracy[name, gain.split])
        assert gain.subset == f"versus:{best}"
        assert gain.value == pytest.approx(accuracy["mf", gain.split] - accuracy[best, gain.split])
        assert gain.split not in {m.split for m in gains_of(measurements[best])}
    assert gains_of(compared({"mf": runs["mf"]}, data)["mf"]) == []  # nobody to be ahead of

    demo_record.main([str(tmp_path), "--out", str(tmp_path / "demo.json")])
    tables = read_record(tmp_path / "demo.json").tables
    assert [row[0] for row in tables["accuracy"].rows] == ["`mf`", "`effects`", "`length`"]  # who knows users first
    assert {row[:3] for row in tables["gains"].rows if row[0] == "`mf`"} == {
        ("`mf`", split_title(gain.split), f"`{gain.subset.removeprefix('versus:')}`")
        for gain in gains
        if gain.split != "validation"
    }


def test_runs_of_different_data_are_not_compared(
    run_copl: Callable[..., tuple[int, str, str]], small_data: Path, tmp_path: Path
) -> None:
    options = {"num_seen_users": 40, "num_unseen_users": 10, "num_prompts": 30}
    save_dataset(load().registry("source").create("facets", options).load(seed=5), tmp_path / "other")
    for name, data in (("a", small_data), ("b", tmp_path / "other")):
        assert run_copl("train", data, "--out", tmp_path / "runs" / name, "--method", "length")[0] == 0
        assert run_copl("evaluate", tmp_path / "runs" / name)[0] == 0
    with pytest.raises(RunError, match=r"runs/b: evaluated on other data"):
        Evaluated.read(tmp_path / "runs")


def test_what_another_run_was_measured_by_is_not_reported(
    run_copl: Callable[..., tuple[int, str, str]], small_data: Path, tmp_path: Path
) -> None:
    """Nor what the same run was measured by before it was trained anew."""
    for name, method in (("a", "length"), ("b", "graph")):
        words = ("--method", method, *(("--encoder", "none") if method == "graph" else ()))
        assert run_copl("train", small_data, "--out", tmp_path / name, *words)[0] == 0
        assert run_copl("evaluate", tmp_path / name)[0] == 0
    shutil.rmtree(tmp_path / "b" / "evaluation")
    shutil.copytree(tmp_path / "a" / "evaluation", tmp_path / "b" / "evaluation")
    code, _, err = run_copl("report", tmp_path / "b")
    assert (code, err.count("\n")) == (2, 1)
    assert "b/evaluation is of another run, or of this one before it was trained anew" in err
    assert run_copl("evaluate", tmp_path / "b")[0] == 0
    assert run_copl("report", tmp_path / "b")[0] == 0
