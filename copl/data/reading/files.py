"""Read CSV and JSON-lines files strictly: every line that is wrong is a fault, and all faults are reported at once."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast, final

import attrs

from copl.errors import DataError

if TYPE_CHECKING:
    from copl.records import IntArray

SHOWN = 20
"""Faults of one file that are shown; the rest are counted."""


@final
class Faults:
    """Collects what is wrong with one file or table, by row."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._found: list[tuple[int, str]] = []
        self._left_out = 0

    def add(self, message: str, *, row: int = 0, label: str = "") -> None:
        """Add one fault.

        Args:
            message: what is wrong and what to do.
            row: place in the file, by which faults are sorted; 0 for the file as a whole.
            label: how the row is named to the user, such as ``line 7``.
        """
        self._found.append((row, f"{self._where}: {label}: {message}" if label else f"{self._where}: {message}"))
        if len(self._found) > 10 * SHOWN:  # a file may be wrong in every row
            kept = self._first()[:SHOWN]
            self._left_out += len(self._found) - len(kept)
            self._found = kept

    def add_each(self, places: Sequence[int] | IntArray, tell: Callable[[int], tuple[int, str, str]]) -> None:
        """Add a fault for each of many rows; messages are made of those alone that may be shown.

        Args:
            places: the rows, in the order of the file.
            tell: gives row, message and label of a place, see `add`.
        """
        for place in places[:SHOWN]:
            row, message, label = tell(int(place))
            self.add(message, row=row, label=label)
        self._left_out += max(len(places) - SHOWN, 0)

    def _first(self) -> list[tuple[int, str]]:
        return sorted(self._found, key=lambda fault: fault[0])

    def __len__(self) -> int:
        return len(self._found) + self._left_out

    def raise_any(self) -> None:
        """Raise when there are faults.

        Raises:
            DataError: the first faults in order of rows, and how many more there are.
        """
        if self._found:
            lines = [message for _, message in self._first()]
            more = len(self) - SHOWN
            raise DataError(lines[:SHOWN] + ([f"{self._where}: and {more:,} more faults"] if more > 0 else []))


