"""Files read in parts give what plain readers of a file as a whole give: the same data, or the same faults."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from copl.data.reading import parts, scan
from copl.data.reading.columns import EncodedColumn
from copl.data.reading.faults import Faults
from copl.data.reading.rows import parse_rows, read_comparison_rows
from copl.data.reading.scan import scan_csv, scan_jsonl, scan_parquet
from copl.data.reading.table import Table, table_of_objects
from copl.data.sources.tables import TableOptions, TableSource, data_of_rows
from copl.errors import DataError
from copl.interfaces import ShowsProgress
from copl.records import PreferenceData
from copl.system.progress import LineProgress


@pytest.fixture(autouse=True, scope="module")
def small_parts() -> Any:
    """Read a few rows at a time, so that small files have several parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_ROWS", 2)
        patch.setattr(parts, "_BYTES", 70)
        patch.setattr(scan, "_PARQUET_ROWS", 2)
        yield


def plain_jsonl(path: Path) -> Table:
    """Read JSON lines one by one."""
    lines = path.read_bytes().decode("utf-8-sig").split("\n")
    if not any(map(str.strip, lines)):
        raise DataError(f"{path}: the file is empty")
    faults, objects = Faults(str(path)), {}
    for number, line in enumerate(lines, start=1):
        label = f"line {number}"
        try:
            value = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            at_end = error.msg.startswith("Unterminated") or not line[error.pos :].strip()
            cut = number == len(lines) and line.lstrip().startswith("{") and at_end
            reason = "the file is cut short in this line" if cut else f"not JSON ({error.msg} at column {error.colno})"
            faults.add(reason, row=number, label=label)
            continue
        if isinstance(value, dict):
            objects[number] = value
        elif line.strip():
            name = {list: "array", str: "text", type(None): "null"}[type(value)]
            faults.add(f"a JSON {name} where one object a line is expected", row=number, label=label)
    return table_of_objects(str(path), list(objects.values()), list(objects), "line", faults)


def plain_csv(path: Path) -> Table:
    """Read a comma-separated file record by record."""
    faults, records = Faults(str(path)), {}
    text = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
    reader = csv.reader(text, strict=True, skipinitialspace=True)
    line = 1
    try:
        for record in reader:
            if "".join(record):
                records[line] = record
            line = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote is not closed" if "end of data" in str(error) else f"quotes are unbalanced ({error})"
        faults.add(f"{reason}; the record that begins here is broken", row=line, label=f"line {line}")
    header = records.pop(next(iter(records)))
    if len(set(header)) < len(header):
        (twice,) = {name for name in header if header.count(name) > 1}
        raise DataError(f"{path}: column {twice!r} is there 2 times; rename or remove all but one")
    for number, record in list(records.items()):
        if len(record) != len(header):
            message = f"{len(record)} values where the header has {len(header)} columns"
            faults.add(message, row=number, label=f"line {number}")
            del records[number]
    columns = {name: [record[place] for record in records.values()] for place, name in enumerate(header)}
    return Table(str(path), columns, list(records), "line", faults)


def content(data: PreferenceData) -> dict[str, Any]:
    rows = {name: [part.weight.tolist(), part.controversial.tolist()] for name, part in data.splits.items()}
    told = {name: value for name, value in data.provenance.items() if name != "options"}
    table = data.responses.prompts, data.responses.texts, data.users.ids, data.users.groups
    return {"digest": data.digest(*data.splits), "rows": rows, "told": told, "table": table}


def outcome(load: Callable[[], PreferenceData]) -> dict[str, Any] | tuple[str, ...]:
    try:
        return content(load())
    except DataError as error:
        return error.faults


def assert_alike(path: Path, read: Callable[[Path], Table], **policy: Any) -> None:
    options = TableOptions(path=path, **policy)
    kind = path.suffix[1:]
    by_rows = outcome(
        lambda: data_of_rows(parse_rows(read(path), columns={}), options, source=kind, name=path.stem, seed=0)
    )
    assert outcome(lambda: TableSource(kind, options).load(seed=0)) == by_rows


