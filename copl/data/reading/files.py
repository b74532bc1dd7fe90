"""Open files: plain or compressed, and nothing that is no ordinary file or no text in UTF-8."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from copl.errors import DataError, quoted


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed with gzip, by its name: ``.gz``."""
    return path.suffix.lower() == ".gz"


def unpacked_name(path: Path) -> Path:
    """Return what a file would be called if it were not compressed.

    >>> unpacked_name(Path("votes.csv.gz")).name, unpacked_name(Path("votes.csv")).name
    ('votes.csv', 'votes.csv')
    """
    return path.with_suffix("") if is_packed(path) else path


def unknown_kind(path: Path, known: str) -> DataError:
    """Return the fault of a file whose name does not tell its kind, or tells one that is none of those `known`.

    >>> print(unknown_kind(Path("votes.txt"), ".jsonl and .csv"))
    votes.txt: unknown kind of file '.txt'; known are .jsonl and .csv
    >>> print(unknown_kind(Path("votes"), ".jsonl and .csv"))
    votes: its name has no ending that would tell what kind of file it is; known are .jsonl and .csv
    """
    inner = unpacked_name(path).suffix
    ending = inner + path.suffix if is_packed(path) else inner
    what = (
        f"unknown kind of file {quoted(ending)}"
        if ending
        else "its name has no ending that would tell what kind of file it is"
    )
    return DataError(f"{path}: {what}; known are {known}")


def require_file(path: Path) -> None:
    """Refuse what is no ordinary file: a pipe would keep a reader waiting, a device might never end.

    Raises:
        DataError: no such file, a directory, a pipe, a socket or a device.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise DataError(f"{path}: is a directory; name a file in it")
    if path.exists():
        raise DataError(f"{path}: is a pipe or a device; save what it holds to a file and name that")
    raise DataError(f"{path}: no such file")


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacking it where its name ends in ``.gz``.

    Raises:
        DataError: see `require_file`; unreadable; a compressed file that is cut short or damaged, as soon as the block
            comes upon it.
    """
    try:
        require_file(path)
        with gzip.open(path, "rb") if is_packed(path) else path.open("rb") as file:
            yield cast("BinaryIO", file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the compressed file is cut short or damaged, or no gzip file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


@contextmanager
def open_text(path: Path) -> Iterator[BinaryIO]:
    """Open a text file in UTF-8, which is refused by its first bytes where it can be none.

    Raises:
        DataError: see `open_bytes`; the file is empty or in another encoding.
    """
    with open_bytes(path) as file:
        begin = file.read(4)
        if not begin:
            raise DataError(f"{path}: the file is empty")
        if begin.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{path}: the file is UTF-16; save it as UTF-8")
        if begin.startswith(b"\x1f\x8b"):
            raise DataError(f"{path}: this is a gzip file, not text; let its name end in .gz")
        if begin.startswith((b"PAR1", b"PK\x03\x04")):
            raise DataError(f"{path}: this is a binary file (Parquet or zip), not text")
        file.seek(0)
        yield file
