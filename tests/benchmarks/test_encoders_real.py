"""The comparison on real data, in small: that the command runs and writes its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import encoders_real

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("cells_here")
def test_one_set_and_one_encoder(downloads: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    encoders_real.main(
        ["--data", str(downloads), "--sets", "llmfao", "--encoders", "mf", "--seeds", "1", "--out", str(out)]
    )
    row = next(line for line in out.read_text().splitlines() if line.startswith("| mf |"))
    accuracy, mean = (float(cell.split()[0]) for cell in row.strip("| ").split("|")[1:])
    assert accuracy == mean
    assert 0.75 < accuracy < 0.95


def test_every_set_is_there(downloads: Path) -> None:
    assert all((downloads / path).is_dir() for _, path in encoders_real.SETS.values())