RIGHT: dict[str, list[Any]] = {
    "user_id": ["u", "v", "w"],
    "prompt": ["p", "q", "line\u2028and\nline", "[1] p"],
    "chosen": ["a", 'say "b"', "c,d\r\ne"],
    "rejected": ["x", "y", " ä "],
    "split": ["train", "test"],
    "weight": [1, "2.5", None, ""],
    "controversial": [1, 0, "yes", None],
}
WRONG: dict[str, list[Any]] = {
    "user_id": [None, "", 1.5, True, ["u"]],
    "prompt": [None, " \n", 3, [], ["p"], {"role": "user"}],
    "chosen": ["x", None, "", 3, ["a"], {}, "\0", "\ud800"],
    "rejected": ["a", None, "\u2003", [{"role": "user", "content": "a"}]],
    "split": ["tset", None, "", 3],
    "weight": [0, -1.0, "heavy", True, math.inf],
    "controversial": ["maybe", 2, [1]],
}
CHAT = [{"role": "user", "content": "Why?"}]
AS_JSON: dict[str, list[Any]] = {
    "prompt": [CHAT, [dict(reversed(CHAT[0].items()))], json.dumps(CHAT)],
    "chosen": [[{"role": "assistant", "content": "a"}]],
    "weight": [math.nan, 2],
    "controversial": [True, 1.0],
}


def rows_of(*pools: dict[str, list[Any]], names: tuple[str, ...] = tuple(RIGHT)) -> st.SearchStrategy[dict[str, Any]]:
    """Return rows that take each value from one of the pools, the first of which has all columns."""
    columns = {name: st.sampled_from([value for pool in pools for value in pool.get(name, [])]) for name in names}
    return st.fixed_dictionaries(columns)


