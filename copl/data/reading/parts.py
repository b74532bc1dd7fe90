"""Text files of rows, read in parts: comma-separated values and JSON lines.

Every line that is wrong is a fault, and the lines beside it are read all the same, so that all faults of a file can be
said at once.
"""

from __future__ import annotations

import csv
import io
import json
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias, final

import numpy as np

from copl.data.canonical import canonical_id
from copl.data.reading.faults import Faults
from copl.data.reading.files import open_text
from copl.errors import DataError, of_json, quoted
from copl.records import IntArray

_ROWS = 100_000
"""Rows of CSV that are held at a time."""

_BYTES = 16 * 2**20
"""Bytes of JSON lines that are held at a time."""

_BREAK = re.compile("\r\n|\r|\n")
_UNDECODED = re.compile("[\udc80-\udcff]")
"""What stands for a byte that is not UTF-8 in text decoded with ``surrogateescape``."""

Advance: TypeAlias = Callable[[int], None]
"""Is told how many bytes of a file have been read."""


@final
class CsvPart(NamedTuple):
    """Some records of a comma-separated file, each as long as the header, and the lines they begin in."""

    header: list[str]
    records: list[list[str]]
    lines: IntArray


@final
class JsonPart(NamedTuple):
    """Some objects of a file of JSON lines, and their lines."""

    objects: list[dict[str, Any]]
    lines: IntArray


