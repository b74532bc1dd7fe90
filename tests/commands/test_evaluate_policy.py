"""``copl evaluate --policy``: gains in the table, in JSON and in the report; what was measured is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from copl.plugins import load
from copl.runs.directory import open_run

RunCopl = Callable[..., tuple[int, str, str]]
FEW = ("--num", 4, "--users", 8, "--prompts", 4)


@pytest.fixture
def run(personal_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(personal_run, tmp_path / "run"))


def test_gains_are_shown_kept_and_reported(run_copl: RunCopl, run: Path) -> None:
    before = open_run(run, load()).fingerprint
    code, out, err = run_copl("evaluate", run, "--policy", *FEW, "--no-cache")
    assert code == 0, err
    assert "true utility of what is shown, of 4 candidates" in out
    assert "length controlled gain" in out
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "What users are shown" in report
    assert "Gain of newcomers" in report
    assert open_run(run, load()).fingerprint == before  # what was measured is no part of the model
    stage = (run / "policy" / "stage.json").stat().st_mtime_ns
    code, out, _ = run_copl("evaluate", run, "--policy", *FEW, "--json", "--no-cache")
    found = [m for m in json.loads(out) if m.get("shown_by") == "oracle"]
    assert {m["value"] for m in found if m["metric"] == "utility_gain"} == {1.0}
    assert (run / "policy" / "stage.json").stat().st_mtime_ns == stage
    code, out, _ = run_copl("evaluate", run, "--no-cache")
    assert "true utility" not in out
    assert "What users are shown" in (run / "report.html").read_text(encoding="utf-8")


def test_candidates_are_written_once_for_all_aligners(run_copl: RunCopl, run: Path) -> None:
    def written_for(aligner: str, num: int) -> int:
        code, _, err = run_copl("evaluate", run, "--policy", "--aligner", aligner, *FEW, "--num", num, "--no-cache")
        assert code == 0, err
        return (run / "candidates" / "stage.json").stat().st_mtime_ns

    first = written_for("best-of-n", 4)
    assert written_for("none", 4) == first
    assert written_for("none", 3) > first


def test_faults(run_copl: RunCopl, run: Path, small_data: Path) -> None:
    code, _, err = run_copl("evaluate", run, "--aligner", "best-of-m", "--num", 1)
    assert code == 2
    assert err.splitlines() == ["copl: --num 1: at least 2", "copl: --aligner: give --policy as well"]
    code, _, err = run_copl("evaluate", run, "--users", 3, "--prompts", 2)
    assert code == 2
    assert err.splitlines() == ["copl: --prompts: give --policy as well", "copl: --users: give --policy as well"]
    code, _, err = run_copl("evaluate", run, "--policy", "--users", 0, "--prompts", 0)
    assert err.splitlines() == ["copl: --prompts 0: at least 1", "copl: --users 0: at least 1"]
    code, _, err = run_copl("evaluate", run, "--policy", "--set", "writer.x=1", "--set", "generator.x=1")
    assert code == 2
    assert [line.partition(";")[0] for line in err.splitlines()] == [
        "copl: --set writer: unknown section",
        "copl: generator.facets: unknown option 'x'",
    ]
    code, _, err = run_copl("evaluate", run, "--policy", "--aligner", "best-of-m", "--data", small_data)
    assert code == 2
    assert "leave --data" in err
    code, _, err = run_copl("evaluate", run, "--policy", "--aligner", "best-of-m")
    assert "unknown aligner 'best-of-m' (did you mean 'best-of-n'?)" in err
    assert not (run / "policy").exists()
