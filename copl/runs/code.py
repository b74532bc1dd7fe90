"""The code that the results of a component depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

from copl.hookspecs import Place


@cache
def _package_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def code_digest(build: Callable[..., object]) -> str:
    """Return a digest of the package that defines `build`; of a `functools.partial`, what it wraps.

    It is part of every stage key, so that someone who edits a component never gets the result of yesterday's code.
    """
    while isinstance(build, partial):
        build = build.func
    module = build.module if isinstance(build, Place) else getattr(build, "__module__", "") or type(build).__module__
    spec = find_spec(module.partition(".")[0]) if module and module != "__main__" else None
    if spec is None or spec.origin is None:
        return "unknown"
    return _source_digest(Path(spec.origin))


def modules_digest(*modules: str) -> str:
    """Return a digest of the source of modules and of packages with all that is in them, by their names.

    For results that outlive an upgrade of everything else, such as what a backbone made of texts.
    """
    origins = [spec.origin for spec in map(find_spec, modules) if spec is not None and spec.origin is not None]
    return hashlib.sha256(" ".join(_source_digest(Path(origin)) for origin in origins).encode()).hexdigest()[:16]


def _source_digest(origin: Path) -> str:
    if origin.name == "__init__.py":
        return _package_digest(origin.parent)
    return hashlib.sha256(origin.read_bytes()).hexdigest()[:16] if origin.is_file() else "unknown"