def some(right: st.SearchStrategy[Any], *others: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Return lists of what is right, or of that among others."""
    return st.one_of(st.lists(right, min_size=1, max_size=8), st.lists(st.one_of(right, *others), max_size=8))


POLICY = st.fixed_dictionaries(
    {name: st.sampled_from(["keep", "drop", "error"]) for name in ("duplicates", "contradictions")}
)
JUNK = ["", "  ", "[1]", '"a"', "{", '{"a": 1', "null", "{},{}", '{"a":[{}', "{}]}", '{"chosen":"only"}', "\ufeff{}"]


@settings(max_examples=100)
@given(
    some(rows_of(RIGHT, AS_JSON).map(json.dumps), rows_of(RIGHT, WRONG).map(json.dumps), st.sampled_from(JUNK)),
    st.sampled_from(["\n", "", "\r\n"]),
    POLICY,
)
@example(lines=['{"chosen":"only"}'], end="", policy={"duplicates": "keep", "contradictions": "keep"})
def test_json_lines(tmp_path_factory: Any, lines: list[str], end: str, policy: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("t") / "a.jsonl"
    path.write_bytes(("\n".join(lines) + end).encode("utf-8"))
    assert_alike(path, plain_jsonl, **policy)


def as_csv(row: dict[str, Any]) -> str:
    spelt = ("" if row[name] is None else str(row[name]) for name in RIGHT)
    return ",".join('"' + text.replace('"', '""') + '"' for text in spelt)


TEXTS_WRONG = {name: [value for value in pool if value is None or type(value) is str] for name, pool in WRONG.items()}
TEXTS_WRONG["chosen"].remove("\ud800")
HEADERS = [",".join(RIGHT), "\ufeff" + ",".join(RIGHT), "\n\n" + ", ".join(RIGHT)]
RAGGED = ["", "u", "u,p,a,x,train,1,1,1", 'u,p,"a"b,x,train,1,1', 'u,p,"a,x,train,1,1', " ", "u,p,a\0,x,train,1,1"]


@settings(max_examples=100)
@given(
    some(rows_of(RIGHT).map(as_csv), rows_of(RIGHT, TEXTS_WRONG).map(as_csv), st.sampled_from(RAGGED)),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([*HEADERS, "user_id,prompt,prompt"]),
    POLICY,
)
def test_csv(tmp_path_factory: Any, lines: list[str], end: str, header: str, policy: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("t") / "a.csv"
    path.write_bytes("".join(line + end for line in [header, *lines]).encode("utf-8"))
    assert_alike(path, plain_csv, **policy)


TEXT_COLUMNS = ("user_id", "prompt", "chosen", "rejected", "split")
TEXT_TYPES: list[Any] = [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]


@settings(max_examples=60)
@given(
    some(rows_of(RIGHT, names=TEXT_COLUMNS), rows_of(RIGHT, TEXTS_WRONG, names=TEXT_COLUMNS)).filter(bool),
    st.sampled_from([[1.0, 2.5], [None, math.nan, 0.5], [1.0, 0.0, -1.0, math.inf]]),
    st.sampled_from(TEXT_TYPES),
    POLICY,
)
def test_parquet(
    tmp_path_factory: Any, rows: list[dict[str, Any]], weights: list[float | None], kind: Any, policy: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("t") / "a.parquet"
    weights = (weights * len(rows))[: len(rows)]
    columns = {name: [row[name] for row in rows] for name in TEXT_COLUMNS}
    arrays = {name: pa.array(values, pa.string()).cast(kind) for name, values in columns.items()}
    pq.write_table(pa.table({**arrays, "weight": pa.array(weights, pa.float64())}), path, row_group_size=3)

    def read(path: Path) -> Table:
        return Table(str(path), {**columns, "weight": weights}, list(range(1, len(rows) + 1)), "row")

    assert_alike(path, read, **policy)


@settings(max_examples=40)
@given(st.lists(rows_of(RIGHT, AS_JSON, WRONG), min_size=1, max_size=6))
def test_what_is_wrong_with_a_row_does_not_depend_on_the_others(rows: list[dict[str, Any]]) -> None:
    def faults(rows: list[dict[str, Any]]) -> list[str]:
        try:
            read_comparison_rows(rows)
        except DataError as error:
            return [fault.removeprefix("rows: ") for fault in error.faults]
        return []

    alone = [fault.replace("row 1: ", f"row {n}: ", 1) for n, row in enumerate(rows, 1) for fault in faults([row])]
    assert faults(rows) == alone[:20] + ([f"and {len(alone) - 20} more faults"] if len(alone) > 20 else [])


def test_chat_messages_in_parquet_are_read_in_parts(tmp_path: Path) -> None:
    rows = [{"user_id": n, "prompt": CHAT, "chosen": f"a{n}", "rejected": "x"} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    data = parse_rows(scan_parquet(tmp_path / "a.parquet")).data
    assert set(data.responses.prompts) == {"Why?"}
    assert [data.responses.texts[row] for row in data.comparisons.chosen] == ["a0", "a1", "a2", "a3", "a4"]
    assert data.users.ids == ("0", "1", "2", "3", "4")


def test_columns_come_and_go_and_those_not_wanted_are_named_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({f"c{n % 3}": "x" * 60, "b": n}) + "\n" for n in range(4)))
    table = scan_jsonl(path, ["c1", "c2", "d"])
    columns = {name: column and column.codes.tolist() for name, column in table.columns.items()}
    assert columns == {"c0": None, "b": None, "c1": [-1, 0, -1, -1], "c2": [-1, -1, 0, -1]}
    assert list(table.rows) == [1, 2, 3, 4]


def test_each_value_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,x\n2,x\n1,y\n3,x\n")
    column = scan_csv(path).columns["a"]
    assert isinstance(column, EncodedColumn)
    assert (column.codes.tolist(), list(column.values)) == ([0, 1, 0, 2], ["1", "2", "3"])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.csv", lambda path: path.write_text("user_id,prompt,chosen,rejected\n" + "u,p,a,b\n" * 9)),
        ("a.jsonl", lambda path: path.write_text('{"user_id":"u","prompt":"p","chosen":"a","rejected":"b"}\n' * 9)),
        ("a.parquet", lambda path: pq.write_table(pa.table(dict.fromkeys(("prompt", "chosen"), ["a"] * 9)), path)),
    ],
)
def test_how_far_it_is_is_shown_for_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Path], Any]
) -> None:
    write(tmp_path / name)
    scans = {"csv": scan_csv, "jsonl": scan_jsonl, "parquet": scan_parquet}
    shown: list[str] = []
    progress = LineProgress(shown.append, interval=-1.0)
    scans[name[2:]](tmp_path / name, None, progress)
    assert shown == []
    monkeypatch.setattr(scan, "_LONG", 0)
    scans[name[2:]](tmp_path / name, None, progress)
    assert shown[-1].startswith(f"read {name}, MiB: done in")
    assert len(shown) > 2


def test_a_source_shows_how_far_it_is_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_LONG", 0)
    path = tmp_path / "a.csv"
    path.write_text("user_id,prompt,chosen,rejected\nu,p,a,b\n")
    source = TableSource("csv", TableOptions(path=path))
    assert isinstance(source, ShowsProgress)
    shown: list[str] = []
    assert content(source.showing(LineProgress(shown.append)).load(seed=0)) == content(source.load(seed=0))
    assert [line.partition(" done")[0] for line in shown] == ["read a.csv, MiB:"]
