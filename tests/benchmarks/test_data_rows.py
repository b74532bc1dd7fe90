"""The benchmark of rows at tiny sizes: that its files are what it says, and that the command writes its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.data_rows import FORMATS, blocks, main, write_rows
from copl.data.requests import read_support


def test_nobody_meets_a_prompt_twice() -> None:
    rows = pa.concat_tables(blocks(2_000, seed=0)).to_pylist()
    assert len({(row["user_id"], row["prompt"]) for row in rows}) == len(rows) == 2_000
    assert len({row["user_id"] for row in rows}) == 20
    assert all(row["chosen"] != row["rejected"] for row in rows)


def test_the_formats_hold_the_same_rows(tmp_path: Path) -> None:
    found = []
    for kind in FORMATS:
        write_rows(tmp_path / f"rows.{kind}", 300, seed=1)
        found.append(read_support(tmp_path / f"rows.{kind}", print))
    assert len(found[0]) == 300
    for other in found[1:]:
        assert other.responses.texts == found[0].responses.texts
        assert other.users.ids == found[0].users.ids
        assert np.array_equal(other.comparisons.chosen, found[0].comparisons.chosen)


@pytest.mark.slow
@pytest.mark.usefixtures("cells_here")
def test_the_table_is_made(tmp_path: Path) -> None:
    out = tmp_path / "rows.md"
    main(["--sizes", "1000", "--format", "csv", "--scratch", str(tmp_path), "--out", str(out)])
    rows = [line.split("|") for line in out.read_text(encoding="utf-8").splitlines() if line.startswith("| 1,000 ")]
    assert [row[3].strip() for row in rows] == ["10"]
    assert float(rows[0][-2]) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "rows.md"]  # nothing else is left behind
