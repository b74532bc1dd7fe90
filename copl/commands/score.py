"""``copl score``: rewards of responses for users."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, final

import attrs
import typer

from copl.commands.parts.arguments import (
    COLUMNS_OPTION,
    QUALITY_OPTION,
    QUALITY_WEIGHT_OPTION,
    RUN_ARGUMENT,
    USERS_OPTION,
    column_names,
)
from copl.commands.parts.display import say
from copl.commands.parts.flags import takes_records
from copl.commands.parts.quality import quality_reward


@final
@attrs.frozen(kw_only=True)
class _Scale:
    """What rewards of several users are set against, and what is added to them."""

    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrated",
            help="Put the rewards of all users on one scale: 0 is the average training response to the user, 1 one"
            " standard deviation better.",
        ),
    ] = False
    quality: QUALITY_OPTION = None
    quality_weight: QUALITY_WEIGHT_OPTION = None


@takes_records
def score(
    run_directory: RUN_ARGUMENT,
    rows_file: Annotated[
        Path, typer.Argument(metavar="ROWS", help="JSONL, CSV or Parquet rows of user_id, prompt and response.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: the rows with a reward each.")],
    users: USERS_OPTION = None,
    columns: COLUMNS_OPTION = None,
    average_unknown: Annotated[
        bool,
        typer.Option("--average-unknown", help="Score users neither trained nor adapted as the average user."),
    ] = False,
    scale: _Scale,
) -> None:
    """Score responses for users; each row of the output says whether the user is known."""
    from copl.data.requests import check_score_target, read_score_rows, require_known, write_scores
    from copl.model import Model

    check_score_target(out, rows_file, *([users] if users else []))
    rows = read_score_rows(rows_file, say, column_names(columns, rows_file))
    model = Model.open(run_directory)
    adapted = model.load_adapted(users) if users else None
    known = model.known_users(rows.requests.users, adapted)
    if not average_unknown:
        require_known(rows, known.union(adapted.user_ids if adapted else ()))
    general = quality_reward(model, scale.quality, scale.quality_weight, calibrated=scale.calibrated)
    rewards = model.scores(rows.requests, adapted, calibrated=scale.calibrated, quality=general)
    write_scores(out, rows, rewards, known)
    say(f"wrote {len(rows.requests)} rewards to {out}")
