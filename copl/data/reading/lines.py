"""Files of one JSON object a line, read line by line, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from copl.data.reading.files import Faults, open_bytes
from copl.errors import DataError


def iterate_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file with their line numbers, one at a time.

    Unlike `copl.data.reading.files.read_jsonl` this never holds the file as a whole and stops at the first line that is
    wrong.

    Raises:
        DataError: a line that is not UTF-8 or not a JSON object; a file cut short.
    """
    with open_bytes(path) as file:
        number = 0
        try:
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    yield number, _object(path, number, raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: the compressed file is cut short or damaged after line {number}") from error


def _object(path: Path, number: int, raw: bytes) -> dict[str, Any]:
    faults = Faults(str(path))
    value: Any = None
    try:
        value = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        faults.add(message, row=number, label=f"line {number}")
    except (ValueError, RecursionError):
        cut = not raw.endswith(b"\n") and raw.lstrip().startswith(b"{")
        faults.add("the file is cut short in this line" if cut else "not JSON", row=number, label=f"line {number}")
    else:
        if not isinstance(value, dict):
            faults.add("not a JSON object; one object a line is expected", row=number, label=f"line {number}")
    faults.raise_any()
    found: dict[str, Any] = value
    return found
