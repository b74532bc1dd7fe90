"""Read files of rows into columns that hold each distinct value once: millions of rows in little memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from copl.data.reading.columns import ColumnEncoder
from copl.data.reading.faults import Faults
from copl.data.reading.files import is_packed, open_bytes, require_file
from copl.data.reading.parts import Advance, csv_parts, json_parts
from copl.data.reading.table import Table
from copl.errors import DataError, quoted

if TYPE_CHECKING:
    from copl.interfaces import Progress
    from copl.records import IntArray

_PARQUET_ROWS, _PARQUET_BYTES = 500_000, 256 * 2**20
"""Rows of Parquet that are held at a time: so many, or fewer where they take more than so many bytes."""

_LONG = 32
"""MiB of a file from which on progress is shown."""


@contextmanager
def _watched(path: Path, progress: Progress | None) -> Iterator[Advance]:
    """Show how much of a large file has been read; yields what is told the number of bytes behind."""
    total = path.stat().st_size >> 20 if progress is not None and path.is_file() else 0
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

    Returns:
        the lines that could be read, and what is wrong with the others.

    Raises:
        DataError: see `copl.data.reading.parts.csv_parts`.
    """
    faults, builder = Faults(str(path)), _TableBuilder(wanted)
    with _watched(path, progress) as advance:
        for header, records, lines in csv_parts(path, faults, advance):
            columns = zip(*records, strict=True) if records else ((),) * len(header)
            builder.add(dict(zip(header, columns, strict=True)), lines)
    return builder.table(str(path), faults)


def scan_jsonl(path: Path, wanted: Collection[str] | None = None, progress: Progress | None = None) -> Table:
    """Read JSON lines, as `scan_csv`: one object a line; keys that some lines lack are nothing there.

    Raises:
        DataError: see `copl.data.reading.parts.json_parts`.
    """
    faults, builder = Faults(str(path)), _TableBuilder(wanted)
    with _watched(path, progress) as advance:
        for objects, lines in json_parts(path, faults, advance):
            if objects:
                builder.add(_columns(objects, wanted), lines)
    return builder.table(str(path), faults)


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
    """Read a Parquet file, as `scan_csv`.

    Raises:
        DataError: no such file, a directory, or not a whole Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_file(path)
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: the file is empty")
    builder = _TableBuilder(wanted, is_typed=True)
    try:
        schema = pq.read_schema(path)
        texts = [field.name for field in schema if _is_text(field.type)]
        # Text is coded while it is decoded, so that a column of it never lies in memory in full.
        with pq.ParquetFile(path, read_dictionary=texts) as opened, _watched(path, progress) as advance:
            faults = Faults(str(path))
            for name in sorted({name for name in schema.names if schema.names.count(name) > 1}):
                faults.add(f"column {quoted(name)} is there {schema.names.count(name)} times")
            faults.raise_any()
            builder.names.update(dict.fromkeys(schema.names))
            read = [name for name in schema.names if wanted is None or name in wanted]
            num_rows, done = opened.metadata.num_rows, 0
            for batch in opened.iter_batches(_held_rows(opened.metadata), columns=read, use_threads=False):
                builder.add_arrays(dict(zip(read, batch.columns, strict=True)), batch.num_rows)
                done += batch.num_rows
                advance(size * done // num_rows)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: text that is not UTF-8 ({error.reason}); write it again") from error
    except (pa.ArrowException, OSError) as error:
        with open_bytes(path) as file:
            begins = file.read(4) == b"PAR1"
        reason = "the file is cut short or damaged" if begins else "this is not a Parquet file"
        raise DataError(f"{path}: {reason} ({str(error).splitlines()[0]})") from error
    return builder.table(str(path), Faults(str(path)), num_rows)


def _held_rows(metadata: Any) -> int:
    size = sum(metadata.row_group(place).total_byte_size for place in range(metadata.num_row_groups))
    return int(min(max(_PARQUET_BYTES * metadata.num_rows // max(size, 1), 1), _PARQUET_ROWS))


def _is_text(kind: object) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


@final
class _TableBuilder:
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

    def table(self, where: str, faults: Faults, num_rows: int | None = None) -> Table:
        """Return the table.

        Args:
            where: name of the file.
            faults: what is wrong with rows that were left out.
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
            return Table(where, columns, range(1, num_rows + 1), "row", faults)
        return Table(where, columns, np.concatenate(self._rows) if self._rows else [], faults=faults)
