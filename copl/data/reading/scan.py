"""Read files of rows in parts, into columns that hold each distinct value once: millions of rows in little memory.

The readers in `copl.data.reading.files` hold a file as a whole, in Python's values, and are for small files; what is a
fault is the same in both, in the same words.
"""

from __future__ import annotations

import csv
import io
import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np

from copl.data.reading.columns import ColumnEncoder
from copl.data.reading.files import (
    Faults,
    Table,
    add_csv_fault,
    any_field_size,
    check_header,
    check_text_file,
    check_widths,
    is_packed,
    open_bytes,
    parse_line,
    read_text,
)
from copl.errors import DataError

if TYPE_CHECKING:
    from copl.interfaces import Progress
    from copl.records import IntArray

_ROWS = 100_000
"""Rows of CSV that are held at a time."""

_BYTES = 16 * 2**20
"""Bytes of JSON lines that are held at a time."""

_PARQUET_ROWS, _PARQUET_BYTES = 500_000, 256 * 2**20
"""Rows of Parquet that are held at a time: so many, or fewer where they take more than so many bytes."""

_LONG = 32
"""MiB of a file from which on progress is shown."""

_BREAK = re.compile("\r\n|\r|\n")

Advance: TypeAlias = Callable[[int], None]


@contextmanager
def _watched(path: Path, progress: Progress | None) -> Iterator[Advance]:
    """Show how much of a large file has been read; yields what is told the number of bytes behind."""
    total = path.stat().st_size >> 20
    if progress is None or total < _LONG:
        yield lambda done: None
        return
    shown = 0
    # how long a compressed file is when unpacked is not known before
    with progress.task(f"read {path.name}, MiB", None if is_packed(path) else total) as task:

        def advance(done: int) -> None:
            nonlocal shown
            task.advance((done >> 20) - shown)
            shown = done >> 20

        yield advance


def scan_csv(path: Path, wanted: Collection[str] | None = None, progress: Progress | None = None) -> Table:
    """Read a comma-separated file with a header; all values are text.

    Args:
        path: the file.
        wanted: columns to read; all when None.
        progress: where to show how far it is.

    Raises:
        DataError: see `copl.data.reading.files.read_csv`.
    """
    check_text_file(path)
    faults = Faults(str(path))
    made = _Made(wanted)
    header: list[str] | None = None
    try:
        with any_field_size(), open_bytes(path) as file, _watched(path, progress) as advance:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            for records, lines in _csv_parts(text, faults):
                body = records
                if header is None:
                    header, body, lines = [name.strip() for name in records[0]], records[1:], lines[1:]
                    check_header(header, faults)
                check_widths(body, lines, len(header), faults)
                if not len(faults):
                    columns = zip(*body, strict=True) if body else ((),) * len(header)
                    made.add(dict(zip(header, columns, strict=True)), lines)
                advance(file.tell())
    except UnicodeDecodeError:
        read_text(path)  # tells the line
        raise
    if header is None:
        read_text(path)  # tells that it is empty
    faults.raise_any()
    return made.table(str(path))


def _csv_parts(text: io.TextIOWrapper, faults: Faults) -> Iterator[tuple[list[list[str]], IntArray]]:
    """Yield records and the lines they begin in; the last part ends before a record that is broken."""
    reader = csv.reader(text, strict=True)
    is_whole = False
    while not is_whole:
        before = reader.line_num
        records: list[list[str]] = []
        error = None
        try:
            records.extend(islice(reader, _ROWS))
            is_whole = len(records) < _ROWS
        except csv.Error as caught:
            error, is_whole = caught, True
        lines = np.arange(before + 1, before + 1 + len(records))
        if error is not None or reader.line_num - before != len(records):  # records of several lines
            spans = [1 + sum(len(_BREAK.findall(value)) for value in record) for record in records]
            ends = before + np.cumsum([0, *spans])
            lines = ends[:-1] + 1
            if error is not None:
                add_csv_fault(faults, error, int(ends[-1]) + 1)
        if not all(records):
            lines = lines[list(map(bool, records))]
            records = list(filter(None, records))
        if records:
            yield records, lines
    for _ in text:  # what follows a broken record must be UTF-8, too
        pass


def scan_jsonl(path: Path, wanted: Collection[str] | None = None, progress: Progress | None = None) -> Table:
    """Read JSON lines: one object a line; keys that some lines lack are nothing there.

    Args:
        path: the file.
        wanted: columns to read; all when None.
        progress: where to show how far it is.

    Raises:
        DataError: see `copl.data.reading.files.read_jsonl`.
    """
    check_text_file(path)
    faults = Faults(str(path))
    made = _Made(wanted)
    try:
        with open_bytes(path) as file, _watched(path, progress) as advance:
            for lines, first, is_last in _line_parts(file):
                objects, numbers = _objects(lines, first, is_last, faults)
                if not len(faults) and objects:
                    made.add(_columns(objects, wanted), numbers)
                advance(file.tell())
    except UnicodeDecodeError:
        read_text(path)  # tells the line
        raise
    faults.raise_any()
    if not made.names:
        read_text(path)  # tells that it is empty
    return made.table(str(path))


def _line_parts(file: Any) -> Iterator[tuple[list[str], int, bool]]:
    """Yield lines, the number of the first, and whether the file ends in the last one."""
    # Not str.splitlines: that also splits at U+2028 and the like, which JSON allows within text.
    number, rest = 1, [b""]
    encoding = "utf-8-sig"
    while block := file.read(_BYTES):
        end = block.rfind(b"\n") + 1
        if not end:
            rest.append(block)
            continue
        lines = b"".join([*rest, block[: end - 1]]).decode(encoding).split("\n")
        rest, encoding = [block[end:]], "utf-8"
        yield lines, number, False
        number += len(lines)
    yield [b"".join(rest).decode(encoding)], number, True


