"""The benchmark of training steps runs from one command; its figures are not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not (ROOT / "benchmarks" / "mole_speed.py").is_file(), reason="the benchmarks are not beside this")
def test_the_benchmark_runs_on_a_tiny_backbone(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    options = ["--backbone", "tiny", "--pairs", "2", "--length", "16", "--rounds", "1", "--threads", "1"]
    command = [sys.executable, "-m", "benchmarks.mole_speed", *options, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    for variant in ("forward", "stock", "plain", "mixture", "dispatch", "packed", "cached"):
        assert f"| {variant} |" in text
    for ratio in ("mixture / stock", "mixture / plain", "dispatch / mixture", "mixture / packed", "mixture / cached"):
        assert f"| {ratio} |" in text
    assert "python -m benchmarks.mole_speed --backbone tiny" in text
