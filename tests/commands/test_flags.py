"""Records of flags: a command takes them whole, and takes on the command line each flag as if it were its own."""

from __future__ import annotations

from typing import Annotated, Any, final

import attrs
import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from copl.commands.parts.flags import takes_records


@final
@attrs.frozen
class Inner:
    count: Annotated[int, typer.Option("--count", min=1, help="How many.")] = 3
    names: Annotated[list[str] | None, typer.Option("--name", help="Who.")] = None


@final
@attrs.frozen(kw_only=True)
class Outer:
    place: Annotated[str, typer.Argument(metavar="PLACE")]
    out: Annotated[str, typer.Option("--out")]
    inner: Inner
    dry: Annotated[bool, typer.Option("--dry")] = False


@pytest.fixture
def taken() -> list[tuple[Any, ...]]:
    return []


@pytest.fixture
def app(taken: list[tuple[Any, ...]]) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    @app.command()
    @takes_records
    def command(outer: Outer, first: Annotated[float, typer.Option("--first")] = 0.5, *, last: Inner2) -> None:
        """Say what it does."""
        taken.append((outer, first, last))

    return app


@final
@attrs.frozen
class Inner2:
    seed: Annotated[int | None, typer.Option("--seed")] = None


def test_a_command_gets_its_records(app: typer.Typer, taken: list[tuple[Any, ...]]) -> None:
    words = ["here", "--out", "o", "--name", "a", "--name", "b", "--dry", "--seed", "7", "--first", "2"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert CliRunner().invoke(app, ["here", "--out", "o"]).exit_code == 0
    inner = Inner(3, ["a", "b"])
    assert taken == [
        (Outer(place="here", out="o", inner=inner, dry=True), 2.0, Inner2(7)),
        (Outer(place="here", out="o", inner=Inner(3, None)), 0.5, Inner2(None)),
    ]


def test_flags_stand_where_the_record_stands(app: typer.Typer) -> None:
    command = get_command(app)
    assert command.help == "Say what it does."
    assert [parameter.name for parameter in command.params] == [
        "place", "out", "count", "names", "dry", "first", "seed"
    ]  # fmt: skip
    assert [parameter.required for parameter in command.params] == [True, True, *[False] * 5]


@pytest.mark.parametrize("words", [[], ["here"], ["here", "--out", "o", "--count", "0"], ["here", "--inner", "x"]])
def test_what_a_flag_refuses_is_refused(app: typer.Typer, taken: list[tuple[Any, ...]], words: list[str]) -> None:
    assert CliRunner().invoke(app, words).exit_code == 2
    assert taken == []
