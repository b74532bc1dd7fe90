"""The same words by every door: rows in Python, JSON lines, CSV and Parquet, in whatever spelling, say the same."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from copl.data.reading.rows import read_comparison_rows
from copl.data.requests import read_support
from copl.records import ComparisonSet
from copl.records.said import words_of

Row: TypeAlias = dict[str, Any]
PAIR: Row = {"user_id": "Zoë 7", "prompt": "Café?", "chosen": "Crème.", "rejected": "Thé."}
AGAIN: Row = {"user_id": "Zoë 7", "prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}


def of_assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


SPELLINGS: Mapping[str, Row] = {
    "decomposed": {name: unicodedata.normalize("NFD", text) for name, text in PAIR.items()},
    "spaces": {name: f" \u00a0{text}\u200b " for name, text in PAIR.items()},
    "line breaks": {**PAIR, "chosen": "Crème.\r\n", "rejected": "\rThé."},
    "a user's message": {**PAIR, "prompt": [{"role": "user", "content": "Café? "}]},
    "messages": {**PAIR, "chosen": of_assistant("Crème."), "rejected": of_assistant("Thé. ")},
    "sides": {"user_id": "Zoë 7", "prompt": "Café?", "response_a": "Thé.", "response_b": "Crème.", "winner": "b"},
}
JUDGEMENTS: Mapping[str, Row] = {
    "tie": {"response_a": "A.", "response_b": "B.", "winner": "tie"},
    "both bad": {"response_a": "A.", "response_b": "B.", "winner": "both_bad"},
    "thumb": {"response": "A.", "thumb": "down"},
    "thumb as a number": {"response": "A.", "thumb": -1},
    "rating": {"response": "A.", "rating": 3.5},
    "rating as text": {"response": "A.", "rating": "3.5"},
    "ranking": {"responses": ["A.", "B.", "C."], "ranking": [2, 1, 3]},
}


def as_jsonl(rows: Sequence[Row], directory: Path) -> ComparisonSet:
    path = directory / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return read_support(path, print)


def as_csv(rows: Sequence[Row], directory: Path) -> ComparisonSet:
    path = directory / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(
            {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}
            for row in rows
        )
    return read_support(path, print)


def as_parquet(rows: Sequence[Row], directory: Path) -> ComparisonSet:
    path = directory / "rows.parquet"
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    return read_support(path, print)


def as_objects(rows: Sequence[Row], _: Path) -> ComparisonSet:
    return read_comparison_rows(rows)


Door = Callable[[Sequence[Row], Path], ComparisonSet]
DOORS: tuple[Door, ...] = (as_objects, as_jsonl, as_csv, as_parquet)


def said(words: ComparisonSet) -> list[tuple[Any, ...]]:
    """Return all that is said, by ids and texts."""
    rows, ids, keys = words_of(words), words.users.ids, (*words.responses.keys, "")
    return sorted(
        (ids[user], int(kind), keys[one], keys[other], float(value), float(weight))
        for user, kind, one, other, value, weight in zip(
            rows.user, rows.kind, rows.response, rows.other, rows.value, rows.weight, strict=True
        )
    )


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("row", SPELLINGS.values(), ids=SPELLINGS)
def test_a_comparison_is_the_same_in_every_spelling(door: Door, row: Row, tmp_path: Path) -> None:
    assert said(door([row], tmp_path)) == said(read_comparison_rows([PAIR]))


@pytest.mark.parametrize("door", DOORS[1:])
@pytest.mark.parametrize("row", JUDGEMENTS.values(), ids=JUDGEMENTS)
@pytest.mark.parametrize("user", ["ann", 7])
def test_a_judgement_is_the_same_by_every_door(door: Door, row: Row, user: str | int, tmp_path: Path) -> None:
    rows = [{"user_id": user, "prompt": "Tea?", **row}]
    words = said(door(rows, tmp_path))
    assert words == said(read_comparison_rows(rows))
    assert {word[0] for word in words} == {str(user)}


@pytest.mark.parametrize("door", DOORS)
def test_two_spellings_of_one_user_are_one_user(door: Door, tmp_path: Path) -> None:
    words = door([SPELLINGS["decomposed"], {**AGAIN, "user_id": "Zoë  7 "}], tmp_path)
    assert words.speakers == ("Zoë 7",)


@pytest.mark.parametrize("door", [as_objects, as_jsonl, as_csv])
@pytest.mark.parametrize(
    "text", ['[{"role": "user", "content": "hi"}]', '[{"role": "assistant", "content": "a"}, {"role": "user"}]', "[{}]"]
)
def test_an_answer_that_is_json_is_an_answer(door: Door, text: str, tmp_path: Path) -> None:
    assert text in door([{**PAIR, "chosen": text}], tmp_path).responses.texts
