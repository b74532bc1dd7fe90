"""Files written whole or not at all, their checksums, and where results are kept between runs."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not a POSIX system: what would be locked may be computed twice, never wrongly
    fcntl = None  # type: ignore[assignment]


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Args:
        path: the file; its directory is made where missing.
        write: writes the content to the temporary path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)  # mkstemp makes it private
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes, and other threads, wait for; the end of the process gives it back.

    Args:
        path: an empty file that stands for what is locked. It is left there: removing it would let two in.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_directory() -> Path:
    """Return where results are shared between runs: ``$COPL_CACHE``, else ``copl`` in the user's cache directory."""
    if "COPL_CACHE" in os.environ:
        return Path(os.environ["COPL_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "copl"
