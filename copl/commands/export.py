"""`copl export`: one user's reward model for use elsewhere, or the whole run as something to keep or send."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copl.commands.parts.arguments import JSON_OPTION, RUN_ARGUMENT, USERS_OPTION
from copl.commands.parts.display import say, show_json


def export(
    run_directory: RUN_ARGUMENT,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")],
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            help="Write this user's reward model as a plain PEFT classifier that needs no copl; without it, the whole"
            " run: what scoring and adapting need, with a card.",
        ),
    ] = None,
    users: USERS_OPTION = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the user's adapter into the backbone and write the whole model.")
    ] = False,
    as_json: JSON_OPTION = False,
) -> None:
    """Write one user's reward model, or a whole run, for use elsewhere."""
    from copl.errors import OptionsError
    from copl.model import Model

    if user is None:
        if merge or users:
            raise OptionsError("--merge and --users are for one user's reward model; name the user with --user")
        Model.open(run_directory).save_pretrained(out)
        if as_json:
            show_json({"directory": str(out)})
        else:
            say(f"wrote {out}; Model.from_pretrained opens it")
        return
    model = Model.open(run_directory)
    adapted = model.load_adapted(users) if users else None
    facts = model.export(user, out, adapted=adapted, merge=merge)
    if as_json:
        show_json(facts)
    else:
        say(f"wrote {out} (rank {facts['rank']}, {facts['task']}, reward: {facts['reward']}); see {out / 'README.md'}")
