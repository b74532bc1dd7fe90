"""``copl ablate`` as typed: the plan, the tables, JSON, mistakes, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

RunCopl = Callable[..., tuple[int, str, str]]
GRAPH = ("--set", "method.name=graph", "--set", "encoder.name=mf", "--set", "encoder.num_steps=2")


def test_a_study_from_flags_prints_its_tables(run_copl: RunCopl, planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("ablate", "--vary", "adapter=mean,population", *GRAPH, "--data", planted / "one", "--out", out)
    code, printed, said = run_copl(*words)
    assert code == 0, said
    lines = printed.splitlines()
    assert lines[0] == "Accuracy, seen users"
    assert lines[1].split() == ["variant", "one"]
    assert [line.split()[0] for line in lines[2:4]] == ["mean", "population"]
    assert "Differences" in lines
    assert said.splitlines()[0] == "2 cells: 0 finished, 0 failed, 2 to run"
    code, as_json, said = run_copl(*words, "--json")
    assert code == 0
    assert "2 finished" in said
    found = json.loads(as_json)
    assert {(row["variant"], row["data"], row["seed"]) for row in found["results"]} == {
        ("mean", "one", 0),
        ("population", "one", 0),
    }
    assert {row["variant"] for row in found["differences"]} == {"population"}
    assert found["failed"] == {}


def test_a_dry_run_shows_the_plan_and_writes_nothing(run_copl: RunCopl, planted: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(
        'title = "two"\n[[variants]]\nname = "a"\n[[variants]]\nname = "b"\nrequires = "no-such-package"\n'
    )
    words = ("ablate", study, *GRAPH, "--data", planted / "one", "--seeds", 3, "--dry-run", "--out", tmp_path / "out")
    code, printed, said = run_copl(*words)
    assert code == 0
    assert printed.splitlines()[0] == "two: 1 variants"
    assert "data: one; seeds: 0, 1, 2; compared with a" in printed
    assert "3 cells" in printed
    assert said.strip() == "left out, because the package no-such-package is not installed: b"
    code, printed, _ = run_copl(*words, "--json")
    plan = json.loads(printed)
    assert (plan["cells"], plan["left_out"], plan["reference"]) == (3, {"b": "no-such-package"}, "a")
    assert plan["variants"]["a"]["encoder"]["num_steps"] == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        (["--vary", "encoder=mff"], ["unknown encoder 'mff' (did you mean 'mf'?)"]),
        (["--vary", "encoder=mf", "--jobs", "0"], ["--jobs 0: at least one"]),
        (["--vary", "encoder=mf"], ["--out is missing"]),
        (["--vary", "encodr=mf", "--set", "adaptr.name=x"], ["unknown section 'adaptr'", "unknown section 'encodr'"]),
    ],
)
def test_a_mistake_is_a_line_a_fault_and_nothing_is_written(
    words: list[str],
    faults: list[str],
    run_copl: RunCopl,
    planted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, said = run_copl("ablate", *GRAPH, "--data", planted / "one", *words)
    assert (code, printed) == (2, "")
    for line, fault in zip(said.splitlines(), faults, strict=True):
        assert line.startswith("copl: ")
        assert fault in line
    assert list(tmp_path.iterdir()) == []


def test_a_failed_cell_exits_with_2(run_copl: RunCopl, planted: Path, tmp_path: Path) -> None:
    """The method `btl` with a backbone that is nowhere fails; the graph beside it does not."""
    study = tmp_path / "study.toml"
    study.write_text(
        f"""
        [[variants]]
        name = "lost"
        values = {{ method = "btl", backbone = {{ name = "hf", path = "{tmp_path / "nowhere"}" }} }}
        [[variants]]
        name = "graph"
        values = {{ method = "graph", encoder = {{ name = "mf", num_steps = 2 }} }}
        """
    )
    words = ("ablate", study, "--data", planted / "one", "--out", tmp_path / "out")
    code, printed, said = run_copl(*words)
    assert code == 2
    assert "graph" in printed
    assert f"failed: one, lost, seed 0: there is no model directory {tmp_path / 'nowhere'}" in said
    assert "--retry runs it again" in said
    code, _, said = run_copl(*words)
    assert code == 2
    assert said.splitlines()[0] == "2 cells: 1 finished, 1 failed, 0 to run"
