"""A process of the local engine: reads a cell a line, runs it, answers with its outcome a line.

It ends when its input does, in the middle of a cell if need be: whoever started it is gone then.
"""

from __future__ import annotations

import os
import sys
import threading
from queue import SimpleQueue
from typing import TextIO

from copl.ablate.cells import Cell, run_cell


def main() -> None:
    """Serve cells until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what components print must not come between the answers
    serve(sys.stdin, answers)


def serve(lines: TextIO, answers: TextIO) -> None:
    """Run the cell of each line and write its outcome."""
    cells: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines, cells), daemon=True).start()
    while True:
        outcome = run_cell(Cell.from_json(cells.get()))
        answers.write(outcome.to_json() + "\n")
        answers.flush()


def _read(lines: TextIO, cells: SimpleQueue[str]) -> None:
    for line in lines:
        cells.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
