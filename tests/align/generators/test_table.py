"""Candidates from a file: lists or rows, of whatever kind of file; what is missing is named."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from copl.align.generators.table import TableGenerator, TableOptions
from copl.errors import DataError
from copl.system.progress import SilentProgress

ROWS = [{"prompt": "tea?", "candidates": ["yes", "no"]}, {"prompt": "coffee?", "candidates": ["never"]}]


def generator(path: Path) -> TableGenerator:
    return TableGenerator(TableOptions(path))


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def written(path: Path, prompts: list[str], num: int = 5) -> list[tuple[str, ...]]:
    return generator(path).candidates(prompts, num=num, seed=0, progress=SilentProgress())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_lists_of_candidates_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"candidates.{kind}"
    if kind == "jsonl":
        jsonl(path, ROWS)
    elif kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        csv.write_csv(
            pa.Table.from_pylist([{**row, "candidates": json.dumps(row["candidates"])} for row in ROWS]), path
        )
    assert written(path, ["coffee?", "tea?"]) == [("never",), ("yes", "no")]
    assert written(path, ["tea?"], num=1) == [("yes",)]


def test_rows_of_one_response_are_gathered_by_prompt_and_each_text_counts_once(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"prompt": "tea?", "response": "yes"},
        {"prompt": [{"role": "user", "content": "coffee?"}], "response": "never"},
        {"prompt": "tea?", "response": [{"role": "assistant", "content": "no"}]},
        {"prompt": "tea?", "response": "yes"},
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    assert written(path, ["tea?", "coffee?"]) == [("yes", "no"), ("never",)]


def test_every_prompt_without_candidates_is_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", list(ROWS))
    with pytest.raises(DataError) as caught:
        written(path, ["coffe?", "tea?", "water"])
    assert caught.value.faults == (
        f"{path}: no candidates to the prompt 'coffe?' (did you mean 'coffee?'?)",
        f"{path}: no candidates to the prompt 'water'",
    )


def test_every_row_that_is_wrong_is_named(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"prompt": "a", "candidates": []},
        {"prompt": "b", "candidates": "no list"},
        {"prompt": "c", "candidates": ["fine", "", 7]},
        {"prompt": "d", "candidates": None},
        {"prompt": "", "candidates": ["fine"]},
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError) as caught:
        written(path, ["a"])
    assert [fault.removeprefix(f"{path}: ") for fault in caught.value.faults] == [
        "line 1: candidates: expected a list of texts, at least one",
        "line 2: candidates: expected a list of texts, at least one",
        "line 3: candidates: 2: empty text",
        "line 3: candidates: 3: expected text, got a number",
        "line 4: candidates: expected a list of texts, at least one",
        "line 5: prompt: empty text",
    ]


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    one, other = jsonl(tmp_path / "one.jsonl", ROWS[:1]), jsonl(tmp_path / "other.jsonl", ROWS)
    assert generator(one).fingerprint() != generator(other).fingerprint()
    with pytest.raises(DataError, match="no such file"):
        generator(tmp_path / "none.jsonl").fingerprint()
