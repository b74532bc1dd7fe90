from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from copl.data.reading.faults import SHOWN, Faults
from copl.data.reading.scan import scan_csv, scan_jsonl, scan_parquet
from copl.data.reading.table import Table
from copl.errors import DataError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(table: Table) -> dict[str, list[Any]]:
    return {name: table.values(name) for name in table.columns}


def test_csv_with_quotes_newlines_and_a_byte_order_mark(tmp_path: Path) -> None:
    table = scan_csv(write(tmp_path / "a.csv", '\ufeffa, b\r\n"x\n""y""",1\r\n\r\nz,2\r\n'))
    assert values(table) == {"a": ['x\n"y"', "z"], "b": ["1", "2"]}
    assert [table.label(0), table.label(1)] == ["line 2", "line 5"]


def test_csv_with_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    table = scan_csv(write(tmp_path / "a.csv", "a,b\n"))
    assert (values(table), len(table)) == ({"a": [], "b": []}, 0)


def test_csv_takes_long_texts_and_leaves_the_limit_of_others_alone(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    assert scan_csv(write(tmp_path / "a.csv", "a\n" + "x" * (before + 1) + "\n")).values("a") == ["x" * (before + 1)]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n \n", "the file is empty"),
        ("a,b\nä,1\n".encode("latin-1"), r"line 2: byte 0xe4 is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"PAR1....", "binary file"),
        (b"a,a,b\n1,2,3\n", "column 'a' is there 2 times"),
        (b"a,,b\n1,2,3\n", "has no name"),
        (b"a,b\n1,2\n3\n4,5,6\n", "line 3: 1 values where the header has 2 columns"),
        (b'a,b\n1,2\n"3,4\n5,6\n', "line 3: a quote is not closed"),
        (b'a,b\n"1"x,2\n', "line 2: quotes are unbalanced"),
        (b"a;b\n1;2\n", "separated by semicolons"),
    ],
)
def test_faults_of_csv(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        scan_csv(write(tmp_path / "a.csv", content)).checked()
    assert all("a.csv" in fault and "\n" not in fault for fault in caught.value.faults)


def test_jsonl_keeps_lines_apart_by_newline_only(tmp_path: Path) -> None:
    table = scan_jsonl(write(tmp_path / "a.jsonl", '{"a": "x\u2028y"}\n\n{"b": 2, "a": null}\n'))
    assert values(table) == {"a": ["x\u2028y", None], "b": [None, 2]}
    assert table.rows.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n{"a": ', "line 2: the file is cut short in this line"),
        ('{"a": 1}\n{"a": nope}\n{}\n', "line 2: not JSON"),
        ('[{"a": 1}]\n', "line 1: a JSON array where one object a line"),
        ('"a"\n', "line 1: a JSON text"),
        ("[" * 100_000 + "\n", "line 1: not JSON"),
    ],
)
def test_faults_of_jsonl(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        scan_jsonl(write(tmp_path / "a.jsonl", content)).checked()


def test_faults_of_paths(tmp_path: Path) -> None:
    for read in (scan_csv, scan_jsonl, scan_parquet):
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "none")
        with pytest.raises(DataError, match="is a directory"):
            read(tmp_path)


def test_files_named_gz_are_unpacked(tmp_path: Path) -> None:
    packed = write(tmp_path / "a.jsonl.gz", gzip.compress('{"a": "é"}\n{"a": "z"}\n'.encode()))
    assert scan_jsonl(packed).columns["a"].values == ["é", "z"]
    packed = write(tmp_path / "a.csv.GZ", gzip.compress(b"\xef\xbb\xbfa,b\n1,2\n"))
    assert scan_csv(packed).columns["b"].values == ["2"]


def test_faults_of_files_named_gz(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f'{{"a": {number}}}\n' for number in range(9000)).encode())
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for content, message in (
        (whole[: len(whole) // 2], "cut short or damaged"),
        (whole[:-4], "cut short or damaged"),
        (bytes(damaged), "cut short or damaged"),
        (b'{"a": 1}\n', "no gzip file"),
        (gzip.compress(b""), "the file is empty"),
        (gzip.compress(b'{"a": 1}\n{"a": "\xff"}\n'), "line 2: byte 0xff is not UTF-8"),
        (gzip.compress(b"PAR1...."), "binary file"),
    ):
        with pytest.raises(DataError, match=message):
            scan_jsonl(write(tmp_path / "a.jsonl.gz", content)).checked()
    for read in (scan_jsonl, scan_csv):
        with pytest.raises(DataError, match=r"a gzip file, not text; let its name end in \.gz"):
            read(write(tmp_path / "a.jsonl", whole))
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "none.gz")


def test_faults_of_parquet(tmp_path: Path) -> None:
    whole = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["x"]}), whole)
    for content, message in (
        (whole.read_bytes()[:-20], "cut short or damaged"),
        (b"a,b\n", "not a Parquet file"),
        (b"", "the file is empty"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            scan_parquet(write(tmp_path / "b.parquet", content))
        assert "\n" not in str(caught.value)
    assert scan_parquet(whole).columns["a"].values == ["x"]


def test_faults_come_in_order_and_the_rest_is_counted() -> None:
    faults = Faults("file")
    for row in range(SHOWN + 5, 0, -1):
        faults.add("wrong", row=row, label=f"line {row}")
    with pytest.raises(DataError) as caught:
        faults.raise_any()
    assert caught.value.faults[0] == "file: line 1: wrong"
    assert caught.value.faults[SHOWN:] == ("file: and 5 more faults",)
