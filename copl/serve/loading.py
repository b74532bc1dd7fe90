"""Loads the run on a thread of its own, and whatever run takes its place later; requests are answered meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from copl.errors import CoplError, of_system

if TYPE_CHECKING:
    from copl.serve.engine import Engine

_log = logging.getLogger("copl.serve")


@final
class Loader:
    """Gives an engine its models.

    Args:
        run: the run directory; a newly trained run is moved there, or a link is set anew.
        engine: gets the models. A request that has begun is finished by the model it began with.
        seconds: between looks for another run; 0 does not look by itself.
        loaded: is called after each model.
        failed: is called when the first model cannot be loaded.
    """

    def __init__(
        self,
        run: Path,
        engine: Engine,
        *,
        seconds: float = 0.0,
        loaded: Callable[[], object] = lambda: None,
        failed: Callable[[BaseException], object] = lambda error: None,
    ) -> None:
        self.run, self._engine, self._seconds = run, engine, seconds
        self._loaded, self._failed = loaded, failed
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="copl-loader", daemon=True)
        self.previous: dict[str, Any] | None = None
        """Summary of the run before the one in use (`copl.serve.served.Served.summary`)."""

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def look(self) -> None:
        """Look for another run now."""
        self._wake.set()

    def stop(self) -> None:
        """End; what is being loaded is dropped."""
        self._stopped = True
        self._wake.set()

    def _work(self) -> None:
        try:
            self._load()
        except Exception as error:  # noqa: BLE001  # the main thread is told and ends the program
            self._failed(error)
            return
        while self._again():
            try:
                if self._is_another():
                    self._load()
            except (CoplError, OSError) as error:
                reason = of_system(error) if isinstance(error, OSError) else "; ".join(error.faults)
                _log.warning("the run there cannot be served, the one before stays: %s", reason)
            except Exception:  # noqa: BLE001  # a plugin of the new run; the one before goes on
                _log.exception("the run there cannot be served, the one before stays")

    def _again(self) -> bool:
        """Wait until it is time to look; return whether to go on."""
        self._wake.wait(self._seconds or None)
        self._wake.clear()
        return not self._stopped

    def _is_another(self) -> bool:
        """Return whether another finished run lies where the one in use did."""
        from copl.plugins import load
        from copl.runs.directory import open_run

        run = open_run(self.run, load())
        served = self._engine.served
        return run.facts.status == "finished" and (served is None or run.fingerprint != served.run)

    def _load(self) -> None:
        from copl.serve.served import open_served

        served = open_served(self.run.resolve())  # whatever a link is set to while it is in use
        if self._stopped:
            return
        before = self._engine.served
        self.previous = None if before is None else before.summary
        self._engine.swap(served)
        self._loaded()
        _log.info("serving run %s", served.run[:12])
