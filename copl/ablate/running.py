"""What the cells of a study are doing while none of them ends: a line a minute, whatever engine runs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from copl.ablate.cells import Cell

_EVERY = 60.0
_AT_ONCE = 3


@contextmanager
def telling_what_runs(cells: Sequence[Cell], say: Callable[[str], None], *, every: float = _EVERY) -> Iterator[None]:
    """Say what cells are doing, from time to time while the block runs.

    Args:
        cells: cells that may be running.
        say: told of it.
        every: seconds between two lines.
    """
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(every):
            if line := what_runs(cells):
                say(line)

    thread = threading.Thread(target=tell, name="what runs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def what_runs(cells: Sequence[Cell]) -> str:
    """Return what the running cells are doing, in one line; nothing where none is running."""
    parts = [f"{cell}: {note}" for cell in cells if (note := _note_of(cell))]
    more = f"; and {len(parts) - _AT_ONCE} more" if len(parts) > _AT_ONCE else ""
    return f"running: {'; '.join(parts[:_AT_ONCE])}{more}" if parts else ""


def _note_of(cell: Cell) -> str:
    try:
        return cell.note_file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:  # it does not run, or has just ended
        return ""
