"""Training curves sent to experiment trackers, by Accelerate's adapters for them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from copl.errors import OptionsError, suggest
from copl.system.processes import is_main

_PROJECT = "copl"


@final
class Trackers:
    """The experiment trackers that a run reports to; the main process alone does.

    Args:
        names: of the trackers, such as ``tensorboard``.
        directory: where those write that write files, unless ``TENSORBOARD_LOGGING_DIR`` says another place.
        settings: what to keep of the run beside its curves.

    Raises:
        OptionsError: a tracker is unknown or not installed.
    """

    def __init__(self, names: Sequence[str], directory: Path, settings: Mapping[str, Any]) -> None:
        self._trackers: list[Any] = []
        if not names:
            return
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

        installed = {str(name) for name in get_available_trackers()}
        faults = [
            f"reward.report_to: {name} is not installed"
            if name in LOGGER_TYPE_TO_CLASS
            else f"reward.report_to: unknown tracker {name!r}{suggest(name, map(str, LOGGER_TYPE_TO_CLASS))}"
            for name in names
            if name not in installed
        ]
        if faults:
            raise OptionsError(faults)
        if is_main():
            place = os.environ.get("TENSORBOARD_LOGGING_DIR") or str(directory)
            for name in names:
                kind = LOGGER_TYPE_TO_CLASS[name]
                tracker = kind(_PROJECT, place) if kind.requires_logging_directory else kind(_PROJECT)
                tracker.start()
                tracker.store_init_configuration(dict(settings))
                self._trackers.append(tracker)

    def log(self, step: int, **values: float) -> None:
        """Send values of a step."""
        for tracker in self._trackers:
            tracker.log(values, step=step)

    def finish(self) -> None:
        """Close them."""
        for tracker in self._trackers:
            tracker.finish()
