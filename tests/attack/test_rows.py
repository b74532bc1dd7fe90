"""Rows that are wrong, by every command that reads rows, as JSON lines, as CSV and as what they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Refused = Callable[..., str]

COMPARISON = {"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b"}
REQUEST = {"user_id": "u", "prompt": "p", "response": "a"}
QUESTION = {"prompt": "p", "first": "a", "second": "b"}

READERS: dict[str, tuple[dict[str, str], str]] = {
    "make": (COMPARISON, "data make jsonl --set path=rows.jsonl --out new"),
    "add": (COMPARISON, "data add data rows.jsonl --out new"),
    "adapt": (COMPARISON, "adapt run rows.jsonl --out new.safetensors"),
    "score": (REQUEST, "score run rows.jsonl --out new.jsonl --average-unknown"),
    "ask": (QUESTION, "ask run rows.jsonl"),
}
WRONG: dict[str, object] = {
    "null": None,
    "a list": ["a"],
    "a table": {"a": 1},
    "empty": "",
    "NUL": "a\0b",
    "half a character": "\ud800",
    "a truth value": True,
}
FILES: dict[str, bytes] = {
    "empty": b"",
    "blank": b"\n\n\n",
    "not JSON": b"hello\n",
    "an array": b"[]\n",
    "a number": b"7\n",
    "null": b"null\n",
    "no keys": b"{}\n",
    "unknown keys": b'{"a": 1, "b": 2}\n',
    "a key twice": b'{"user_id": "u", "user_id": "v", "prompt": "p"}\n',
    "not UTF-8": b'{"user_id": "\xff"}\n',
    "UTF-16": '{"user_id": "u"}\n'.encode("utf-16"),
    "binary": bytes(range(256)) * 3,
    "deep": b"[" * 100_000,
    "a long number": b"9" * 100_000,
    "zeros": b"\0" * 4096,
    "Parquet by name of JSON": b"PAR1" + b"\0" * 64 + b"PAR1",
}
VALUES = [(r, f, n) for r, (row, _) in READERS.items() for f in row for n in WRONG]
WHOLE = [(reader, name) for reader in READERS for name in FILES]


@pytest.mark.parametrize(("reader", "name"), WHOLE, ids=[f"{r}-{n}" for r, n in WHOLE])
def test_a_file_that_holds_no_rows_is_refused(refused: Refused, workplace: Path, reader: str, name: str) -> None:
    (workplace / "rows.jsonl").write_bytes(FILES[name])
    assert "rows.jsonl" in refused(*READERS[reader][1].split())


@pytest.mark.parametrize(("reader", "field", "name"), VALUES, ids=[f"{r}-{f}-{n}" for r, f, n in VALUES])
def test_a_wrong_value_is_named_with_its_line(
    refused: Refused, workplace: Path, reader: str, field: str, name: str
) -> None:
    row, command = READERS[reader]
    rows = [row, {**row, field: WRONG[name]}]
    (workplace / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    said = refused(*command.split())
    assert "line 2" in said, said
    assert field in said, said


@pytest.mark.parametrize(("reader", "field"), [(r, f) for r, (row, _) in READERS.items() for f in row])
def test_a_missing_field_is_named(refused: Refused, workplace: Path, reader: str, field: str) -> None:
    row, command = READERS[reader]
    (workplace / "rows.jsonl").write_text(json.dumps({k: v for k, v in row.items() if k != field}) + "\n")
    assert field in refused(*command.split())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight", "NaN"), ("weight", "Infinity"), ("weight", "-1"), ("weight", "1e400"), ("weight", '"many"'),
        ("weight", "[]"), ("weight", "1" * 400), ("split", '"later"'), ("split", "[]"), ("split", "3"),
        ("split", '"Train"'), ("controversial", "Infinity"), ("controversial", '"maybe"'), ("controversial", "[]"),
        ("timestamp", '"yesterday"'), ("timestamp", "[]"), ("group", "[]"), ("group", "{}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reader", ["make", "add"])
def test_a_wrong_column_beside_is_named(refused: Refused, workplace: Path, reader: str, field: str, value: str) -> None:
    _, command = READERS[reader]
    (workplace / "rows.jsonl").write_text(f'{json.dumps(COMPARISON)[:-1]}, "{field}": {value}}}\n')
    assert field in refused(*command.split())
