"""Files that a command may write to: neither what it reads, nor a part of a run or of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from copl.errors import DataError

_PARTS: Mapping[str, frozenset[str] | None] = {
    "stage.json": None,
    "run.json": frozenset(
        ["run.json", "config.toml", "log.jsonl", "metrics.json", "reference.json", "learnt.safetensors", "report.html"]
    ),
    "dataset.json": frozenset(
        ["dataset.json", *(f"{name}.parquet" for name in ("comparisons", "judgements", "responses", "users"))]
    ),
}
"""Files of our own directories, by the file that tells such a directory; None for all that lies in it."""

_DEPTH = 4
"""Directories above a file that are looked at: the stages of a run have such as ``reward/adapter``."""


def check_target(path: Path, *inputs: Path) -> None:
    """Refuse to write over what is read, what is no file, or a file of a run or of a data set, before it is computed.

    Raises:
        DataError: the target is such a file, a directory, or a device.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a directory; name a file")
    if path.exists() and not path.is_file():  # such as /dev/null, which a file would take the place of
        raise DataError(f"{path}: is no ordinary file; name one, which is written whole or not at all")
    for given in inputs:
        if path.exists() and given.exists() and path.samefile(given):
            raise DataError(f"{path}: is what is read; choose another file for the output")
    whole = path.resolve()
    for directory in whole.parents[:_DEPTH]:
        for marker, names in _PARTS.items():
            if (directory / marker).is_file() and (
                names is None or (whole.parent == directory and whole.name in names)
            ):
                raise DataError(f"{path}: belongs to {directory}, which would be damaged; choose another file")
