"""The `copl` program: puts the commands of `copl.commands` together."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import Annotated

# Read when torch is loaded, which no command has done yet: threads with nothing to do sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer

from copl.commands.parts.display import say
from copl.commands.parts.program import COMMANDS, Program
from copl.errors import CoplError, of_system

_BETWEEN_COLLECTIONS = 10_000
"""New objects between two searches for garbage: by Python's 700 a command that loads torch spends a third of a second
on them, and nothing that libraries define is garbage."""


def _print_version(asked: bool) -> None:
    if asked:
        from copl import __version__

        print(__version__)
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def application(first_word: str = "") -> typer.Typer:
    """Return the program: the command that the first word names, or where it names none, as for help, all of them.

    All together take longer to put together than many a command takes to run.
    """
    app = typer.Typer(
        name="copl",
        cls=Program,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Learn what each user prefers from a few comparisons, and score any response for any user.",
    )
    app.callback()(_root)
    for name in (first_word,) if first_word in COMMANDS else COMMANDS:
        module = import_module(f"copl.commands.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, rich_help_panel=COMMANDS[name])
        else:
            app.command(rich_help_panel=COMMANDS[name])(getattr(module, name))
    return app


def _open_streams() -> None:
    """Give streams that are closed from the start (``2>&-``) the null device, not the next file that is opened."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115 - as long as the program runs
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8")  # noqa: SIM115


def _require_place() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise CoplError("the current directory was removed; change into one that is there") from None


def main() -> None:
    """Run the program: a user's mistake is one line a fault on standard error and exit code 2."""
    gc.set_threshold(_BETWEEN_COLLECTIONS)
    _open_streams()
    try:
        _require_place()
        application(*sys.argv[1:2])()
    except CoplError as error:
        for fault in error.faults:
            say(f"copl: {fault}")
        sys.exit(2)
    except OSError as error:
        say(f"copl: {of_system(error)}")
        sys.exit(2)
    except KeyboardInterrupt:  # before a command was begun, or after its end
        say("copl: interrupted")
        sys.exit(130)


if __name__ == "__main__":
    main()