def csv_parts(path: Path, faults: Faults, advance: Advance = lambda done: None) -> Iterator[CsvPart]:
    """Yield the records of a comma-separated file with a header; all values are text.

    A space after a comma belongs to the comma. Lines that are wrong are left out and added to `faults`: too few or too
    many values, quotes that are not closed, bytes that are not UTF-8.

    Raises:
        DataError: the file cannot be read or is empty; a header with a name twice or none.
    """
    header: list[str] | None = None
    with _any_field_size(), open_text(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        for records, lines in _csv_records(text, faults):
            records, lines = _decoded(records, lines, faults)
            if header is None and records:
                header = _header(records[0], path)
                records, lines = records[1:], lines[1:]
            if header is not None:
                yield CsvPart(header, *_of_width(records, lines, len(header), faults))
            advance(file.tell())
    if header is None:
        faults.raise_any()
        raise DataError(f"{path}: the file is empty")


@contextmanager
def _any_field_size() -> Iterator[None]:
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv_records(text: io.TextIOWrapper, faults: Faults) -> Iterator[tuple[list[list[str]], IntArray]]:
    """Yield records and the lines they begin in; the last part ends before a record that is broken."""
    reader = csv.reader(text, strict=True, skipinitialspace=True)
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
                line = int(ends[-1]) + 1
                reason = "a quote is not closed" if "end of data" in str(error) else f"quotes are unbalanced ({error})"
                faults.add(f"{reason}; the record that begins here is broken", row=line, label=f"line {line}")
        blank = [not record or record == [""] for record in records]
        if any(blank):
            lines = lines[np.logical_not(blank)]
            records = [record for record, is_blank in zip(records, blank, strict=True) if not is_blank]
        if records:
            yield records, lines


def _decoded(records: list[list[str]], lines: IntArray, faults: Faults) -> tuple[list[list[str]], IntArray]:
    """Return the records without those that have bytes which are not UTF-8."""
    if _is_utf8("".join(map("".join, records))):
        return records, lines
    right = np.ones(len(records), dtype=np.bool_)
    for place, record in enumerate(records):
        if (bad := _UNDECODED.search("".join(record))) is not None:
            _add_undecoded(faults, bad[0], int(lines[place]))
            right[place] = False
    return [record for record, is_right in zip(records, right.tolist(), strict=True) if is_right], lines[right]


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _add_undecoded(faults: Faults, character: str, line: int) -> None:
    byte = ord(character) - 0xDC00
    faults.add(f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8", row=line, label=f"line {line}")


def _header(record: Sequence[str], path: Path) -> list[str]:
    header = [canonical_id(name) for name in record]
    faults = Faults(str(path))
    for name in sorted({name for name in header if header.count(name) > 1}):
        faults.add(f"column {quoted(name)} is there {header.count(name)} times; rename or remove all but one")
    if "" in header:
        faults.add("a column has no name in the header")
    for separator, spoken in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in record[0]:
            faults.add(f"the columns are separated by {spoken}; only commas are read")
    faults.raise_any()
    return header


def _of_width(
    records: list[list[str]], lines: IntArray, width: int, faults: Faults
) -> tuple[list[list[str]], IntArray]:
    """Return the records that have as many values as there are columns."""
    lengths = np.fromiter(map(len, records), dtype=np.int64, count=len(records))
    right = lengths == width
    if right.all():
        return records, lines

    def tell(place: int) -> tuple[int, str, str]:
        message = f"{lengths[place]} values where the header has {width} columns"
        return int(lines[place]), message, f"line {lines[place]}"

    faults.add_each(np.flatnonzero(~right), tell)
    return [records[place] for place in np.flatnonzero(right).tolist()], lines[right]


def json_parts(path: Path, faults: Faults, advance: Advance = lambda done: None) -> Iterator[JsonPart]:
    """Yield the objects of a file of JSON lines.

    Lines that are wrong are left out and added to `faults`: not UTF-8, not JSON, no object, a key twice.

    Raises:
        DataError: the file cannot be read or is empty.
    """
    is_empty = True
    with open_text(path) as file:
        for lines, first, is_last in _line_parts(file):
            full = [(number, line) for number, line in enumerate(lines, start=first) if line.strip()]
            is_empty = is_empty and not full
            if full:
                yield _objects(*zip(*full, strict=True), is_last=is_last, faults=faults)
            advance(file.tell())
    if is_empty:
        raise DataError(f"{path}: the file is empty")


def _line_parts(file: BinaryIO) -> Iterator[tuple[list[str], int, bool]]:
    """Yield lines, the number of the first, and whether the file ends in the last one."""
    # Not str.splitlines: that also splits at U+2028 and the like, which JSON allows within text.
    number, rest = 1, [b""]
    encoding = "utf-8-sig"
    while block := file.read(_BYTES):
        end = block.rfind(b"\n") + 1
        if not end:
            rest.append(block)
            continue
        lines = b"".join([*rest, block[: end - 1]]).decode(encoding, "surrogateescape").split("\n")
        rest, encoding = [block[end:]], "utf-8"
        yield lines, number, False
        number += len(lines)
    yield [b"".join(rest).decode(encoding, "surrogateescape")], number, True


class _TwiceError(ValueError):
    """A key stands twice in one object."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):  # one of the two values would be lost
        names = [name for name, _ in pairs]
        raise _TwiceError(f"key {quoted(max(names, key=names.count))} is there twice")
    return value


def _objects(numbers: Sequence[int], lines: Sequence[str], *, is_last: bool, faults: Faults) -> JsonPart:
    # All lines at once, with a word between them that no line can know: then every line is one value by itself.
    mark = secrets.token_hex(8)
    text = "[" + f',"{mark}",'.join(lines) + "]"
    try:
        values = json.loads(text, object_pairs_hook=_object) if _is_utf8(text) else []
    except (ValueError, RecursionError):
        values = []
    objects, between = values[::2], values[1::2]
    alone = len(values) == 2 * len(lines) - 1 and all(map(mark.__eq__, between))
    if not alone or not set(map(type, objects)) <= {dict}:
        parsed = [_line(line, number, faults, is_last) for number, line in zip(numbers, lines, strict=True)]
        numbers = [number for number, value in zip(numbers, parsed, strict=True) if value is not None]
        objects = [value for value in parsed if value is not None]
    return JsonPart(objects, np.array(numbers, dtype=np.int64))


def _not_json(error: ValueError | RecursionError, line: str, is_last: bool) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return f"not JSON ({of_json(error)})"
    open_text = error.msg.startswith("Unterminated")
    if is_last and line.lstrip().startswith("{") and (open_text or not line[error.pos :].strip()):
        return "the file is cut short in this line"
    return f"not JSON ({error.msg} at column {error.colno})"


def _line(line: str, number: int, faults: Faults, is_last: bool) -> dict[str, object] | None:
    """Return the object in a line, or None where there is a fault, which is added."""
    label = f"line {number}"
    if (bad := _UNDECODED.search(line)) is not None:
        _add_undecoded(faults, bad[0], number)
        return None
    try:
        value = json.loads(line, object_pairs_hook=_object)
    except _TwiceError as error:
        faults.add(f"{error}; remove one", row=number, label=label)
        return None
    except (ValueError, RecursionError) as error:
        faults.add(_not_json(error, line, is_last), row=number, label=label)
        return None
    if not isinstance(value, dict):
        name = {list: "array", str: "text", bool: "truth value", type(None): "null"}.get(type(value), "number")
        faults.add(f"a JSON {name} where one object a line is expected", row=number, label=label)
        return None
    return value
