"""``copl serve``: a service beside any language model, and its tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, final

import attrs
import typer
from typer.core import TyperGroup

from copl.commands.parts.arguments import JSON_OPTION, RUN_ARGUMENT
from copl.commands.parts.display import say, show_json, show_table
from copl.commands.parts.flags import takes_records
from copl.serve.settings import ServeOptions

if TYPE_CHECKING:
    from copl.serve.tokens import Tokens

_RUN = "run"


@final
class _RunFirst(TyperGroup):
    """``copl serve RUN`` is ``copl serve run RUN``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and (args[0] not in self.commands or (args[0] == _RUN and not _has_argument(args[1:]))):
            args.insert(0, _RUN)  # before --help as well: its options are what is looked for
        rest: list[str] = super().parse_args(ctx, args)
        return rest


def _has_argument(words: Sequence[str]) -> bool:
    """Return whether an argument stands among options, each of which has a value; else `run` is the directory."""
    place = 0
    while place < len(words) and words[place].startswith("-"):
        place += 1 if "=" in words[place] else 2
    return place < len(words)


app = typer.Typer(
    cls=_RunFirst, no_args_is_help=True, help="Serve a run beside any language model; it learns meanwhile."
)
token_app = typer.Typer(no_args_is_help=True, help="Tokens of a service.")
app.add_typer(token_app, name="token")

_DEFAULTS = ServeOptions()


def _option(name: str, flag: str = "", **rules: Any) -> Any:
    """Return the flag of one option of the service; its help is written there."""
    words = str(attrs.fields_dict(ServeOptions)[name].metadata["help"])
    return typer.Option(flag or "--" + name.replace("_", "-"), help=f"{words[0].upper()}{words[1:]}.", **rules)


STORE_OPTION: TypeAlias = Annotated[str | None, _option("store")]
RUN_OF_STORE: TypeAlias = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="Run directory of the service, unless --store is given.")
]


@final
@attrs.frozen(kw_only=True)
class _Flags:
    """The options of the service that the command line has."""

    store: STORE_OPTION = None
    host: Annotated[str, _option("host")] = _DEFAULTS.host
    port: Annotated[int, _option("port")] = _DEFAULTS.port
    upstream: Annotated[str | None, _option("upstream", metavar="URL")] = None
    upstream_model: Annotated[str | None, _option("upstream_model")] = None
    generator: Annotated[str | None, _option("generator")] = None
    candidates: Annotated[int, _option("candidates", min=1, max=64)] = _DEFAULTS.candidates
    refresh: Annotated[float, _option("refresh", metavar="SECONDS", min=0)] = _DEFAULTS.refresh
    origins: Annotated[list[str] | None, _option("origins", "--allow-origin", metavar="ORIGIN")] = None
    user_header: Annotated[str, _option("user_header")] = _DEFAULTS.user_header
    queue: Annotated[int, _option("queue", min=1)] = _DEFAULTS.queue
    rate: Annotated[float, _option("rate", min=0)] = _DEFAULTS.rate

    def options(self) -> ServeOptions:
        """Return them as the service takes them."""
        return ServeOptions(**{**attrs.asdict(self), "origins": tuple(self.origins or ())})


@app.command(_RUN, epilog="`copl serve RUN` is the same. Tokens of a service: `copl serve token --help`.")
@takes_records
def run(run_directory: RUN_ARGUMENT, flags: _Flags) -> None:
    """Serve a run: chat completions, rerank, rewards and feedback, with a page at /."""
    _require_extra()
    from copl.serve.server import serve

    serve(run_directory, flags.options(), say)


@token_app.command("new")
def new(
    run_directory: RUN_OF_STORE = None,
    scope: Annotated[
        str, typer.Option("--scope", help="user speaks for one user, service for any, admin does everything.")
    ] = "service",
    user: Annotated[str | None, typer.Option("--user", help="The user that a token of scope user speaks for.")] = None,
    name: Annotated[str, typer.Option("--name", help="What you call it.")] = "",
    store: STORE_OPTION = None,
) -> None:
    """Make a token; it is shown this once, only its hash is kept."""
    _require_extra()
    from copl.data.requests import user_named
    from copl.serve.tokens import check_scope

    speaker = None if user is None else user_named(user)
    check_scope(scope, speaker)
    print(_tokens(run_directory, store).new(scope, user=speaker, name=name))
    say("it cannot be shown again; clients send it as `Authorization: Bearer …` (their API key)")


@token_app.command("list")
def list_tokens(run_directory: RUN_OF_STORE = None, store: STORE_OPTION = None, as_json: JSON_OPTION = False) -> None:
    """List the tokens."""
    tokens = _tokens(run_directory, store, is_there=True).all()
    heads = ("id", "name", "scope", "user", "created", "state")
    rows = [
        (
            str(token.id),
            token.name,
            token.scope,
            token.user or "",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(token.created)),
            "revoked" if token.is_revoked else "in force",
        )
        for token in tokens
    ]
    if as_json:
        show_json([dict(zip(heads, row, strict=True)) for row in rows])
    else:
        show_table("Tokens", heads, rows)


@token_app.command("revoke")
def revoke(
    number: Annotated[
        int,
        typer.Argument(metavar="ID", min=1, max=2**31 - 1, help="Number of the token, from `copl serve token list`."),
    ],
    run_directory: RUN_OF_STORE = None,
    store: STORE_OPTION = None,
) -> None:
    """Make a token useless, at once."""
    _tokens(run_directory, store, is_there=True).revoke(number)
    say(f"token {number} is revoked")


def _tokens(run_directory: Path | None, store: str | None, *, is_there: bool = False) -> Tokens:
    """Open the tokens of a store, which has to be there already or is made."""
    _require_extra()
    from copl.data.events.log import EventLog
    from copl.errors import OptionsError, RunError
    from copl.serve.settings import default_store
    from copl.serve.tokens import Tokens

    if store is None:
        if run_directory is None:
            raise OptionsError("name the RUN of the service, or its --store")
        if not (run_directory / "run.json").is_file():
            raise RunError(f"{run_directory}: not a run directory (it has no run.json)")
        store = str(default_store(run_directory))
    if is_there and "://" not in store and not Path(store).exists():
        raise OptionsError(f"{store}: no such store; `copl serve` and `copl serve token new` make one")
    return Tokens(EventLog(store))


def _require_extra() -> None:
    """Refuse where the extra is not installed.

    Raises:
        OptionsError: a package is missing.
    """
    from importlib.util import find_spec

    from copl.errors import OptionsError

    needed = ("fastapi", "uvicorn", "sqlalchemy", "prometheus_client", "openai", "multipart")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise OptionsError(f"`copl serve` needs {', '.join(missing)}: pip install 'copl[serve]'")
