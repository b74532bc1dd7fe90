from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from copl.data import requests
from copl.data.requests import read_score_rows, require_known, write_scores
from copl.errors import DataError

CHAT = [{"role": "user", "content": "Why?"}]
ROWS: list[dict[str, Any]] = [
    {"user_id": "a", "prompt": "p", "response": "s, t"},
    {"user_id": "b", "prompt": CHAT, "response": "s"},
    {"user_id": "a", "prompt": "p", "response": "s"},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize("rows_at_a_time", [2, 100])
def test_rows_come_back_with_their_rewards(path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int) -> None:
    monkeypatch.setattr(requests, "_PART", rows_at_a_time)
    asked = read_score_rows(path)
    rewards = np.array([1.5, -2.0, 0.25])
    for ending in ("jsonl", "csv", "parquet"):
        write_scores(path.with_name(f"out.{ending}"), asked, rewards, {"a"})
    added = [
        {"reward": float(reward), "user_known": known}
        for reward, known in zip(rewards, (True, False, True), strict=True)
    ]
    expected = [row | more for row, more in zip(ROWS, added, strict=True)]
    lines = path.with_name("out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == expected
    as_text = [{**row, "prompt": asked.responses.prompts[asked.response[n]]} for n, row in enumerate(expected)]
    assert pq.read_table(path.with_name("out.parquet")).to_pylist() == as_text
    with path.with_name("out.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [(row["prompt"], float(row["reward"]), row["user_known"] == "true") for row in found] == [
        (row["prompt"], row["reward"], row["user_known"]) for row in as_text
    ]


def test_unknown_users_are_named_with_the_first_row_that_asks(path: Path) -> None:
    asked = read_score_rows(path)
    require_known(asked, {"a", "b"}, path)
    with pytest.raises(DataError, match="row 2: unknown user 'b'"):
        require_known(asked, {"a"}, path)
