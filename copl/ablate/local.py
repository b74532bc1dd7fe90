"""The local engine: cells one after another in this process, or side by side in processes that share the cores."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import IO, final

from copl.ablate.cells import Cell, Outcome, record_failure, run_cell

Report = Callable[[Cell, Outcome], None]
"""Told of each cell as it ends."""

_TRIES = 2
"""How often a cell is started whose process dies, as it does when memory runs out."""


def run_here(cells: Sequence[Cell], report: Report) -> None:
    """Run cells one after another in this process."""
    for cell in cells:
        report(cell, run_cell(cell))


def run_side_by_side(cells: Sequence[Cell], num_jobs: int, report: Report) -> None:
    """Run cells in `num_jobs` processes; one that dies is replaced and its cell tried once more.

    Each process takes an equal share of the cores. Cells that are likely to share a stage (same data, same seed) are
    kept apart while there are others, so that none has to wait for another.
    """
    queue = _Queue(cells)
    outcomes: SimpleQueue[tuple[Cell, Outcome] | BaseException] = SimpleQueue()
    workers = [_Worker(queue, outcomes, _threads(num_jobs)) for _ in range(min(num_jobs, len(cells)))]
    try:
        for worker in workers:
            worker.start()
        for _ in cells:
            ended = outcomes.get()
            if isinstance(ended, BaseException):
                raise ended
            report(*ended)
    finally:
        for worker in workers:
            worker.stop()


def _threads(num_jobs: int) -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(asked) if asked.isdigit() and int(asked) else len(os.sched_getaffinity(0))
    return max(1, cores // num_jobs)


@final
class _Queue:
    """Hands out cells; of those that wait, first one that shares neither data nor seed with what is running."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._waiting = list(cells)
        self._running: list[Cell] = []
        self._lock = threading.Lock()

    def take(self) -> Cell | None:
        with self._lock:
            busy = {(cell.data, cell.seed) for cell in self._running}
            free = [cell for cell in self._waiting if (cell.data, cell.seed) not in busy]
            cell = next(iter(free or self._waiting), None)
            if cell is not None:
                self._waiting.remove(cell)
                self._running.append(cell)
            return cell

    def done(self, cell: Cell) -> None:
        with self._lock:
            self._running.remove(cell)

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()


@final
class _Worker(threading.Thread):
    """Feeds one process with cells, and starts another when it dies."""

    def __init__(
        self, queue: _Queue, outcomes: SimpleQueue[tuple[Cell, Outcome] | BaseException], num_threads: int
    ) -> None:
        super().__init__(daemon=True)
        self._queue, self._outcomes, self._num_threads = queue, outcomes, num_threads
        self._process: subprocess.Popen[str] | None = None
        self._messages: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop
        self._stopping = False

    def run(self) -> None:
        try:
            while (cell := self._queue.take()) is not None and not self._stopping:
                outcome = self._run(cell)
                self._queue.done(cell)
                if not self._stopping:
                    self._outcomes.put((cell, outcome))
        except BaseException as error:  # noqa: BLE001  # a bug in here must reach the main thread, not hang it
            self._outcomes.put(error)

    def _run(self, cell: Cell) -> Outcome:
        code = 0
        for _ in range(_TRIES):
            process = self._process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(cell.to_json() + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if answer:
                return Outcome.from_json(answer)
            code = _ended(process)
            self._process = None
            if self._stopping:
                return Outcome(("stopped",))
        end = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended with code {code}"
        return record_failure(cell, Outcome((f"its process {end}, {_TRIES} times",), self._last_words()))

    def _start(self) -> subprocess.Popen[str]:
        share = str(self._num_threads)
        return subprocess.Popen(
            [sys.executable, "-m", "copl.ablate.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share},
        )

    def _last_words(self) -> str:
        self._messages.seek(0)
        return self._messages.read().decode("utf-8", "replace")[-4000:]

    def stop(self) -> None:
        """End the process; the cell it works on stays as it is and is taken up by the next run."""
        self._stopping = True
        self._queue.clear()
        process = self._process
        if process is not None:
            process.kill()
        if self.ident is not None:
            self.join(timeout=10)
        if process is not None:
            _ended(process)
        self._messages.close()


def _ended(process: subprocess.Popen[str]) -> int:
    """Wait for a process that ends, and return its code."""
    code = process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # what it was sent and never read
                pipe.close()
    return code
