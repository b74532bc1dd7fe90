"""What the cache that runs share holds, and clearing it.

Anything in it can be made again: stages by training once more, readings of texts by reading them, packaged backbones by
unpacking them. Files that somebody has open, or that a run links to, stay readable after they are cleared.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import final

from attrs import frozen

from copl.errors import OptionsError, quoted, suggest
from copl.system.files import files_below, locked, sweep, sweep_directory

STAGES = "stages"
TEXTS = "texts"
BACKBONES = "backbones"
_DAY = 24 * 60 * 60.0


@final
@frozen
class Entry:
    """One thing in the cache.

    Attributes:
        kind: name of the stage, or ``texts`` or ``backbones``.
        path: where it is.
        size: bytes of its files.
        age: days since its youngest file was written.
    """

    kind: str
    path: Path
    size: int
    age: float


def place_of_stage(cache: Path, name: str, key: str) -> Path:
    """Return where a cache keeps the stage of a key."""
    return cache / STAGES / name / key


def lock_of_stage(cache: Path, name: str, key: str) -> Path:
    """Return the lock that whoever puts the stage of a key there or takes it out holds."""
    return cache / "locks" / f"{name}-{key}"


def entries(cache: Path) -> list[Entry]:
    """Return what a cache holds, by kind."""
    now = time.time()
    return [_entry(kind, path, now) for kind, path in _places(cache)]


def clear(entries: Iterable[Entry], cache: Path) -> list[Entry]:
    """Remove entries and return them; a stage that a run is putting there or taking out is waited for."""
    removed = []
    for entry in entries:
        if entry.kind in (TEXTS, BACKBONES):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with locked(lock_of_stage(cache, entry.kind, entry.path.name)):
                shutil.rmtree(entry.path, ignore_errors=True)
        removed.append(entry)
    sweep_cache(cache)
    return removed


def sweep_cache(cache: Path) -> None:
    """Remove what killed processes were writing into a cache; what living ones write stays."""
    for stage in _directories(cache / STAGES):
        sweep_directory(stage)
    sweep(cache / TEXTS)
    sweep_directory(cache / BACKBONES)


def chosen(entries: Iterable[Entry], *, kind: str | None, older_than: float | None) -> list[Entry]:
    """Return the entries of a kind and of more than some days.

    Raises:
        OptionsError: nothing of that kind can be in a cache, or the number of days is none.
    """
    listed = list(entries)
    kinds = sorted({*(entry.kind for entry in listed), TEXTS, BACKBONES})
    faults = []
    if kind is not None and kind not in kinds:
        faults.append(f"--stage {quoted(kind)}: not in the cache{suggest(kind, kinds)}; there are {', '.join(kinds)}")
    if older_than is not None and not older_than >= 0:
        faults.append(f"--older-than {older_than}: a number of days from 0")
    if faults:
        raise OptionsError(faults)
    return [e for e in listed if kind in (None, e.kind) and (older_than is None or e.age > older_than)]


def _places(cache: Path) -> Iterator[tuple[str, Path]]:
    for stage in _directories(cache / STAGES):
        yield from ((stage.name, path) for path in _directories(stage))
    for kind in (TEXTS, BACKBONES):
        yield from ((kind, path) for path in _directories(cache / kind))


def _directories(place: Path) -> list[Path]:
    return sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith(".")) if place.is_dir() else []


def _entry(kind: str, path: Path, now: float) -> Entry:
    files = [about for _, about in files_below(path)]
    youngest = max((about.st_mtime for about in files), default=now)
    return Entry(kind, path, sum(about.st_size for about in files), max(0.0, now - youngest) / _DAY)
