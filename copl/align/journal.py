"""A file of lines that is written piece by piece, goes on after a kill, and appears only when it is whole.

What is there so far lies beside it in ``.NAME.part``: a first line that says what it belongs to, then the lines, each
after a checksum of all up to and with it, so that nothing but what was written there in this order is gone on from.
Whoever writes holds it locked, so that two never write the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, final

from copl.data.reading.files import require_file
from copl.errors import DataError
from copl.runs.recipe import canonical_hash
from copl.system.files import HeldError, held, write_atomically

if TYPE_CHECKING:
    from hashlib import _Hash as _Digest

_CHECKED = 17
"""Bytes before each line: its checksum and a space."""


@final
class Journal:
    """Takes the lines of a file, piece by piece.

    Attributes:
        num_kept: how many lines were there already, from an earlier try with the same key.
        num_dropped: how many lines an earlier try with another key had begun; they are gone.
    """

    def __init__(self, target: Path, part: Path, key: str, piece: int) -> None:
        self._target, self._part = target, part
        self._header = json.dumps({"copl_align": key}).encode() + b"\n"
        self._digest = hashlib.sha256(self._header)
        self.num_dropped = 0
        self.num_kept = self._take_up(piece)
        self._file: BinaryIO | None = None

    @classmethod
    @contextmanager
    def open(cls, target: Path, key: Mapping[str, object], *, piece: int) -> Iterator[Journal]:
        """Open the journal of a file, and take up what an earlier try with the same key has left.

        Args:
            target: the file.
            key: everything the lines depend on, as plain JSON values.
            piece: lines are kept in multiples of this; what goes beyond is written again.

        Raises:
            DataError: another process writes the same file.
        """
        part = target.with_name(f".{target.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with held(part.with_suffix(".lock"), f"process {os.getpid()}"):
                journal = cls(target, part, canonical_hash(key), piece)
                try:
                    yield journal
                finally:
                    journal.close()
        except HeldError as error:
            raise DataError(f"{target}: {error.holder or 'another process'} is writing it; wait for it") from None

    def _take_up(self, piece: int) -> int:
        """Cut what is there to whole pieces, and return how many lines that are; nothing of another key is kept."""
        if not self._part.exists():
            return 0
        require_file(self._part)
        lines = self._part.read_bytes().splitlines(keepends=True)
        if not lines or lines[0] != self._header:
            self.num_dropped = len(lines[1:])
            self._part.unlink()
            return 0
        digests = [self._digest]
        for line in lines[1:]:
            digest = digests[-1].copy()
            digest.update(line[_CHECKED:])
            if line[:_CHECKED] != _checksum(digest):
                break
            digests.append(digest)
        whole = len(digests) - 1
        kept = whole - whole % piece
        self._digest = digests[kept]
        with self._part.open("r+b") as file:
            file.truncate(sum(map(len, lines[: kept + 1])))
        return kept

    def add(self, lines: Iterable[str]) -> None:
        """Keep a piece of lines; once this returns, a kill does not lose them."""
        if self._file is None:
            new = not self._part.exists()
            self._file = self._part.open("ab")
            if new:
                self._file.write(self._header)
        for line in lines:
            content = f"{line}\n".encode("utf-8", "surrogatepass")
            self._digest.update(content)
            self._file.write(_checksum(self._digest) + content)
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Put the file into its place, whole."""
        self.close()

        def write(temporary: Path) -> None:
            with temporary.open("wb") as whole:
                if self._part.exists():
                    with self._part.open("rb") as part:
                        part.readline()
                        whole.writelines(line[_CHECKED:] for line in part)

        write_atomically(self._target, write)
        self._part.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; what was added stays."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _checksum(digest: _Digest) -> bytes:
    return f"{digest.hexdigest()[: _CHECKED - 1]} ".encode()
