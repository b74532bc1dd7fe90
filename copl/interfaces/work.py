"""What long work is given: where to show how far it is, and where to keep what it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

SCRATCH = "scratch"
"""Directory of a stage for what it needs to continue after a kill; no part of its result."""


class Task(Protocol):
    """One piece of long work whose progress is shown."""

    def advance(self, steps: int = 1, **values: float) -> None:
        """Move on by `steps`; `values` (a loss, an accuracy) are shown beside the bar."""
        ...


class Progress(Protocol):
    """Where long work shows how far it is and leaves its curves."""

    def task(self, name: str, total: int | None = None) -> AbstractContextManager[Task]:
        """Open a task of `total` steps (unknown when None)."""
        ...

    def log(self, stage: str, **values: float | int | str) -> None:
        """Leave one record in the run's log: a point of a training curve, a count, a finding."""
        ...


class Workspace(Protocol):
    """Where a method keeps what its stages compute, so that nothing is computed twice."""

    progress: Progress

    def stage(
        self, name: str, *, key: Mapping[str, Any], compute: Callable[[Path], None], together: bool = False
    ) -> Path:
        """Return the directory of a finished stage, computing it only when it is not there yet.

        Args:
            name: directory name of the stage, such as ``graph``.
            key: everything the result depends on, as plain JSON values; equal keys share one result.
            compute: writes the result into the directory it is given. After a kill it is called again with the same
                directory and may continue from what it finds there. What it keeps for that alone goes into the
                directory `SCRATCH` there, which is removed when the stage is finished, never by `compute`.
            together: where a launcher started several processes, all of them compute, in the same directory; only the
                main one may write there. Otherwise the main one computes alone.
        """
        ...

    def shared(self, name: str) -> Path:
        """Return a directory for what is known by its content, and so serves other runs as well; it may not exist yet.

        It may be cleared at any time after `PreferenceModel.fit`; files in it that are open stay readable.
        """
        ...
