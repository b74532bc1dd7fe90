"""`copl explain`: why a response scores as it does for a user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from copl.commands.parts.arguments import JSON_OPTION, RUN_ARGUMENT
from copl.commands.parts.display import say, show_json, show_table

if TYPE_CHECKING:
    from copl.explaining import Reasons

_SHOWN = 8
_LENGTH = 60


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
    as_json: JSON_OPTION = False,
) -> None:
    """Say which answers of the user's own, and of like-minded users, make the score, in numbers that add up.

    Without a prompt and a response one of the user's own comparisons is explained, the first of the data set.
    """
    from copl.data.requests import read_support
    from copl.errors import OptionsError
    from copl.model import Model

    if (prompt is None) != (response is None) or (against is not None and response is None):
        raise OptionsError("give --prompt and --response together, with --against where another response is meant")
    said = None if support is None else read_support(support, say)
    model = Model.open(run_directory)
    if prompt is None or response is None:
        prompt, response, against = model.own_comparison(user)
    reasons = model.explain(user, prompt, response, against, support=said)
    if as_json:
        show_json(reasons.to_dict())
        return
    _show(reasons)


def _show(reasons: Reasons) -> None:
    other = "the average response" if reasons.against is None else _short(reasons.against)
    rows: list[tuple[str, str]] = [(f"{reasons.score:+.3f}", "score, made of:")]
    for source, words in reasons.words.items():
        own = [part for part in reasons.parts if part.source == source]
        if not own:
            continue
        total = sum(part.amount for part in own)
        rows.append((f"{total:+.3f}", words))
        if source not in ("own answer", "like-minded user"):
            continue
        shown = own[:_SHOWN]
        rows += [(f"  {part.amount:+.3f}", f"  {_answer(part)}") for part in shown]
        if more := own[_SHOWN:]:
            rows.append((f"  {sum(part.amount for part in more):+.3f}", f"  {len(more)} more"))
    rows.append(
        (f"±{reasons.deviation:.3f}", f"how sure: the first is chosen with a chance of {reasons.probability:.0%}")
    )
    show_table(f"{reasons.user}: {_short(reasons.response)} rather than {other}", ("adds", "why"), rows)


def _answer(part: Any) -> str:
    who = f"{part.user}: " if part.user else ""
    return f"{who}{_short(part.chosen)} over {_short(part.rejected)}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return f"“{line}”" if len(line) <= _LENGTH else f"“{line[:_LENGTH]}…”"
