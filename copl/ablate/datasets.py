"""The data sets of a study: directories as they are, and sources made once below the study's directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import attrs
from attrs import frozen

from copl.ablate.study import DataSpec, Study, source_paths
from copl.data.dataset import dataset_fingerprint, save_dataset
from copl.errors import CoplError, DataError
from copl.options import parse_options
from copl.plugins import Plugins
from copl.runs.recipe import Choice, canonical_hash
from copl.system.files import locked


@final
@frozen
class DataAt:
    """A data set that is there.

    Attributes:
        name: what it is called in tables.
        directory: where it is.
        fingerprint: equal exactly when the files are.
    """

    name: str
    directory: Path
    fingerprint: str


def prepare(study: Study, out: Path, plugins: Plugins, say: Callable[[str], None]) -> Mapping[tuple[str, int], DataAt]:
    """Return every data set by name and seed of the study, making those that are not there yet.

    Raises:
        DataError: one fault, or several, for each data set that cannot be made; nothing has been trained then.
    """
    prepared: dict[tuple[str, int], DataAt] = {}
    faults: list[str] = []
    for spec in study.data:
        try:
            for seed in study.seeds:
                directory = spec.directory or _made(spec, seed, study, out, plugins, say)
                prepared[spec.name, seed] = DataAt(spec.name, directory, dataset_fingerprint(directory))
        except CoplError as error:
            faults += [f"data {spec.name!r}: {fault}" for fault in error.faults]
    if faults:
        raise DataError(faults)
    return prepared


def _made(spec: DataSpec, seed: int, study: Study, out: Path, plugins: Plugins, say: Callable[[str], None]) -> Path:
    registered = plugins.registry("source").get(spec.source)
    options: Any = parse_options(registered.component.options, spec.options, where=f"data.{spec.name}")
    paths = source_paths(options, study.root)
    options = attrs.evolve(options, **paths)
    drawn = spec.seed + seed if spec.per_seed else spec.seed
    source = Choice("source", spec.source, options, registered)
    key = {"source": source.key(), "seed": drawn, "files": {name: _stamp(path) for name, path in paths.items()}}
    directory = out / "data" / f"{spec.name}-{canonical_hash(key)[:8]}"
    with locked(directory.with_name(f".{directory.name}.lock")):
        if not directory.exists():
            say(f"making data set {spec.name} from source {spec.source}, seed {drawn}")
            save_dataset(attrs.evolve(source.build().load(seed=drawn), name=spec.name), directory)
    return directory


def _stamp(path: Path) -> list[list[Any]]:
    """Return what changes when a file, or a file in a directory, does."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [[p.relative_to(path).as_posix(), p.stat().st_size, p.stat().st_mtime_ns] for p in files]
