"""What all commands share as parts of one program: how they end when they are interrupted, how their help looks."""

from __future__ import annotations

from typing import Any, final

import typer
from typer.core import TyperGroup

from copl.commands.parts.interrupts import interruptible

GROUPS = {
    "Data": ("data",),
    "Learn": ("demo", "train", "config", "adapt"),
    "Judge": ("evaluate", "report", "explain", "ablate"),
    "Use": ("ask", "score", "align", "export", "serve"),
    "Extend and look after": ("plugins", "doctor", "cache"),
}
"""Commands by what they are for, in the order of use: a module of `copl.commands` each, with a function of its name or
a group `app`."""

COMMANDS = {name: group for group, names in GROUPS.items() for name in names}
"""The group that each command stands in, in the order of the help."""


@final
class Program(TyperGroup):
    """A program whose commands, where they do not say more themselves, say that they were interrupted.

    In its help a flag stands without a type: there is no value to give; and commands stand in the order of `COMMANDS`.
    """

    def __init__(self, *args: Any, commands: dict[str, Any], **settings: Any) -> None:
        ordered = {name: commands[name] for name in COMMANDS if name in commands}
        super().__init__(*args, commands=ordered, **settings)

    def make_context(self, *args: Any, **settings: Any) -> Any:
        _leave_out_types_of_flags(self)
        return super().make_context(*args, **settings)

    def invoke(self, ctx: Any) -> Any:
        with interruptible(lambda: ""):
            try:
                return super().invoke(ctx)
            except SystemExit as error:
                if isinstance(error.__context__, BrokenPipeError):  # whoever read the help has seen enough of it
                    raise
                # none of ours: a component, or a library it calls
                raise RuntimeError(f"something has tried to end the program in the middle ({error!r})") from error


def _leave_out_types_of_flags(command: Any) -> None:
    """Give every flag of a command and of its subcommands, `--help` among them, an empty name for its value."""
    for parameter in command.get_params(typer.Context(command)):
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    for subcommand in getattr(command, "commands", {}).values():
        _leave_out_types_of_flags(subcommand)
