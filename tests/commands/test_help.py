"""What `--help` of every command shows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from copl.cli import application
from copl.commands.parts.program import COMMANDS, GROUPS


def _all_commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from _all_commands(subcommand, (*words, name))


def test_types_are_those_of_one_value_and_required_options_first() -> None:
    app = application()
    commands = dict(_all_commands(get_command(app)))
    assert {(), ("train",), ("data", "make"), ("plugins", "new"), ("cache", "clear"), ("serve", "token", "new")} < set(
        commands
    )
    for words, command in commands.items():
        outcome = CliRunner().invoke(app, [*words, "--help"], terminal_width=200)
        assert outcome.exit_code == 0, words
        assert "--help" in outcome.output, words
        assert "bool" not in outcome.output.lower(), words
        assert "list[" not in outcome.output, words
        options = [option for option in command.params if option.param_type_name == "option"]
        required = [option.required for option in options]
        assert required == sorted(required, reverse=True), words


def test_a_command_alone_is_the_one_among_all() -> None:
    app = application()
    for name in ("train", "data"):
        alone = application(name)
        assert list(get_command(alone).commands) == [name]  # type: ignore[attr-defined]
        shown = [CliRunner().invoke(one, [name, "--help"], terminal_width=200).output for one in (alone, app)]
        assert shown[0] == shown[1]
    for word in ("--help", "trian", ""):
        assert list(get_command(application(word)).commands) == list(COMMANDS)  # type: ignore[attr-defined]


def test_commands_stand_in_groups_in_the_order_of_use() -> None:
    shown = CliRunner().invoke(application(), ["--help"], terminal_width=100).output
    titles = re.findall(r"^╭─ (.+?) ─", shown, flags=re.MULTILINE)
    assert titles == ["Options", *GROUPS]
    assert re.findall(r"^│ ([a-z]+) ", shown, flags=re.MULTILINE) == list(COMMANDS)


def test_whoever_reads_the_beginning_of_a_help_sees_no_traceback() -> None:
    command = [sys.executable, "-c", "from copl.cli import main; main()", "serve", "token", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait(60) == 1


def test_the_help_of_serve_has_its_options() -> None:
    outcome = CliRunner().invoke(application(), ["serve", "--help"], terminal_width=200)
    assert outcome.exit_code == 0
    assert all(word in outcome.output for word in ("--upstream", "--store", "--refresh", "copl serve token --help"))
