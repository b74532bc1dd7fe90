"""Files that are broken in the ways files break, by the commands that read them: one clear line a fault."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.data.canonical import canonical_id, canonical_text
from copl.data.checking.checks import check
from copl.data.dataset import load_dataset
from copl.data.sources.tables import TableOptions, TableSource
from copl.errors import DataError
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
    ("jsonl", lambda _: lines({**ROW, "user_id": 7.5}), "line 1: user_id: expected text or a whole number, got 7.5"),
    ("jsonl", lambda _: lines({**ROW, "rejected": ["b"]}), "line 1: rejected: a list where text belongs"),
    ("jsonl", lambda _: lines(ROW)[:-9], "line 1: the file is cut short in this line"),
    ("jsonl", lambda _: b"[" * 100_000, "line 1: not JSON (nested too deeply)"),
    ("jsonl", lambda _: b'{"a": ' + b"9" * 5000 + b"}", "line 1: not JSON (a whole number of thousands of digits)"),
    ("jsonl", lambda _: b'{"a": 1,, "b": 2}', "line 1: not JSON (Expecting property name"),
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


def faults_of(source: str, path: Path) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        TableSource(source, TableOptions(path=path)).load(seed=0)
    return tuple(fault.removeprefix(f"{path}: ") for fault in caught.value.faults)


def test_a_bad_line_does_not_hide_what_is_wrong_with_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = lines(ROW)
    bad = [b"{nope\n", good, b'{"user_id":"u","user_id":"v"}\n', lines({**ROW, "chosen": ""}), b"\xe4\n", b"[]\n",
           lines({"user_id": "u", "prompt": "q", "choosen": "a", "rejected": "b"})]  # fmt: skip
    path.write_bytes(b"".join(bad))
    assert faults_of("jsonl", path) == (
        "line 1: not JSON (Expecting property name enclosed in double quotes at column 2)",
        "line 3: key 'user_id' is there twice; remove one",
        "line 4: chosen: empty text",
        "line 5: byte 0xe4 is not UTF-8; save the file as UTF-8",
        "line 6: a JSON array where one object a line is expected",
        "line 7: chosen: missing (did you mean 'choosen'?)",
    )


def test_the_same_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + b'u,p,a,b\nu,q,a\nu,r,,b\nu,s,\xe4,b\nu,t,c,d\nu,"x')
    assert faults_of("csv", path) == (
        "line 3: 3 values where the header has 4 columns",
        "line 4: chosen: empty text",
        "line 5: byte 0xe4 is not UTF-8; save the file as UTF-8",
        "line 7: a quote is not closed; the record that begins here is broken",
    )


def test_a_space_after_a_comma_belongs_to_the_comma(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('user_id, prompt, chosen, rejected, split\nu, "p, q", "say ""a""", b, train\n')
    assert rows_of(TableSource("csv", TableOptions(path=path)).load(seed=0)) == [("train", "u", "p, q", 'say "a"', "b")]


SPELLINGS = ["Zoë", "Zoë ", " Zoë", "Zoë\u00a0", "Zo\u200bë", "Zoe\u0308", "Zoë\r"]


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet"])
def test_one_user_and_one_prompt_however_they_are_spelt(tmp_path: Path, source: str) -> None:
    rows = [
        {"user_id": name, "prompt": name, "chosen": f"{n}", "rejected": f"no {n}", "split": "train"}
        for n, name in enumerate(SPELLINGS)
    ]
    data = TableSource(source, TableOptions(path=write(tmp_path / f"rows.{source}", rows))).load(seed=0)
    assert data.users.ids == ("Zoë",)
    assert set(data.responses.prompts) == {"Zoë"}
    respelt = len(SPELLINGS) - 1 - (source == "csv")  # in CSV a leading space is none of the value's
    (note,) = (note for note in data.provenance["notes"] if "'user_id'" in note)
    assert note.startswith(f"{respelt} values of column 'user_id' were put into the one spelling of texts, such as ")
    assert note.endswith(f"; {respelt} thereby became the same as others.")


