"""Files that are broken in the ways files break, by the commands that read them: one clear line a fault."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.data.checking.checks import check
from copl.data.dataset import load_dataset
from copl.data.sources.tables import TableOptions, TableSource
from copl.records import PreferenceData

RunCopl = Callable[..., tuple[int, str, str]]

ROW = {"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b"}
HEADER = b"user_id,prompt,chosen,rejected\n"


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(directory: Path, table: Any) -> bytes:
    pq.write_table(table, directory / "scratch.parquet")
    return (directory / "scratch.parquet").read_bytes()


def whole(directory: Path) -> bytes:
    return parquet(directory, pa.Table.from_pylist([ROW] * 100))


def twice(directory: Path) -> bytes:
    names = [*ROW, "prompt"]
    return parquet(directory, pa.Table.from_arrays([pa.array(["x"])] * 5, names=names))


CASES: list[tuple[str, Callable[[Path], bytes], str]] = [
    ("jsonl", lambda _: lines({**ROW, "prompt": "ä"}).decode().encode("latin-1"), "line 1: byte 0xe4 is not UTF-8"),
    ("csv", lambda _: HEADER + "u,ä,a,b\n".encode("latin-1"), "line 2: byte 0xe4 is not UTF-8"),
    ("csv", lambda _: (HEADER + b"u,p,a,b\n").decode().encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
    ("parquet", lambda d: whole(d)[:-100], "the file is cut short or damaged"),
    ("parquet", lambda d: whole(d)[:60] + b"\0" * 200 + whole(d)[260:], "damaged"),
    ("parquet", lambda _: lines(ROW), "this is not a Parquet file"),
    ("jsonl", whole, "this is a binary file"),
    ("csv", lambda _: HEADER + b'u,p,"a,b\nu,q,c,d\n', "line 2: a quote is not closed"),
    ("csv", lambda _: HEADER + b'u,p,"a"x,b\n', "line 2: quotes are unbalanced"),
    ("csv", lambda _: b"user_id,prompt,prompt,chosen,rejected\nu,p,q,a,b\n", "column 'prompt' is there 2 times"),
    ("parquet", twice, "column 'prompt' is there 2 times"),
    ("jsonl", lambda _: lines({**ROW, "chosen": "a\0"}), "line 1: chosen: the text holds a NUL byte"),
    ("csv", lambda _: HEADER + b"u,p,a\0,b\n", "NUL"),
    ("jsonl", lambda _: lines(ROW) + b"\0" * 30, "line 2: not JSON"),
    ("jsonl", lambda _: lines({**ROW, "user_id": 7}, {**ROW, "user_id": "7", "prompt": "q"}),
     "line 2: user_id: text here, a number in line 1; write ids in one way throughout"),
    ("jsonl", lambda _: lines({**ROW, "user_id": 7.5}), "line 1: user_id: expected text, got a number"),
    ("jsonl", lambda _: lines({**ROW, "rejected": ["b"]}), "line 1: rejected: a list where text belongs"),
    ("jsonl", lambda _: lines(ROW)[:-9], "line 1: the file is cut short in this line"),
    ("jsonl", lambda _: b"[" * 100_000, "line 1: not JSON"),
    ("csv", lambda _: HEADER.replace(b",", b";") + b"u;p;a;b\n", "separated by semicolons"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "content", "message"), CASES, ids=[f"{c[0]}: {c[2]}" for c in CASES])
def test_a_broken_file_is_one_clear_line_and_nothing_is_written(
    run_copl: RunCopl, tmp_path: Path, source: str, content: Callable[[Path], bytes], message: str
) -> None:
    path = tmp_path / f"rows.{source}"
    path.write_bytes(content(tmp_path))
    code, _, err = run_copl("data", "make", source, "--set", f"path={path}", "--out", tmp_path / "out")
    assert code == 2
    assert message in err.replace("\n", " ")
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet"])
def test_a_text_of_a_million_characters_is_read_and_pointed_out(run_copl: RunCopl, tmp_path: Path, source: str) -> None:
    rows = [{**ROW, "chosen": "x" * 1_000_000, "split": "train"}, {**ROW, "prompt": "q", "split": "train"}]
    path = write(tmp_path / f"rows.{source}", rows)
    code, _, err = run_copl("data", "make", source, "--set", f"path={path}", "--out", tmp_path / "out", "--json")
    assert code == 0, err
    assert "response longer than 100,000 characters" in err
    data = load_dataset(tmp_path / "out")
    assert max(map(len, data.responses.texts)) == 1_000_000
    assert not [finding for finding in check(data) if finding.severity == "error"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_bytes(lines(*rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def rows_of(data: PreferenceData) -> list[tuple[str, ...]]:
    table, found = data.responses, []
    for name, part in data.splits.items():
        for user, chosen, rejected in zip(*(c.tolist() for c in (part.user, part.chosen, part.rejected)), strict=True):
            assert table.prompts[chosen] == table.prompts[rejected]
            found.append(
                (name, data.users.ids[user], table.prompts[chosen], table.texts[chosen], table.texts[rejected])
            )
    return sorted(found)


# Whatever people type but NUL, which no text has; and what is no chat message by accident.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda text: text.strip() and not text.startswith("[")
)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(["train", "test"]), TEXT, TEXT, TEXT, TEXT).filter(lambda row: row[3] != row[4]),
        min_size=1,
        max_size=6,
        unique_by=lambda row: (row[1], row[2], frozenset(row[3:])),
    ),
    st.sampled_from(["jsonl", "csv", "parquet"]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], source: str
) -> None:
    names = ("split", *ROW)
    path = write(tmp_path_factory.mktemp("t") / f"r.{source}", [dict(zip(names, row, strict=True)) for row in rows])
    assert rows_of(TableSource(source, TableOptions(path=path)).load(seed=0)) == sorted(rows)
