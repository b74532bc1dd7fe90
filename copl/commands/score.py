"""``copl score``: rewards of responses for users."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copl.commands.parts.arguments import RUN_ARGUMENT, USERS_OPTION
from copl.commands.parts.display import say


def score(
    run_directory: RUN_ARGUMENT,
    rows_file: Annotated[
        Path, typer.Argument(metavar="ROWS", help="JSONL, CSV or Parquet rows of user_id, prompt and response.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: the rows with a reward each.")],
    users: USERS_OPTION = None,
    average_unknown: Annotated[
        bool,
        typer.Option("--average-unknown", help="Score users neither trained nor adapted as the average user."),
    ] = False,
) -> None:
    """Score responses for users; each row of the output says whether the user is known."""
    from copl.data.requests import check_score_target, read_score_rows, require_known, write_scores
    from copl.model import Model

    check_score_target(out, rows_file, *([users] if users else []))
    rows = read_score_rows(rows_file, say)
    model = Model.open(run_directory)
    adapted = model.load_adapted(users) if users else None
    known = model.known_users(rows.requests.users, adapted)
    if not average_unknown:
        require_known(rows, known)
    write_scores(out, rows, model.scores(rows.requests, adapted), known)
    say(f"wrote {len(rows.requests)} rewards to {out}")
