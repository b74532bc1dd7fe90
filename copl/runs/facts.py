"""``run.json``: what a run was made of, on which data, by which versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

from attrs import field, frozen

from copl.errors import RunError
from copl.system.documents import read_document

RUN_FORMAT = 1
RUN_FILE = "run.json"


@final
@frozen
class DataFacts:
    """The data set a run was made on.

    Attributes:
        path: where it was.
        fingerprint: equal exactly when its files are.
        everyone: whether it was learned whole, with nothing held out (`copl.data.making.everyone`).
    """

    path: str
    fingerprint: str
    everyone: bool = False


@final
@frozen
class ComponentFacts:
    """A component of a run and the package it came from."""

    name: str
    package: str
    version: str
    reference: str


@final
@frozen
class FormerFacts:
    """The run that another one went on from (``--from``).

    Attributes:
        path: where it was.
        fingerprint: of what it had fitted (`Run.fingerprint`).
        data: fingerprint of the data set it was made on.
        new: comparisons and judgements to learn from that it had not met.
        changed: those about which users have changed their minds.
        gone: those that are not there any more.
        settled_on: how many comparisons and judgements settings were chosen on; beyond that, all begins anew once.
        parts: what became of each part: ``continued``, ``unchanged``, or why it began anew; empty until it is finished.
    """

    path: str
    fingerprint: str
    data: str
    new: int
    changed: int
    gone: int
    settled_on: int
    parts: Mapping[str, str] = field(factory=dict)


@final
@frozen
class RunFacts:
    """What ``run.json`` says.

    Attributes:
        format: version of this format.
        status: whether the run is finished.
        created: when it was begun.
        command: the command line it was begun with.
        data: the data set it was made on.
        recipe: the recipe, as in ``config.toml``.
        components: by kind.
        versions: of everything a result may depend on, when it was last trained.
        seconds: how long training took; None until it is finished.
        stages: by name, whether each stage was computed or reused.
        former: the run that it goes on from, where it does.
        measured: checksum of ``metrics.json``; None until it is evaluated, and where an earlier version did that.
    """

    format: int
    status: Literal["started", "finished"]
    created: str
    command: str
    data: DataFacts
    recipe: Mapping[str, Any]
    components: Mapping[str, ComponentFacts]
    versions: Mapping[str, str]
    seconds: float | None = None
    stages: Mapping[str, str] = field(factory=dict)
    former: FormerFacts | None = None
    measured: str | None = None


def read_facts(root: Path) -> RunFacts:
    """Return what ``run.json`` says.

    Raises:
        RunError: this is no run directory, or the file is damaged or from another version.
    """
    path = root / RUN_FILE
    if not root.exists():
        raise RunError(f"{root}: no such run directory")
    if not path.is_file():
        raise RunError(f"{root}: not a run directory (it has no {RUN_FILE})")
    advice = "train again into another directory, or install the version that wrote it"
    return read_document(path, RunFacts, advice=advice, version={"format": RUN_FORMAT})
