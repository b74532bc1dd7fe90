"""Ways to show progress: bars on a terminal, plain lines in a log, nothing in a library; all may keep a JSONL log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, final

from copl.errors import RunError, one_line
from copl.system.documents import parse_document, to_json
from copl.system.files import write_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from copl.interfaces import Task


def _values(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


Values: TypeAlias = Mapping[str, float | int | str]
"""A record of the log."""


@final
class RunLog:
    """Appends records to a JSONL file, each as a line of its own even where a kill has cut the one before short."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._begun = False

    def write(self, stage: str, values: Values) -> None:
        if self.path is not None:
            line = to_json({"time": round(time.time(), 3), "stage": stage, **_finite(values)}) + "\n"
            with self.path.open("ab") as file:
                file.write(line.encode() if self._begun or file.tell() == 0 else b"\n" + line.encode())
            self._begun = True


def _finite(values: Values) -> dict[str, float | int | str]:
    """Leave out numbers that JSON does not have, such as the loss before the first step."""
    return {name: v for name, v in values.items() if not isinstance(v, float) or math.isfinite(v)}


def read_log(path: Path) -> list[Values]:
    """Return the records of a run's log, in order.

    Lines that are none, as a kill leaves them, are skipped, and so are those that say what an earlier one has said, but
    for times: what a run that was killed had computed and not kept is computed, and written, once more.
    """
    records: dict[str, Values] = {}
    if path.is_file():
        for line in path.read_bytes().splitlines():
            try:
                record = parse_document(line, _RECORD, where="", advice="")
            except RunError:
                continue
            records.setdefault(to_json({key: said for key, said in record.items() if key not in _TIMES}), record)
    return list(records.values())


_TIMES = frozenset({"time", "seconds"})


_RECORD: type[Values] = Mapping[str, float | int | str]  # type: ignore[type-abstract]  # cattrs makes a dict of it


@final
class SilentProgress:
    """Shows nothing; keeps the log where one is given."""

    def __init__(self, log: RunLog | None = None) -> None:
        self._log = log or RunLog()

    def task(self, name: str, total: int | None = None) -> AbstractContextManager[Task]:
        return _silent_task()

    def log(self, stage: str, **values: float | int | str) -> None:
        self._log.write(stage, values)


class _SilentTask:
    def advance(self, steps: int = 1, **values: float) -> None:
        pass


@contextmanager
def _silent_task() -> Iterator[Task]:
    yield _SilentTask()


@final
class LineProgress:
    """Prints a plain line when a task begins, about every `interval` seconds, and when it ends."""

    def __init__(self, write: Callable[[str], None], log: RunLog | None = None, interval: float = 15.0) -> None:
        self._write = write
        self._log = log or RunLog()
        self._interval = interval

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Task]:
        line = _LineTask(name, total, self._write, self._interval)
        yield line
        line.finish()

    def log(self, stage: str, **values: float | int | str) -> None:
        self._log.write(stage, values)
        if "finding" in values:
            self._write(f"{stage}: {values['finding']}")


@final
class _LineTask:
    def __init__(self, name: str, total: int | None, write: Callable[[str], None], interval: float) -> None:
        self._name, self._total, self._write, self._interval = name, total, write, interval
        self._done = 0
        self._start = self._shown = time.monotonic()
        self._values: dict[str, float] = {}

    def advance(self, steps: int = 1, **values: float) -> None:
        self._done += steps
        self._values.update(values)
        now = time.monotonic()
        if now - self._shown >= self._interval:
            self._shown = now
            of = f"/{self._total}" if self._total else ""
            self._write(f"{self._name}: {self._done}{of}  {_values(self._values)}".rstrip())

    def finish(self) -> None:
        seconds = time.monotonic() - self._start
        self._write(f"{self._name}: done in {seconds:.1f} s  {_values(self._values)}".rstrip())


@final
class NotedProgress:
    """Keeps in a file what is being done, for another process to tell of, and the log where one is given."""

    def __init__(self, note: Path, log: RunLog | None = None, interval: float = 5.0) -> None:
        self._note = note
        self._log = log or RunLog()
        self._interval = interval

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Task]:
        self._write(name)
        yield _LineTask(name, total, self._write, self._interval)

    def log(self, stage: str, **values: float | int | str) -> None:
        self._log.write(stage, values)

    def _write(self, line: str) -> None:
        write_text(self._note, line)


@final
class BarProgress:
    """Shows bars on a terminal; use as a context manager."""

    def __init__(self, console: Console, log: RunLog | None = None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._log = log or RunLog()
        self._bars: RichProgress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[values]}", style="dim", markup=False),
            console=console,
        )

    def __enter__(self) -> BarProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Task]:
        handle = self._bars.add_task(one_line(name), total=total, values="")
        yield _BarTask(self._bars, handle)
        done = int(self._bars.tasks[self._bars.task_ids.index(handle)].completed)
        self._bars.update(handle, total=total or done, completed=total or done)

    def log(self, stage: str, **values: float | int | str) -> None:
        self._log.write(stage, values)
        if "finding" in values:
            self._bars.console.print(one_line(f"{stage}: {values['finding']}"), markup=False, highlight=False)


@final
class _BarTask:
    def __init__(self, bars: RichProgress, handle: TaskID) -> None:
        self._bars, self._handle = bars, handle
        self._values: dict[str, float] = {}

    def advance(self, steps: int = 1, **values: float) -> None:
        self._values.update(values)
        self._bars.update(self._handle, advance=steps, values=_values(self._values))