def test_a_prompt_as_text_and_as_one_message_is_one_prompt(tmp_path: Path) -> None:
    message = [{"role": "user", "content": "Why?"}]
    rows = [{**ROW, "prompt": prompt, "chosen": f"a{n}", "split": "train"}
            for n, prompt in enumerate(["Why?", message, json.dumps(message)])]  # fmt: skip
    data = TableSource("jsonl", TableOptions(path=write(tmp_path / "rows.jsonl", rows))).load(seed=0)
    assert set(data.responses.prompts) == {"Why?"}
    assert len(data.responses) == 4


BAD_VALUES: list[tuple[str, Any, str]] = [
    ("weight", math.nan, "a weight must be positive and finite, got nan"),
    ("weight", "nan", "expected a finite number, got 'nan'"),
    ("weight", "1_000", "expected a number, got '1_000'"),
    ("weight", 10**400, "expected a number, got 1000"),
    ("weight", 1e300, "a weight from 1e-30 to 1e+30 is expected, got 1e+300"),
    ("weight", -(10**19), "a weight must be positive and finite, got -10000000000000000000"),
    ("split", ["train"], "expected the name of a split, got a list"),
    ("split", {}, "expected the name of a split, got an object"),
    ("controversial", math.inf, "expected 1, 0 or nothing, got inf"),
    ("controversial", 0.5, "expected 1, 0 or nothing, got 0.5"),
    ("group", ["g"], "expected text or a whole number, got a list"),
    ("prompt", [{"role": "user", "content": "a\0b"}], "message 1: the text holds a NUL byte; remove it"),
    ("chosen", [{"role": "assistant", "content": "a\0b"}], "message 1: the text holds a NUL byte; remove it"),
    ("prompt", [{"role": "user", "content": [{"type": "text"}]}], "message 1 has a list of parts under 'content'"),
]


@pytest.mark.parametrize(("name", "value", "fault"), BAD_VALUES)
def test_a_wrong_value_is_one_fault(tmp_path: Path, name: str, value: Any, fault: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines({**ROW, "split": "train", "group": "g", name: value}))
    (said,) = faults_of("jsonl", path)
    assert said.startswith(f"line 1: {name}: {fault}")


def test_large_weights_and_spelt_out_marks_are_read(tmp_path: Path) -> None:
    rows = [{**ROW, "prompt": f"p{n}", "split": " train", "weight": weight, "controversial": mark}
            for n, (weight, mark) in enumerate([(10**19, "1.0"), ("1e3", "No"), (" ", -1), (None, True)])]  # fmt: skip
    part = TableSource("jsonl", TableOptions(path=write(tmp_path / "r.jsonl", rows))).load(seed=0).splits["train"]
    assert part.weight.tolist() == [1e19, 1000.0, 1.0, 1.0]
    assert part.controversial.tolist() == [1, 0, -1, 1]


ARROW_TYPES = [
    pa.uint64(), pa.float64(), pa.bool_(), pa.binary(), pa.date32(), pa.timestamp("ns"), pa.timestamp("ns", "UTC"),
    pa.duration("ns"), pa.time64("ns"), pa.decimal128(9, 2), pa.list_(pa.string()), pa.list_(pa.timestamp("ns")),
    pa.struct([("a", pa.duration("ns"))]), pa.map_(pa.string(), pa.int64()), pa.null(), pa.string_view(), pa.uuid(),
]  # fmt: skip


