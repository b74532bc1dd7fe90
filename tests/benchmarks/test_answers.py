"""The record of what users are shown: one run with its own intervals, several with one over runs."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.answers import main
from benchmarks.records import read_record


def test_a_small_run_becomes_a_record(personal_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(personal_run, tmp_path / "run")
    main([str(run), "--num", "4", "--prompts", "3", "--users", "5", "--out", str(tmp_path / "align.json")])
    record = read_record(tmp_path / "align.json")
    rows = {row[0]: row for row in record.tables["gains"].rows}
    assert list(rows) == ["the first candidate", "best of n for the average user", "`best-of-n`", "oracle"]
    assert rows["oracle"][1] == "1.000 (1.000-1.000)"
    assert record.tables["newcomers"].header == ("answers given", "0", "1", "2", "4", "8")
    assert record.command == "python -m benchmarks.answers run"
