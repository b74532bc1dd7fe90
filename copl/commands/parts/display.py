"""What a person sees: tables, colours and bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from copl.errors import one_line
from copl.system.processes import is_main

_UNSHOWN = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

if TYPE_CHECKING:
    from rich.console import Console

    from copl.evaluate.tables import Table
    from copl.interfaces import Progress


def console() -> Console:
    """Return the console for results, on standard output."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def say(text: str) -> None:
    """Print a line for the person; it goes to standard error so that standard output holds results alone.

    Where nobody can be told, on a full disk, the work goes on.
    """
    try:
        print(one_line(text), file=sys.stderr, flush=True)
    except BrokenPipeError:  # whoever listened has ended the program
        raise
    except OSError:
        pass


def show_text(text: str) -> None:
    """Print a text of several lines as a result; control characters of what is quoted become escapes."""
    print("\n".join(map(one_line, text.split("\n"))))


def show_json(value: object) -> None:
    """Print a value as JSON for a script; characters that would move a terminal's cursor are escapes in it."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    print("\n".join(_UNSHOWN.sub(lambda match: f"\\u{ord(match[0]):04x}", line) for line in text.split("\n")))


def show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: drawn on a terminal, aligned columns otherwise."""
    from copl.evaluate.tables import Table

    show(Table(title, tuple(header), tuple(tuple(row) for row in rows)))


def show(table: Table) -> None:
    """Print a table: drawn on a terminal, aligned columns otherwise."""
    from copl.evaluate.tables import to_rich, to_text

    out = console()
    if out.is_terminal:
        out.print(to_rich(table))
    else:
        print(to_text(table))


@contextmanager
def open_progress(log: Path | None) -> Iterator[Progress]:
    """Open bars on a terminal, plain lines elsewhere; the log is kept in the file given."""
    from copl.system.progress import BarProgress, LineProgress, RunLog, SilentProgress

    if not is_main():
        yield SilentProgress()
        return
    if sys.stderr.isatty():
        from rich.console import Console

        with BarProgress(Console(stderr=True), RunLog(log)) as bars:
            yield bars
    else:
        write: Callable[[str], None] = say
        yield LineProgress(write, RunLog(log))
