"""Where stages keep their results: inside the run directory, shared between runs through a cache, keyed by inputs.

A finished stage is a directory with a ``stage.json`` that holds its key and a checksum of each file. While a stage is
being computed its directory is called ``<name>.partial``; a killed run finds it there and continues.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from copl import __version__
from copl.errors import RunError
from copl.interfaces import Progress
from copl.runs.recipe import canonical_hash
from copl.system.files import locked, sha256, write_text
from copl.system.processes import agree, is_main, num_processes, wait

STAGE_FORMAT = 1
_STAGE_FILE = "stage.json"
_KEY_FILE = ".key"


def _files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file() and p.name not in {_STAGE_FILE, _KEY_FILE})


def verify_stage(directory: Path) -> Mapping[str, Any]:
    """Return the content of a stage's ``stage.json`` after checking every file of the stage.

    Raises:
        RunError: the stage is missing, damaged or in another format.
    """
    marker = directory / _STAGE_FILE
    if not marker.is_file():
        raise RunError(f"{directory}: not a finished stage (no {_STAGE_FILE}); run `copl train` again to complete it")
    try:
        stage: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
        files: dict[str, str] = stage["files"]
        found_format = stage["format"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise RunError(f"{marker}: damaged; delete {directory} and train again") from error
    if found_format != STAGE_FORMAT:
        raise RunError(
            f"{directory}: in stage format {found_format}, written by copl {stage.get('copl')}; this is copl "
            f"{__version__}, which reads format {STAGE_FORMAT}; train again"
        )
    faults = []
    for name, checksum in files.items():
        path = directory / name
        if not path.is_file():
            faults.append(f"{path}: missing; delete {directory} and train again")
        elif sha256(path) != checksum:
            faults.append(f"{path}: damaged (its checksum differs); delete {directory} and train again")
    if faults:
        raise RunError(faults)
    return stage


def _link_tree(source: Path, target: Path) -> None:
    def link(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:  # another file system, or one without hard links
            shutil.copy2(a, b)

    shutil.copytree(source, target, copy_function=link)


def _install(source: Path, target: Path) -> None:
    """Move a finished directory into its place, replacing what is there."""
    if target.exists():
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        os.replace(target, old / "old")
        os.replace(source, target)
        shutil.rmtree(old)
    else:
        os.replace(source, target)


@final
class RunWorkspace:
    """Keeps stages in a run directory and shares finished ones through a cache.

    Args:
        root: the run directory; it must exist.
        progress: where stages show progress.
        cache: directory shared between runs; None keeps results in the run directory alone.
    """

    def __init__(self, root: Path, progress: Progress, cache: Path | None = None) -> None:
        self.root = root
        self.progress = progress
        self._cache = cache
        self.reused: list[str] = []
        self.computed: list[str] = []
        self._lent: set[Path] = set()

    def stage(
        self, name: str, *, key: Mapping[str, Any], compute: Callable[[Path], None], together: bool = False
    ) -> Path:
        """Return the directory of a finished stage, computing it only when it is not there yet.

        Raises:
            RunError: the stage is there but damaged.
        """
        digest = canonical_hash({"stage": name, "copl": __version__, "key": key})
        if num_processes() == 1:
            return self._stage(name, digest, key, compute)
        final_place = self.root / name
        if not together:
            if is_main():
                self._stage(name, digest, key, compute)
        elif not agree(is_main() and self._is_there(name, digest)):
            partial = self._open_partial(name, digest) if is_main() else self.root / f"{name}.partial"
            wait()
            compute(partial)
            if is_main():
                # All that is left to do is to put it in place.
                self._stage(name, digest, key, lambda directory: None)
        wait()
        return final_place

    def shared(self, name: str) -> Path:
        """Return a directory that all runs share through the cache; without one, the run's own until `tidy`."""
        if self._cache is not None:
            return self._cache / name
        self._lent.add(self.root / f"{name}.partial")
        return self.root / f"{name}.partial"

    def tidy(self) -> None:
        """Take away what `shared` gave for want of a cache, once nothing more is computed."""
        for directory in self._lent:
            shutil.rmtree(directory, ignore_errors=True)

    def _is_there(self, name: str, digest: str) -> bool:
        """Whether the stage is finished, here or in the cache; taken from there if need be."""
        final_place = self.root / name
        if final_place.exists() and verify_stage(final_place).get("key") == digest:
            self.reused.append(name)
            return True
        if self._cache is None or not self._take_from_cache(self._cache / "stages" / name / digest, final_place):
            return False
        self.reused.append(name)
        return True

    def _stage(self, name: str, digest: str, key: Mapping[str, Any], compute: Callable[[Path], None]) -> Path:
        if self._cache is None:
            return self.root / name if self._is_there(name, digest) else self._compute(name, digest, key, compute, None)
        # whoever is first computes; runs that need the same stage at the same time wait for it
        with locked(self._cache / "locks" / f"{name}-{digest}"):
            if self._is_there(name, digest):
                return self.root / name
            return self._compute(name, digest, key, compute, self._cache / "stages" / name / digest)

    def _compute(
        self, name: str, digest: str, key: Mapping[str, Any], compute: Callable[[Path], None], cached: Path | None
    ) -> Path:
        final_place = self.root / name
        partial = self._open_partial(name, digest)
        compute(partial)
        (partial / _KEY_FILE).unlink()
        files = {path.relative_to(partial).as_posix(): sha256(path) for path in _files(partial)}
        stage = {"format": STAGE_FORMAT, "copl": __version__, "key": digest, "inputs": key, "files": files}
        write_text(partial / _STAGE_FILE, json.dumps(stage, indent=1, sort_keys=True) + "\n")
        _install(partial, final_place)
        self.computed.append(name)
        if cached is not None:
            self._publish(final_place, cached)
        return final_place

    def _open_partial(self, name: str, digest: str) -> Path:
        partial = self.root / f"{name}.partial"
        marker = partial / _KEY_FILE
        if partial.exists() and not (marker.is_file() and marker.read_text(encoding="utf-8") == digest):
            shutil.rmtree(partial)
        if not partial.exists():
            partial.mkdir(parents=True)
            write_text(marker, digest)
        return partial

    def _take_from_cache(self, cached: Path, final_place: Path) -> bool:
        try:
            verify_stage(cached)
        except RunError:  # absent or damaged: compute it anew and publish over it
            return False
        fresh = Path(tempfile.mkdtemp(dir=self.root, prefix=f".{final_place.name}."))
        _link_tree(cached, fresh / "new")
        _install(fresh / "new", final_place)
        fresh.rmdir()
        return True

    def _publish(self, final_place: Path, cached: Path) -> None:
        cached.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=cached.parent, prefix=".new."))
        _link_tree(final_place, fresh / "new")
        if cached.exists():
            shutil.rmtree(cached)
        try:
            os.replace(fresh / "new", cached)
        except OSError:  # another run published the same stage in between
            shutil.rmtree(fresh / "new")
        fresh.rmdir()