def _objects(lines: list[str], first: int, is_last: bool, faults: Faults) -> tuple[list[dict[str, Any]], IntArray]:
    """Return the objects in lines, and the numbers of these lines."""
    numbers = np.arange(first, first + len(lines))
    full = list(filter(str.strip, lines))
    if len(full) != len(lines):
        numbers = numbers[[bool(line.strip()) for line in lines]]
    # All lines at once, with a word between them that no line can know: then every line is one value by itself.
    mark = secrets.token_hex(8)
    try:
        values = json.loads("[" + f',"{mark}",'.join(full) + "]")
    except (ValueError, RecursionError):
        values = []
    objects, between = values[::2], values[1::2]
    alone = len(values) == max(2 * len(full) - 1, 0) and all(map(mark.__eq__, between))
    if alone and set(map(type, objects)) <= {dict}:
        return objects, numbers
    found = [
        (value, number)
        for line, number in zip(full, numbers.tolist(), strict=True)
        if (value := parse_line(line, number, faults, is_last=is_last)) is not None
    ]
    return [value for value, _ in found], np.array([number for _, number in found], dtype=np.int64)


def _columns(objects: list[dict[str, Any]], wanted: Collection[str] | None) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(chain.from_iterable(objects)):
        if wanted is not None and name not in wanted:
            columns[name] = None
            continue
        try:
            columns[name] = list(map(itemgetter(name), objects))
        except KeyError:
            columns[name] = [value.get(name) for value in objects]
    return columns


def scan_parquet(path: Path, wanted: Collection[str] | None = None, progress: Progress | None = None) -> Table:
    """Read a Parquet file.

    Args:
        path: the file.
        wanted: columns to read; all when None.
        progress: where to show how far it is.

    Raises:
        DataError: no such file, a directory, or not a whole Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path}: is a directory; name a file in it" if path.is_dir() else f"{path}: no such file")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: the file is empty")
    made = _Made(wanted, is_typed=True)
    try:
        schema = pq.read_schema(path)
        texts = [field.name for field in schema if _is_text(field.type)]
        # Text is coded while it is decoded, so that a column of it never lies in memory in full.
        with pq.ParquetFile(path, read_dictionary=texts) as opened, _watched(path, progress) as advance:
            faults = Faults(str(path))
            for name in sorted({name for name in schema.names if schema.names.count(name) > 1}):
                faults.add(f"column {name!r} is there {schema.names.count(name)} times")
            faults.raise_any()
            made.names.update(dict.fromkeys(schema.names))
            read = [name for name in schema.names if wanted is None or name in wanted]
            num_rows, done = opened.metadata.num_rows, 0
            for batch in opened.iter_batches(_held_rows(opened.metadata), columns=read, use_threads=False):
                made.add_arrays(dict(zip(read, batch.columns, strict=True)), batch.num_rows)
                done += batch.num_rows
                advance(size * done // num_rows)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: text that is not UTF-8 ({error.reason}); write it again") from error
    except (pa.ArrowException, OSError) as error:
        with path.open("rb") as file:
            begins = file.read(4) == b"PAR1"
        reason = "the file is cut short or damaged" if begins else "this is not a Parquet file"
        raise DataError(f"{path}: {reason} ({str(error).splitlines()[0]})") from error
    return made.table(str(path), num_rows)


def _held_rows(metadata: Any) -> int:
    size = sum(metadata.row_group(place).total_byte_size for place in range(metadata.num_row_groups))
    return int(min(max(_PARQUET_BYTES * metadata.num_rows // max(size, 1), 1), _PARQUET_ROWS))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


@final
class _Made:
    """A table in the making."""

    def __init__(self, wanted: Collection[str] | None, *, is_typed: bool = False) -> None:
        self.names: dict[str, None] = {}
        self._wanted = wanted
        self._is_typed = is_typed
        self._columns: dict[str, ColumnEncoder] = {}
        self._numbers: dict[str, list[Any]] = {}
        self._count = 0
        self._rows: list[IntArray] = []

    def add(self, columns: Mapping[str, Sequence[Any] | None], rows: IntArray) -> None:
        """Add rows given as columns of Python's values; columns may come and go."""
        for name, values in columns.items():
            self.names[name] = None
            if self._wanted is not None and name not in self._wanted:
                continue
            if name not in self._columns:
                self._columns[name] = ColumnEncoder()
                self._columns[name].skip(self._count)
            self._columns[name].add(values or [])
        for name in self._columns.keys() - columns.keys():
            self._columns[name].skip(len(rows))
        self._count += len(rows)
        self._rows.append(rows)

    def add_arrays(self, columns: Mapping[str, Any], count: int) -> None:
        """Add rows given as Arrow arrays; fractions are kept as they are, for few of them are alike."""
        import pyarrow as pa

        for name, array in columns.items():
            if pa.types.is_floating(array.type):
                self._numbers.setdefault(name, []).append(array)
            else:
                self._columns.setdefault(name, ColumnEncoder()).add_array(array)
        self._count += count

    def table(self, where: str, num_rows: int | None = None) -> Table:
        """Return the table.

        Args:
            where: name of the file.
            num_rows: number of rows where the file counts rows; lines otherwise.
        """
        import pyarrow as pa

        columns: dict[str, Any] = dict.fromkeys(self.names)
        for name in columns:
            if self._wanted is None or name in self._wanted:
                column = self._columns.get(name, ColumnEncoder())
                parts = self._numbers.get(name)
                columns[name] = pa.chunked_array(parts) if parts else column.finish(self._is_typed)
        if num_rows is not None:
            return Table(where, columns, range(1, num_rows + 1), "row")
        return Table(where, columns, np.concatenate(self._rows) if self._rows else [])
