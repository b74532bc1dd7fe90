"""The record of what users are shown: one run with its own intervals, several by Student's t."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.answers import main, over_runs
from benchmarks.records import read_record
from copl.records import Measurement


def test_several_runs_are_a_mean_with_an_interval_by_t() -> None:
    runs = [Measurement("cold", "all", "utility_gain", value, 0, 1, 9) for value in (0.7, 0.8, 0.9)]
    mean = over_runs(runs)
    assert mean.value == pytest.approx(0.8)
    assert mean.high - mean.value == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-5)
    assert over_runs(runs[:1]) is runs[0]


def test_a_small_run_becomes_a_record(personal_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(personal_run, tmp_path / "run")
    main([str(run), "--num", "4", "--prompts", "3", "--users", "5", "--out", str(tmp_path / "align.json")])
    record = read_record(tmp_path / "align.json")
    rows = {row[0]: row for row in record.tables["gains"].rows}
    assert list(rows) == ["the first candidate", "best of n for the average user", "`best-of-n`", "oracle"]
    assert rows["oracle"][1] == "1.000 (1.000-1.000)"
    assert record.tables["newcomers"].header == ("answers given", "0", "1", "2", "4", "8")
    assert record.command == "python -m benchmarks.answers run"
