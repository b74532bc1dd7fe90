"""`copl explain`: why a response scores as it does for a user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copl.commands.parts.arguments import COLUMNS_OPTION, JSON_OPTION, RUN_ARGUMENT, column_names
from copl.commands.parts.display import say, show_json, show_table

if TYPE_CHECKING:
    from copl.runs.explaining import Reasons


def explain(
    run_directory: RUN_ARGUMENT,
    user: Annotated[str, typer.Option("--user", help="Id of the user, seen in training or in --support.")],
    prompt: Annotated[str | None, typer.Option("--prompt", help="What the responses answer.")] = None,
    response: Annotated[str | None, typer.Option("--response", help="The response.")] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Another one. [default: the average response]")
    ] = None,
    support: Annotated[
        Path | None, typer.Option("--support", help="What the user has said since: rows, as for `copl adapt`.")
    ] = None,
    columns: COLUMNS_OPTION = None,
    as_json: JSON_OPTION = False,
) -> None:
    """Say which answers of the user's own, and of like-minded users, make the score, in numbers that add up.

    Without a prompt and a response one of the user's own answers is explained, the first of --support, else of the
    data set: a comparison, if there is one.
    """
    from copl.data.requests import read_support
    from copl.errors import OptionsError
    from copl.model import Model

    if (prompt is None) != (response is None) or (against is not None and response is None):
        raise OptionsError("give --prompt and --response together, with --against where another response is meant")
    names = column_names(columns, support)
    said = None if support is None else read_support(support, say, names)
    model = Model.open(run_directory)
    if prompt is None or response is None:
        prompt, response, against = model.own_answer(user, said)
    reasons = model.explain(user, prompt, response, against, support=said)
    if as_json:
        show_json(reasons.to_dict())
        return
    _show(reasons)


def _show(reasons: Reasons) -> None:
    rows: list[tuple[str, str]] = [(f"{reasons.score:+.3f}", "score, made of:")]
    for line in reasons.lines():
        indent = "  " * line.is_detail
        rows.append((f"{indent}{line.amount:+.3f}", f"{indent}{line.words}"))
    rows.append(
        (f"±{reasons.deviation:.3f}", f"how sure: the first is chosen with a chance of {reasons.probability:.0%}")
    )
    show_table(f"{reasons.user}: {reasons.title()}", ("adds", "why"), rows)
