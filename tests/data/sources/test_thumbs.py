"""Source ``thumbs``: tables of thumbs, in every way to write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copl.data.checking.checks import check
from copl.data.dataset import load_dataset
from tests.data.sources.exports import faults, made, notes, written

RunCopl = Callable[..., tuple[int, str, str]]


def thumb_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {"user_id": f"u{rng.integers(8)}", "prompt": f"p{n}", "response": f"answer {n}", "thumb": int(rng.integers(2))}
        for n in range(count)
    ]


def test_a_log_of_thumbs_is_learnt_from_and_judged(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", thumb_rows(400), lines=True)
    options = {"unseen_fraction": 0.2, "cold_fraction": 0.1, "test_fraction": 0.2, "validation_fraction": 0.1}
    data = made("thumbs", path, **options)
    assert set(data.judgements) == {"train", "support"}
    assert set(data.splits) == {"validation", "test", "cold", "heldout"}
    values = {row["response"]: row["thumb"] for row in thumb_rows(400)}
    for part in data.splits.values():
        assert all(values[data.responses.texts[row]] == 1 for row in part.chosen.tolist())
        assert all(values[data.responses.texts[row]] == 0 for row in part.rejected.tolist())
    learnt = set(data.judgements["train"].response.tolist())
    judged = {row for part in data.splits.values() for row in (*part.chosen.tolist(), *part.rejected.tolist())}
    assert not learnt & judged
    assert len(data.split("train")) > 100
    assert not [found for found in check(data) if found.severity == "error"]


@pytest.mark.parametrize(
    ("marks", "thumbs"),
    [(["up", "down", ""], [1, -1]), ([1, 0, 1], [1, -1, 1]), ([1, 0, -1], [1, -1]), ([True, False, None], [1, -1])],
)
def test_thumbs_are_written_in_many_ways(tmp_path: Path, marks: list[Any], thumbs: list[int]) -> None:
    rows = [
        {"user_id": "u", "prompt": f"p{n}", "completion": f"answer {n}", "label": mark} for n, mark in enumerate(marks)
    ]
    data = made("thumbs", written(tmp_path / "t.jsonl", rows, lines=True))
    assert sorted(data.judgements["train"].value.tolist()) == sorted(thumbs)
    left = len(marks) - len(thumbs)
    down = ["1 values of column 'label' are 0 and were read as down, since none is -1."] if marks == [1, 0, 1] else []
    assert notes(data) == [*down, *([f"{left} rows were left out: without a thumb."] if left else [])]


def test_malformed_thumbs_are_a_line_each(tmp_path: Path) -> None:
    rows = [{**row, "thumb": mark} for row, mark in zip(thumb_rows(2), ("sideways", 2), strict=True)]
    rows.append({**rows[0], "user_id": None, "thumb": 1})
    assert faults("thumbs", written(tmp_path / "t.jsonl", rows, lines=True)) == [
        "line 1: thumb: expected up or down, true or false, 1 or 0, or 1 or -1, got 'sideways'",
        "line 2: thumb: expected up or down, true or false, 1 or 0, or 1 or -1, got 2",
        "line 3: user_id: missing",
    ]


def test_a_column_of_splits_is_told_to_be_unread(tmp_path: Path) -> None:
    rows = [{**row, "split": "train"} for row in thumb_rows(4)]
    told = notes(made("thumbs", written(tmp_path / "t.jsonl", rows, lines=True)))
    assert told[0] == "Column 'split' is not part of the row schema and was not read."


def test_thumbs_are_split_by_time(tmp_path: Path) -> None:
    rows = [{**row, "timestamp": 1_000 + n} for n, row in enumerate(thumb_rows(300))]
    options = {"strategy": "time", "test_fraction": 0.2, "validation_fraction": 0.1, "unseen_fraction": 0.2}
    data = made("thumbs", written(tmp_path / "t.jsonl", rows, lines=True), **options)
    number = {f"answer {n}": n for n in range(300)}
    learnt = max(number[data.responses.texts[row]] for row in data.judgements["train"].response.tolist())
    part = data.splits["test"]
    judged = min(number[data.responses.texts[row]] for row in (*part.chosen.tolist(), *part.rejected.tolist()))
    assert learnt < judged
    assert learnt == 209  # seven tenths of the times


def test_the_commands_count_each_kind(tmp_path: Path, run_copl: RunCopl) -> None:
    path = written(tmp_path / "t.jsonl", thumb_rows(200), lines=True)
    code, shown, _ = run_copl("data", "make", "thumbs", "--set", f"path={path}", "--out", str(tmp_path / "data"))
    assert (code, "train, judgements" in shown) == (0, True)
    code, shown, _ = run_copl("data", "check", str(tmp_path / "data"), "--json")
    assert code == 0
    counts = {found["what"]: found["count"] for found in json.loads(shown)}
    assert counts["judgements: thumb"] == len(load_dataset(tmp_path / "data").judgements["train"])
    code, _, told = run_copl("data", "make", "arena-votes", "--set", f"path={path}", "--out", str(tmp_path / "other"))
    assert (code, told.count("\n"), (tmp_path / "other").exists()) == (2, 21, False)
