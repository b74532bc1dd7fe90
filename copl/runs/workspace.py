"""Where stages keep their results: inside the run directory, shared between runs through a cache, keyed by inputs.

While a stage is being computed its directory is called ``<name>.partial``; a killed run finds it there and continues.
It is complete from the moment it holds a ``stage.json`` (`copl.runs.stages`), and what is left to do then, clearing
away, renaming, sharing, can be cut short and done again at any point.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import final

from copl import __version__
from copl.errors import RunError
from copl.interfaces import SCRATCH, Progress
from copl.runs.caching import lock_of_stage, place_of_stage, sweep_cache
from copl.runs.recipe import canonical_hash
from copl.runs.stages import KEY_FILE, STAGE_FILE, UNFINISHED, close_stage, read_stage, verify_stage
from copl.system.files import locked, move_directory, new_directory, sweep, write_text
from copl.system.processes import agree, is_main, num_processes, wait

_LENT = ".kept"
"""Ending of what `shared` gives for want of a cache; a run that was killed finds it again."""

_log = logging.getLogger(__name__)


def link_tree(source: Path, target: Path) -> None:
    """Copy a directory, its files shared where the disk can; whoever changes one writes it anew."""

    def link(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:  # another file system, or one without hard links
            shutil.copy2(a, b)

    shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)


@final
class RunWorkspace:
    """Keeps stages in a run directory and shares finished ones through a cache.

    A cache that is full, or that cannot be written, is told once and done without.

    Args:
        root: the run directory; it must exist.
        progress: where stages show progress.
        cache: directory shared between runs; None keeps results in the run directory alone.
        before_change: called before a stage is put into the run directory.
    """

    def __init__(
        self,
        root: Path,
        progress: Progress,
        cache: Path | None = None,
        before_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.root = root
        self.progress = progress
        self._cache = cache
        self._before_change = before_change
        self.reused: list[str] = []
        self.computed: list[str] = []
        if is_main():
            sweep(root)
            if cache is not None:
                with suppress(OSError):  # whoever needs the cache finds out what is wrong with it
                    sweep_cache(cache)

    def stage(
        self, name: str, *, key: Mapping[str, object], compute: Callable[[Path], None], together: bool = False
    ) -> Path:
        """Return the directory of a finished stage, computing it only when it is not there yet.

        Raises:
            RunError: the stage is there but damaged.
        """
        digest = canonical_hash({"stage": name, "copl": __version__, "key": key})
        if num_processes() == 1:
            self._stage(name, digest, key, compute)
        elif not together:
            if is_main():
                self._stage(name, digest, key, compute)
        elif not agree(is_main() and self._is_there(name, digest)):
            partial = self._open_partial(name, digest) if is_main() else self._partial(name)
            wait()
            if not agree(is_main() and _is_complete(partial, digest)):
                compute(partial)
            if is_main():
                # All that is left to do is to put it in place.
                self._stage(name, digest, key, lambda directory: None)
        wait()
        return self.root / name

    def take_over(self, stages: Iterable[Path]) -> None:
        """Take finished stages of another run as they are; all processes call this."""
        for stage in stages if is_main() else ():
            key = read_stage(stage).key
            place = self.root / stage.name
            if not place.exists() or verify_stage(place).key != key:
                self._before_change()
                with new_directory(place, replace=True) as fresh:
                    link_tree(stage, fresh)
            self.reused.append(stage.name)
        wait()

    def _stage(self, name: str, digest: str, key: Mapping[str, object], compute: Callable[[Path], None]) -> None:
        # whoever is first computes; runs that need the same stage at the same time wait for it
        with self._cache_lock(name, digest):
            if not self._is_there(name, digest):
                self._compute(name, digest, key, compute)
            self._publish(name, digest)

    @contextmanager
    def _cache_lock(self, name: str, digest: str) -> Iterator[None]:
        if self._cache is None:
            yield
            return
        lock = locked(lock_of_stage(self._cache, name, digest))
        try:
            lock.__enter__()
        except OSError as error:
            self._do_without_cache(error)
            yield
            return
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    def _do_without_cache(self, error: OSError) -> None:
        _log.warning(
            "copl: the cache %s cannot be used (%s: %s); results stay in %s alone",
            self._cache,
            error.filename,
            error.strerror,
            self.root,
        )
        self._cache = None

    def shared(self, name: str) -> Path:
        """Return a directory that all runs share through the cache; without one, the run's own until `tidy`."""
        if self._cache is not None:
            try:
                (self._cache / name).mkdir(parents=True, exist_ok=True)
                return self._cache / name
            except OSError as error:
                self._do_without_cache(error)
        return self.root / f"{name}{_LENT}"

    def tidy(self) -> None:
        """Take away what `shared` gave for want of a cache, once nothing more is computed."""
        for directory in self.root.glob(f"*{_LENT}"):
            shutil.rmtree(directory, ignore_errors=True)

    def _is_there(self, name: str, digest: str) -> bool:
        """Whether the stage is finished, here or in the cache; taken from there if need be."""
        place = self.root / name
        here = place.exists() and verify_stage(place).key == digest
        if not here and not self._take_from_cache(name, digest):
            return False
        shutil.rmtree(self._partial(name), ignore_errors=True)
        self.reused.append(name)
        return True

    def _partial(self, name: str) -> Path:
        return self.root / f"{name}{UNFINISHED}"

    def _compute(self, name: str, digest: str, key: Mapping[str, object], compute: Callable[[Path], None]) -> None:
        partial = self._open_partial(name, digest)
        if not _is_complete(partial, digest):
            compute(partial)
            sweep(partial)
            close_stage(partial, digest, key)
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        (partial / KEY_FILE).unlink(missing_ok=True)
        self._before_change()
        move_directory(partial, self.root / name)
        self.computed.append(name)

    def _open_partial(self, name: str, digest: str) -> Path:
        partial = self._partial(name)
        marker = partial / KEY_FILE
        continued = _is_complete(partial, digest) or (marker.is_file() and marker.read_bytes() == digest.encode())
        if partial.exists() and not continued:
            marker.unlink(missing_ok=True)  # first: what is removed in part must never be continued
            shutil.rmtree(partial)
        if not partial.exists():
            partial.mkdir(parents=True)
            write_text(marker, digest)
        return partial

    def _cached(self, name: str, digest: str) -> Path | None:
        return None if self._cache is None else place_of_stage(self._cache, name, digest)

    def _take_from_cache(self, name: str, digest: str) -> bool:
        cached = self._cached(name, digest)
        if cached is None:
            return False
        try:
            if verify_stage(cached).key != digest:
                return False
        except RunError:  # absent, or damaged: computed anew and published again
            shutil.rmtree(cached, ignore_errors=True)
            return False
        except OSError:  # not to be read
            return False
        self._before_change()
        with new_directory(self.root / name, replace=True) as fresh:
            link_tree(cached, fresh)
        return True

    def _publish(self, name: str, digest: str) -> None:
        cached = self._cached(name, digest)
        if cached is not None and not cached.exists():
            try:
                with new_directory(cached, replace=True) as fresh:
                    link_tree(self.root / name, fresh)
            except OSError as error:
                self._do_without_cache(error)


def _is_complete(partial: Path, digest: str) -> bool:
    """Whether a process was killed after it had computed all and before it had put it in place."""
    try:
        return (partial / STAGE_FILE).is_file() and verify_stage(partial).key == digest
    except RunError:
        return False