@pytest.mark.parametrize("kind", ARROW_TYPES, ids=str)
def test_columns_of_every_type_are_read_or_refused(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "rows.parquet"
    texts = {name: pa.array([f"{name} {n}" for n in range(3)]) for name in ROW}
    for name in (*ROW, "split", "group", "weight", "controversial", "timestamp", "other"):
        pq.write_table(pa.table({**texts, name: odd_column(kind)}), path)
        source = TableSource("parquet", TableOptions(path=path))
        outcome: PreferenceData | None = None
        with suppress(DataError):
            outcome = source.load(seed=0)
        assert outcome is not None or all(fault.startswith("row ") for fault in faults_of("parquet", path))


def odd_column(kind: Any) -> Any:
    """Return a column of a type, of three values where the type has any."""
    if kind == pa.uuid():
        return pa.ExtensionArray.from_storage(kind, pa.array([bytes([n] * 16) for n in range(3)], pa.binary(16)))
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays([0, 1, 2, 3], odd_column(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays([odd_column(kind.field(0).type)], [kind.field(0).name])
    if pa.types.is_map(kind) or pa.types.is_null(kind):
        return pa.nulls(3, kind)
    if pa.types.is_decimal(kind):
        return pa.array([Decimal(n) for n in range(3)], kind)
    if pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.array(["1", "2", "3"]).cast(kind)
    narrow = pa.types.is_date32(kind) or pa.types.is_boolean(kind)
    return pa.array([1, 2, 3], pa.int32() if narrow else pa.int64()).cast(kind)


def test_nanoseconds_are_no_id(tmp_path: Path) -> None:
    times = pa.array([1, 2], pa.int64()).cast(pa.timestamp("ns"))
    table = pa.table({"user_id": times, "prompt": ["p", "q"], "chosen": ["a", "a"], "rejected": ["b", "b"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    fault = "user_id: expected text or a whole number, got timestamp[ns]"
    assert faults_of("parquet", tmp_path / "rows.parquet") == (f"row 1: {fault}", f"row 2: {fault}")


def test_a_cell_of_a_megabyte_is_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines({**ROW, "split": "x" * 1_000_000, "weight": ["y" * 1_000_000]}))
    faults = faults_of("jsonl", path)
    assert [len(fault) < 300 for fault in faults] == [True, True]


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet"])
def test_line_breaks_in_names_break_no_fault(run_copl: RunCopl, tmp_path: Path, source: str) -> None:
    directory = tmp_path / "a\nb"
    directory.mkdir()
    path = write(directory / f"r.{source}", [{"user_id": "u", "prompt": "p", "cho\nsen": "a", "rejected": "b"}])
    code, _, err = run_copl("data", "make", source, "--set", f"path={path}", "--out", tmp_path / "out")
    assert code == 2
    (line,) = err.splitlines()
    assert "a\\nb" in line
    assert "no column 'chosen'" in line


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet", "ratings", "votes", "trl", "reference-pickle"])
@pytest.mark.parametrize("device", [False, True])
def test_what_is_no_file_is_refused_at_once(run_copl: RunCopl, tmp_path: Path, source: str, device: bool) -> None:
    ending = {"ratings": "csv", "votes": "parquet", "trl": "jsonl", "reference-pickle": "pkl"}.get(source, source)
    path = tmp_path / f"pipe.{ending}"
    if device:
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)
    code, _, err = run_copl("data", "make", source, "--set", f"path={path}", "--out", tmp_path / "out")
    assert code == 2
    assert "is a pipe or a device" in err


def test_numbers_out_of_all_bounds_are_refused(run_copl: RunCopl, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [ROW])
    make = ("data", "make", "jsonl", "--set", f"path={path}", "--out", tmp_path / "out")
    assert run_copl(*make, "--seed", -1)[::2] == (
        2,
        "copl: --seed -1: a seed is a whole number from 0 up to 2^63 - 1\n",
    )
    code, _, err = run_copl(*make, "--set", f"support={10**25}")
    assert (code, err) == (2, f"copl: source.jsonl.support: expected int, got '{10**25}'\n")


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
    lambda text: canonical_text(text) and not canonical_text(text).startswith("[")
)


def spelt(row: tuple[str, ...]) -> tuple[str, ...]:
    """A row in the one spelling of ids and texts."""
    split, user, *texts = row
    return (split, canonical_id(user), *map(canonical_text, texts))


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(["train", "test"]), TEXT, TEXT, TEXT, TEXT).filter(
            lambda row: spelt(row)[3] != spelt(row)[4]
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda row: (*spelt(row)[1:3], frozenset(spelt(row)[3:])),
    ),
    st.sampled_from(["jsonl", "csv", "parquet"]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], source: str
) -> None:
    names = ("split", *ROW)
    path = write(tmp_path_factory.mktemp("t") / f"r.{source}", [dict(zip(names, row, strict=True)) for row in rows])
    assert rows_of(TableSource(source, TableOptions(path=path)).load(seed=0)) == sorted(map(spelt, rows))
