"""Read CSV and JSON-lines files strictly: every line that is wrong is a fault, and all faults are reported at once."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import attrs

from copl.errors import DataError

SHOWN = 20
"""Faults of one file that are shown; the rest are counted."""


@final
class Faults:
    """Collects what is wrong with one file or table, by row."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._found: list[tuple[int, str]] = []

    def add(self, message: str, *, row: int = 0, label: str = "") -> None:
        """Add one fault.

        Args:
            message: what is wrong and what to do.
            row: place in the file, by which faults are sorted; 0 for the file as a whole.
            label: how the row is named to the user, such as ``line 7``.
        """
        self._found.append((row, f"{self._where}: {label}: {message}" if label else f"{self._where}: {message}"))

    def __len__(self) -> int:
        return len(self._found)

    def raise_any(self) -> None:
        """Raise when there are faults.

        Raises:
            DataError: the first faults in order of rows, and how many more there are.
        """
        if self._found:
            lines = [message for _, message in sorted(self._found, key=lambda fault: fault[0])]
            more = len(lines) - SHOWN
            raise DataError(lines[:SHOWN] + ([f"{self._where}: and {more:,} more faults"] if more > 0 else []))


@final
@attrs.frozen(eq=False)
class Table:
    """A table as read from a file or given as rows: columns of equal length.

    Attributes:
        where: name of the file, for messages.
        columns: values by column name: a list of Python values or an Arrow array.
        rows: number of each row in the file, as a person counts.
        unit: what the numbers count: ``line`` or ``row``.
    """

    where: str
    columns: dict[str, Any]
    rows: list[int]
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.rows)

    def label(self, place: int) -> str:
        """Return how the row at `place` is named to a person."""
        return f"{self.unit} {self.rows[place]}"


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        DataError: no such file, a directory, unreadable, empty, or in another encoding.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a directory; name a file in it") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not content.strip():
        raise DataError(f"{path}: the file is empty")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: the file is UTF-16; save it as UTF-8")
    if content.startswith((b"PAR1", b"PK\x03\x04", b"\x1f\x8b")):
        raise DataError(f"{path}: this is a binary file (Parquet, zip or gzip), not text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise DataError(f"{path}: line {line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from error


@contextmanager
def _any_field_size() -> Iterator[None]:
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def read_csv(path: Path) -> Table:
    """Read a comma-separated file with a header; all values are text.

    Raises:
        DataError: see `read_text`; a header with a name twice or none, a line with too few or too many values, quotes
            that are not closed.
    """
    text = read_text(path)
    faults = Faults(str(path))
    records: list[list[str]] = []
    lines: list[int] = []
    with _any_field_size():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        start = 1
        try:
            for record in reader:
                if record:
                    records.append(record)
                    lines.append(start)
                start = reader.line_num + 1
        except csv.Error as error:
            reason = "a quote is not closed" if "end of data" in str(error) else f"quotes are unbalanced ({error})"
            faults.add(f"{reason}; the record that begins here is broken", row=start, label=f"line {start}")
    if records:
        _check_records(records, lines, faults)
    faults.raise_any()
    header = [name.strip() for name in records[0]]
    columns = zip(*records[1:], strict=True) if len(records) > 1 else ((),) * len(header)
    return Table(str(path), {name: list(c) for name, c in zip(header, columns, strict=True)}, lines[1:])


def _check_records(records: list[list[str]], lines: list[int], faults: Faults) -> None:
    header = [name.strip() for name in records[0]]
    for name in sorted({name for name in header if header.count(name) > 1}):
        faults.add(f"column {name!r} is there {header.count(name)} times; rename or remove all but one", row=1)
    if "" in header:
        faults.add("a column has no name in the header", row=1)
    for separator, spoken in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            faults.add(f"the columns are separated by {spoken}; only commas are read", row=1)
    for record, line in zip(records[1:], lines[1:], strict=True):
        if len(record) != len(header):
            message = f"{len(record)} values where the header has {len(header)} columns"
            faults.add(message, row=line, label=f"line {line}")


def read_jsonl(path: Path) -> Table:
    """Read JSON lines: one object a line; keys that some lines lack are None there.

    Raises:
        DataError: see `read_text`; a line that is not a JSON object.
    """
    text = read_text(path)
    faults = Faults(str(path))
    objects: list[dict[str, Any]] = []
    numbers: list[int] = []
    # Not str.splitlines: that also splits at U+2028 and the like, which JSON allows within text.
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            cut = number == len(lines) and line.lstrip().startswith("{")
            reason = "the file is cut short in this line" if cut else f"not JSON ({_brief(error)})"
            faults.add(reason, row=number, label=f"line {number}")
            continue
        if not isinstance(value, dict):
            message = f"a JSON {_json_name(value)} where one object a line is expected"
            faults.add(message, row=number, label=f"line {number}")
            continue
        objects.append(value)
        numbers.append(number)
    faults.raise_any()
    return table_of_objects(str(path), objects, numbers, "line")


def table_of_objects(where: str, objects: list[dict[str, Any]], rows: list[int], unit: str) -> Table:
    """Return objects as a table; keys that some of them lack are None there."""
    names = dict.fromkeys(name for value in objects for name in value)
    return Table(where, {name: [value.get(name) for value in objects] for name in names}, rows, unit)


def _brief(error: Exception) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _json_name(value: Any) -> str:
    return {list: "array", str: "text", bool: "truth value", type(None): "null"}.get(type(value), "number")


def read_parquet(path: Path) -> Table:
    """Read a Parquet file.

    Raises:
        DataError: no such file, a directory, or not a whole Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path}: is a directory; name a file in it" if path.is_dir() else f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        with path.open("rb") as file:
            table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        with path.open("rb") as file:
            begins = file.read(4) == b"PAR1"
        reason = "the file is cut short or damaged" if begins else "this is not a Parquet file"
        raise DataError(f"{path}: {reason} ({str(error).splitlines()[0]})") from error
    faults = Faults(str(path))
    names = table.column_names
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.add(f"column {name!r} is there {names.count(name)} times")
    faults.raise_any()
    return Table(str(path), {name: table.column(name) for name in names}, list(range(1, table.num_rows + 1)), "row")