@final
@attrs.frozen(eq=False)
class Table:
    """A table as read from a file or given as rows: columns of equal length.

    Attributes:
        where: name of the file, for messages.
        columns: values by column name: a list of Python values, an Arrow array, a
            `copl.data.reading.columns.EncodedColumn`, or None where the column is there and was not read.
        rows: number of each row in the file, as a person counts.
        unit: what the numbers count: ``line`` or ``row``.
    """

    where: str
    columns: dict[str, Any]
    rows: Sequence[int] | IntArray
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.rows)

    def label(self, place: int) -> str:
        """Return how the row at `place` is named to a person."""
        return f"{self.unit} {self.rows[place]}"


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed with gzip, by its name: ``.gz``."""
    return path.suffix.lower() == ".gz"


def unpacked_name(path: Path) -> Path:
    """Return what a file would be called if it were not compressed.

    >>> unpacked_name(Path("votes.csv.gz")).name, unpacked_name(Path("votes.csv")).name
    ('votes.csv', 'votes.csv')
    """
    return path.with_suffix("") if is_packed(path) else path


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacking it where its name ends in ``.gz``.

    Raises:
        DataError: no such file, a directory, unreadable; a compressed file that is cut short or damaged, as soon as the
            block comes upon it.
    """
    try:
        with gzip.open(path, "rb") if is_packed(path) else path.open("rb") as file:
            yield cast("BinaryIO", file)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a directory; name a file in it") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the compressed file is cut short or damaged, or no gzip file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def check_text_file(path: Path) -> None:
    """Refuse what cannot be a text file in UTF-8, by its first bytes; one named ``.gz`` is unpacked.

    Raises:
        DataError: see `open_bytes`; or the text is in another encoding.
    """
    with open_bytes(path) as file:
        begin = file.read(4)
    if begin.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: the file is UTF-16; save it as UTF-8")
    if begin.startswith(b"\x1f\x8b"):
        raise DataError(f"{path}: this is a gzip file, not text; let its name end in .gz")
    if begin.startswith((b"PAR1", b"PK\x03\x04")):
        raise DataError(f"{path}: this is a binary file (Parquet or zip), not text")


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file; one named ``.gz`` is unpacked.

    Raises:
        DataError: see `open_bytes`; or the file is empty or in another encoding.
    """
    check_text_file(path)
    with open_bytes(path) as file:
        content = file.read()
    if not content.strip():
        raise DataError(f"{path}: the file is empty")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise DataError(f"{path}: line {line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from error


@contextmanager
def any_field_size() -> Iterator[None]:
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
    with any_field_size():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        start = 1
        try:
            for record in reader:
                if record:
                    records.append(record)
                    lines.append(start)
                start = reader.line_num + 1
        except csv.Error as error:
            add_csv_fault(faults, error, start)
    if records:
        check_header(records[0], faults)
        check_widths(records[1:], lines[1:], len(records[0]), faults)
    faults.raise_any()
    header = [name.strip() for name in records[0]]
    columns = zip(*records[1:], strict=True) if len(records) > 1 else ((),) * len(header)
    return Table(str(path), {name: list(c) for name, c in zip(header, columns, strict=True)}, lines[1:])


def add_csv_fault(faults: Faults, error: csv.Error, line: int) -> None:
    """Add what the csv module says of the record that begins in a line."""
    reason = "a quote is not closed" if "end of data" in str(error) else f"quotes are unbalanced ({error})"
    faults.add(f"{reason}; the record that begins here is broken", row=line, label=f"line {line}")


def check_header(record: Sequence[str], faults: Faults) -> None:
    """Add a fault for each name that is there twice or missing, and where commas are not what separates."""
    header = [name.strip() for name in record]
    for name in sorted({name for name in header if header.count(name) > 1}):
        faults.add(f"column {name!r} is there {header.count(name)} times; rename or remove all but one", row=1)
    if "" in header:
        faults.add("a column has no name in the header", row=1)
    for separator, spoken in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            faults.add(f"the columns are separated by {spoken}; only commas are read", row=1)


def check_widths(records: Sequence[Sequence[str]], lines: Sequence[int] | IntArray, width: int, faults: Faults) -> None:
    """Add a fault for each record that has not as many values as there are columns."""
    if set(map(len, records)) <= {width}:
        return
    for record, line in zip(records, lines, strict=True):
        if len(record) != width:
            message = f"{len(record)} values where the header has {width} columns"
            faults.add(message, row=int(line), label=f"line {line}")


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
        if line.strip() and (value := parse_line(line, number, faults, is_last=number == len(lines))) is not None:
            objects.append(value)
            numbers.append(number)
    faults.raise_any()
    return table_of_objects(str(path), objects, numbers, "line")


def parse_line(line: str, number: int, faults: Faults, *, is_last: bool) -> dict[str, Any] | None:
    """Return the object in a line, or None where there is a fault, which is added.

    Args:
        line: the line.
        number: its number.
        faults: where to add the fault.
        is_last: whether the file ends in this line.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        cut = is_last and line.lstrip().startswith("{")
        reason = "the file is cut short in this line" if cut else f"not JSON ({_brief(error)})"
        faults.add(reason, row=number, label=f"line {number}")
        return None
    if not isinstance(value, dict):
        message = f"a JSON {_json_name(value)} where one object a line is expected"
        faults.add(message, row=number, label=f"line {number}")
        return None
    return value


def table_of_objects(where: str, objects: list[dict[str, Any]], rows: list[int], unit: str) -> Table:
    """Return objects as a table; keys that some of them lack are None there."""
    names = dict.fromkeys(name for value in objects for name in value)
    return Table(where, {name: [value.get(name) for value in objects] for name in names}, rows, unit)


def _brief(error: Exception) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _json_name(value: Any) -> str:
    return {list: "array", str: "text", bool: "truth value", type(None): "null"}.get(type(value), "number")
