"""A finished stage on disk: a directory with a ``stage.json`` that holds its key and a checksum of each file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from attrs import evolve, frozen

from copl import __version__
from copl.errors import RunError
from copl.interfaces import SCRATCH
from copl.runs.recipe import canonical_hash
from copl.system.documents import read_document, write_document
from copl.system.files import checksum, is_scratch

STAGE_FORMAT = 2
STAGE_FILE = "stage.json"
KEY_FILE = ".key"
"""Holds the key of a stage that is being computed."""

FEATURES = "features"
"""Stage that holds what the backbone makes of the texts."""

EVALUATION = "evaluation"
"""Stage that holds margins, adapted users and diagnostics; no part of the fitted method."""

CANDIDATES = "candidates"
"""Stage that holds what a generator wrote to new prompts; no part of the fitted method."""

POLICY = "policy"
"""Stage that holds what users were shown and what it was worth to them; no part of the fitted method."""

_AFTERWARDS = frozenset({EVALUATION, CANDIDATES, POLICY})

UNFINISHED = ".partial"
"""Ends the name of the directory of a stage that is being computed."""


@final
@frozen(eq=False)
class Stage:
    """What ``stage.json`` says.

    Attributes:
        format: version of this format.
        copl: version that wrote it.
        key: hash of everything the stage depends on.
        inputs: what it depends on, in plain values.
        files: checksum of each file, by its path in the stage.
        seal: checksum of all of the above.
    """

    format: int
    copl: str
    key: str
    inputs: Mapping[str, Any]
    files: Mapping[str, str]
    seal: str = ""

    def sealed(self) -> Stage:
        """Return it with its seal."""
        said = [self.format, self.copl, self.key, dict(self.inputs), dict(self.files)]
        return evolve(self, seal=canonical_hash(said))


def close_stage(directory: Path, key: str, inputs: Mapping[str, object]) -> None:
    """Mark a directory as a finished stage: what lies in it now is the result."""
    paths = [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not _is_no_result(path.relative_to(directory))
    ]
    files = {path.relative_to(directory).as_posix(): checksum(path) for path in paths}
    write_document(directory / STAGE_FILE, Stage(STAGE_FORMAT, __version__, key, inputs, files).sealed())


def _is_no_result(path: Path) -> bool:
    return path.parts[0] in (STAGE_FILE, KEY_FILE, SCRATCH) or is_scratch(path)


def read_stage(directory: Path) -> Stage:
    """Return what ``stage.json`` says, without looking at the other files.

    Raises:
        RunError: the stage is missing, damaged or in another format.
    """
    marker = directory / STAGE_FILE
    if not marker.is_file():
        raise RunError(f"{directory}: not a finished stage (no {STAGE_FILE}); run `copl train` again to complete it")
    stage = read_document(marker, Stage, advice=_again(directory), version={"format": STAGE_FORMAT})
    if stage.seal != stage.sealed().seal:
        raise RunError(f"{marker}: damaged (its checksum differs); {_again(directory)}")
    return stage


def verify_stage(directory: Path) -> Stage:
    """Return what ``stage.json`` says after checking every file of the stage; one that is as it was is read once.

    Raises:
        RunError: the stage is missing, damaged or in another format.
    """
    stage = read_stage(directory)
    faults = []
    for name, expected in stage.files.items():
        path = directory / name
        if not path.is_file():
            faults.append(f"{path}: missing; {_again(directory)}")
        elif checksum(path) != expected:
            faults.append(f"{path}: damaged (its checksum differs); {_again(directory)}")
    if faults:
        raise RunError(faults)
    return stage


def fitted_stages(root: Path) -> list[Path]:
    """Return the directories of the finished stages of a run that the fitted method is made of.

    A stage that was killed after its last file and before it got its name is none of them yet.
    """
    places = (path.parent for path in root.glob(f"*/{STAGE_FILE}"))
    return sorted(place for place in places if place.name not in _AFTERWARDS and place.suffix != UNFINISHED)


def _again(directory: Path) -> str:
    return f"delete {directory} and train again"
