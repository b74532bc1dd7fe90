"""What a command says when a person ends it with Ctrl-C: one line on what is kept, exit code 130, no traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from copl.commands.parts.display import say
from copl.errors import CoplError
from copl.system.processes import is_main


@contextmanager
def interruptible(kept: Callable[[], str]) -> Iterator[None]:
    """Turn an interrupt of the block into one line on standard error and exit code 130.

    What goes wrong while an interrupt is on its way is that interrupt: where it meets a file that was closed a moment
    ago, as when a tree of files is removed (`shutil.rmtree`), that file is closed once more, which is an error.

    Args:
        kept: says what is kept and how to go on; an empty text where there is nothing to say. Asked only when needed.
    """
    try:
        yield
    except (KeyboardInterrupt, CoplError, OSError) as error:
        if not _comes_of_interrupt(error):
            raise
        if is_main():  # a launcher interrupts every process of a run, one of them speaks
            say("; ".join(filter(None, ("copl: interrupted", kept()))))
        raise typer.Exit(130) from None


def _comes_of_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def kept_of_run(root: Path) -> str:
    """Say which stages of a run directory a further `copl train` finds finished, and which begun."""
    finished = sorted(path.parent.name for path in root.glob("*/stage.json"))
    begun = sorted(path.name.removesuffix(".partial") for path in root.glob("*.partial") if any(path.glob("[!.]*")))
    kept = [*finished, *(f"what there is of {name}" for name in begun)]
    if not kept:
        return "no stage was finished, the same command begins again"
    return f"kept in {root}: {', '.join(kept)}; the same command goes on from there"
