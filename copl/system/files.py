"""Files and directories written whole or not at all, locks, checksums, and where results are kept between runs.

What is being written lies in a scratch directory beside its place, ``.NAME.copl-tmp``, which whoever writes holds
locked. A process that was killed leaves it unlocked, and the next one that writes into the same directory, or `sweep`,
clears it away.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system: what would be locked may be computed twice, never wrongly
    fcntl = None  # type: ignore[assignment]

_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""Errors of writing that name no file."""

SCRATCH_SUFFIX = ".copl-tmp"
"""How the name of a scratch directory ends; nothing below one is part of any result."""

_checksums: dict[tuple[int, int, int, int], str] = {}
"""Of files that this process has read, by device, inode, size and time of change."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part; who may read it is up to umask.

    Args:
        path: the file; its directory is made where missing.
        write: writes the content to the temporary path it is given, whose ending is that of `path`.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    with scratch_beside(path) as scratch:
        temporary = scratch / path.name
        write(temporary)
        temporary.chmod(scratch.stat().st_mode & 0o666)  # some libraries make files that nobody else may read
        temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def new_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a directory to fill; when the block ends without an error it takes its place at `path`.

    Args:
        path: where it goes; must not exist or be an empty directory. Its parents are made where missing.
        replace: remove the directory that is there, once the new one is complete; a process killed at that moment
            leaves neither.

    Raises:
        OSError: it cannot be written, or `path` holds something by now; the error names `path`.
    """
    with scratch_beside(path) as scratch:
        # what takes the place of nothing is the scratch directory itself, so that a kill leaves none beside it
        filling = scratch / "new" if replace else scratch
        filling.mkdir(exist_ok=True)
        yield filling
        if path.is_dir():
            if not replace and not is_free(path):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
            sweep(path)
        if replace and path.exists():
            path.replace(scratch / "old")
        filling.replace(path)  # takes the place of an empty directory, too


def move_directory(source: Path, target: Path) -> None:
    """Put a directory in the place of another, which is removed; `source` is there as long as `target` is not.

    Raises:
        OSError: it cannot be done; the error names `target`.
    """
    with scratch_beside(target) as scratch:
        if target.exists():
            target.replace(scratch / "old")
        source.replace(target)


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """Give an empty directory beside `path` that no other process writes to, and remove it in the end.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    path = path if path.name not in ("", "..") else path.resolve()
    scratch = path.with_name(f".{path.name}{SCRATCH_SUFFIX}")
    try:
        _make_parents(path)
        sweep_directory(path.parent)
        with locked_directory(scratch) as handle:
            for left in scratch.iterdir():  # by a process that was killed
                _remove(left)
            try:
                yield scratch
            finally:
                if _is_at(handle, scratch):  # it may be the result by now, and what is there somebody else's
                    shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        file = None if error.filename is None else Path(os.fsdecode(error.filename))
        if error.errno in _OF_THE_DISK if file is None else is_scratch(file):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _make_parents(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from error


@contextmanager
def locked_directory(path: Path) -> Iterator[int]:
    """Make a directory and hold it locked, for which others wait; gives the handle of the lock.

    Whoever removes or renames what others lock in this way holds it.
    """
    while True:
        path.mkdir(exist_ok=True)
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # removed in between
            continue
        try:
            _lock(handle)
            if _is_at(handle, path):
                yield handle
                return
        finally:
            os.close(handle)


def _lock(handle: int, *, wait: bool = True) -> bool:
    """Lock an open file or directory; return whether that worked, which it always does where locks are unknown."""
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_free(path: Path) -> bool:
    """Return whether a new directory may go there: nothing is there, or an empty directory."""
    return not (path.exists() or path.is_symlink()) or (path.is_dir() and all(map(is_scratch, path.iterdir())))


def is_scratch(path: Path) -> bool:
    """Return whether a path is what is being written, or lies in it, or was left by a process that was killed."""
    return any(part.startswith(".") and part.endswith(SCRATCH_SUFFIX) for part in path.parts)


def sweep(directory: Path) -> None:
    """Remove what killed processes left anywhere below a directory; what living ones write stays."""
    for place, _, _ in os.walk(directory):  # which is not disturbed by what others remove meanwhile
        sweep_directory(Path(place))


def sweep_directory(directory: Path) -> None:
    """Remove what killed processes left in a directory, but for what lies deeper; what living ones write stays."""
    _sweep(directory.glob(f".*{SCRATCH_SUFFIX}"))


def _sweep(places: Iterable[Path]) -> None:
    for scratch in places:
        try:
            handle = os.open(scratch, os.O_RDONLY)
        except OSError:  # inside another one that is gone, or somebody else's
            continue
        try:
            if _is_unlocked(handle) and _is_at(handle, scratch):
                shutil.rmtree(scratch, ignore_errors=True)
        finally:
            os.close(handle)


def _is_unlocked(handle: int) -> bool:
    """Lock an open directory if nobody has; where locks are unknown it counts as locked."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, AttributeError):
        return False
    return True


def files_below(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield each file below a directory and what the system says of it; what others remove meanwhile is left out."""
    for place, _, names in os.walk(directory):
        for name in sorted(names):
            try:
                yield (path := Path(place, name)), path.stat()
            except OSError:
                continue


class HeldError(Exception):
    """A lock is held by somebody else, whose own words are in `holder`."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


@contextmanager
def held(path: Path, words: str) -> Iterator[None]:
    """Hold a lock that nobody waits for, until the block, or the process, ends.

    Args:
        path: file of the lock; it is there only while somebody holds it, or was killed holding it.
        words: what others are told who want it meanwhile.

    Raises:
        HeldError: somebody else holds it.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(handle, wait=False):
                raise HeldError(os.read(handle, 1000).decode("utf-8", "replace"))
            if not _is_at(handle, path):  # its holder has just removed it
                continue
            os.truncate(handle, 0)
            os.write(handle, words.encode())
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes, and other threads, wait for; the end of the process gives it back.

    Args:
        path: an empty file that stands for what is locked. It is left there: removing it would let two in.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        _lock(file.fileno())
        yield


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(path: Path) -> str:
    """Return the SHA-256 checksum of a file; one that is as it was when this process last asked is not read again."""
    about = path.stat()
    key = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    if key not in _checksums:
        _checksums[key] = sha256(path)
    return _checksums[key]


def cache_directory() -> Path:
    """Return where results are shared between runs: ``$COPL_CACHE``, else ``copl`` in the user's cache directory."""
    own = os.environ.get("COPL_CACHE", "").strip()
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "").strip() or Path.home() / ".cache") / "copl"
