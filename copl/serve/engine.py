"""The one thread that touches the model: a bounded queue, and everything that waits there in one batch.

Nothing of torch runs anywhere else, least of all on the event loop. While the model works, requests of all dialects
wait; then all of them are scored together, by one model, so that an answer never mixes two.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, final

from attrs import define, field, frozen

from copl.system.abreast import compute_abreast

if TYPE_CHECKING:
    from copl.serve.served import Asked, Rewarded, Served

_NICENESS = 5
_FEW = 64
"""Texts; fewer at once take longer each."""

Observe: TypeAlias = Callable[[float, float, int], None]
"""Is told of a batch: seconds its first request waited, seconds it took, number of texts."""


@final
class OverloadedError(Exception):
    """Too much waits already, or there is no model yet.

    Args:
        reason: one line.
        retry_after: seconds after which to ask again.
    """

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


@final
@define(eq=False)
class _Job:
    """Something to do: texts to be scored, or anything else that needs the model."""

    size: int
    asked: tuple[Asked, ...] = ()
    call: Callable[[Served], Any] | None = None
    future: Future[Any] = field(factory=lambda: Future[Any]())
    since: float = field(factory=time.monotonic)


@final
@frozen
class Load:
    """What the engine has to do: requests and texts that wait."""

    num_jobs: int
    num_texts: int


@final
class Engine:
    """Scores on a thread of its own.

    Args:
        max_jobs: requests that may wait.
        max_texts: texts that are scored at once; a request with more is scored by itself.
        observe: is told of each batch.
    """

    def __init__(self, *, max_jobs: int, max_texts: int, observe: Observe = lambda waited, took, size: None) -> None:
        self._max_jobs, self._max_texts = max_jobs, max_texts
        self._observe = observe
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._served: Served | None = None
        self._stopped = False
        self._speed = 100.0
        self._last = 0
        self._thread = threading.Thread(target=self._run, name="copl-engine", daemon=True)

    @property
    def served(self) -> Served | None:
        """The model in use."""
        return self._served

    @property
    def load(self) -> Load:
        """What waits."""
        with self._changed:
            return Load(len(self._jobs), sum(job.size for job in self._jobs))

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def swap(self, served: Served) -> None:
        """Use another model from the next batch on."""
        with self._changed:
            self._served = served
            self._changed.notify()

    def stop(self) -> None:
        """Finish what waits and end."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def score(self, asked: Sequence[Asked]) -> Future[list[Rewarded]]:
        """Have texts scored, for several users where there are several, all by one model.

        Raises:
            OverloadedError: too much waits already.
        """
        return self._submit(_Job(max(sum(len(one.texts) for one in asked), 1), tuple(asked)))

    def call(self, function: Callable[[Served], Any], size: int = 1) -> Future[Any]:
        """Have something done with the model.

        Args:
            function: gets the model; runs on the engine's thread.
            size: about as many texts as that is.

        Raises:
            OverloadedError: too much waits already.
        """
        return self._submit(_Job(size, call=function))

    def _submit(self, job: _Job) -> Future[Any]:
        with self._changed:
            if self._stopped:
                raise OverloadedError("the service is being stopped", 1)
            if self._served is None:
                raise OverloadedError("the model is being loaded", 1)
            if len(self._jobs) >= self._max_jobs:
                waiting = sum(job.size for job in self._jobs)
                seconds = min(60, max(1, math.ceil(waiting / self._speed)))
                raise OverloadedError(f"{len(self._jobs)} requests wait already", seconds)
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def _run(self) -> None:
        _give_way()
        compute_abreast()
        while True:
            with self._changed:
                while not self._stopped and not (self._jobs and self._served is not None):
                    self._changed.wait()
                if not self._jobs or self._served is None:
                    return
                batch, served = self._take(), self._served
            started = time.monotonic()
            batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if not batch:
                continue
            _work(served, batch)
            took, size = time.monotonic() - started, sum(job.size for job in batch)
            self._speed = 0.9 * self._speed + 0.1 * size / max(took, 1e-3)
            self._observe(started - batch[0].since, took, size)

    def _take(self) -> list[_Job]:
        """Return what is done next: the first job, with the jobs after it that can be scored along.

        Clients that were answered come again. If all the others were taken now, everybody would be answered at once
        while next to nothing waits, and a batch of a few texts would follow each of many. So half of all is taken, and
        the other half is sent meanwhile.
        """
        waiting = sum(job.size for job in self._jobs if job.asked)
        most = min(self._max_texts, max(_FEW, (waiting + self._last) // 2))
        batch = [self._jobs.popleft()]
        size = batch[0].size
        while batch[0].asked and self._jobs:
            following = self._jobs[0]
            if not following.asked or size + following.size > most:
                break
            size += following.size
            batch.append(self._jobs.popleft())
        self._last = size if batch[0].asked else 0
        return batch


def _give_way() -> None:
    """Let whatever answers requests go before this thread, and before those that torch starts from it."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        with suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)


def _work(served: Served, batch: Sequence[_Job]) -> None:
    if len(batch) > 1:
        try:
            answers = served.rewards([one for job in batch for one in job.asked])
        except Exception:  # noqa: BLE001  # one of them is at fault; each is told of its own fault below
            pass
        else:
            for job in batch:
                _settle(job.future, answers[: len(job.asked)], None)
                answers = answers[len(job.asked) :]
            return
    for job in batch:
        try:
            result = served.rewards(job.asked) if job.call is None else job.call(served)
        except Exception as error:  # noqa: BLE001  # whoever asked is told, the thread goes on
            _settle(job.future, None, error)
        else:
            _settle(job.future, result, None)


def _settle(future: Future[object], result: object, error: Exception | None) -> None:
    try:
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
    except InvalidStateError:  # nobody waits any more
        return
