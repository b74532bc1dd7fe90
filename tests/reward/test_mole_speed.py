"""The benchmark of training steps runs from one command; its figures are not judged here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not (ROOT / "benchmarks" / "mole_speed.py").is_file(), reason="the benchmarks are not beside this")
def test_the_benchmark_runs_on_a_tiny_backbone(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    options = ["--backbone", "tiny", "--pairs", "2", "--length", "16", "--rounds", "1", "--threads", "1"]
    from benchmarks.mole_speed import main

    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            main([*options, "--out", str(out)])
    finally:
        torch.set_num_threads(threads)
    text = out.read_text(encoding="utf-8")
    for variant in ("forward", "stock", "plain", "mixture", "dispatch", "packed", "cached"):
        assert f"| {variant} |" in text
    for ratio in ("mixture / stock", "mixture / plain", "dispatch / mixture", "mixture / packed", "mixture / cached"):
        assert f"| {ratio} |" in text
    assert "python -m benchmarks.mole_speed --backbone tiny" in text
