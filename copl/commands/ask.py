"""`copl ask`: what to ask a user next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copl.commands.parts.arguments import COLUMNS_OPTION, JSON_OPTION, RUN_ARGUMENT, column_names
from copl.commands.parts.display import say, show_json, show_text

if TYPE_CHECKING:
    from copl.data.requests import Pair, Prompt
    from copl.records import ComparisonSet
    from copl.runs.one_user import Question


def ask(
    run_directory: RUN_ARGUMENT,
    candidates: Annotated[
        Path,
        typer.Argument(
            help="What may be asked: JSONL, CSV or Parquet rows of prompt and two responses, first, second."
        ),
    ],
    support: Annotated[
        Path | None,
        typer.Option("--support", help="What has been said so far: rows of every kind, as for `copl adapt`."),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", help="Id of the user, new or seen in training. [default: that of --support, else a newcomer]"
        ),
    ] = None,
    columns: COLUMNS_OPTION = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Number of questions, the best one first.")] = 1,
    as_json: JSON_OPTION = False,
) -> None:
    """Choose the comparison whose answer tells most about a user.

    What the user has answered, in training or since, is not asked again. Each of several questions is judged by itself:
    after an answer, ask anew.
    """
    from copl.data.requests import read_candidates, read_support, user_named
    from copl.errors import DataError, OptionsError
    from copl.model import Model
    from copl.records import NOBODY

    if count < 1:
        raise OptionsError(f"--count {count}: at least one")
    called = column_names(columns, support)
    pairs = read_candidates(candidates, say)
    user = None if user is None else user_named(user)
    said = None if support is None else _of_user(read_support(support, say, called), user, support)
    asked = NOBODY if user is None else user
    if said is not None:
        asked = said.users.ids[0]
    model = Model.open(run_directory)
    places = _unanswered(pairs, model.answered(asked, pairs), said)
    if not places:
        raise DataError(f"{candidates}: the user has answered all {len(pairs)} of them")
    questions = model.online(asked, said).questions([pairs[place] for place in places])[:count]
    if not questions[0].information:
        say("no question tells anything about this user: no response was annotated in training, or all is known")
    if as_json:
        names = ("index", "prompt", "first", "second", "information")
        rows = [(places[q.index], q.prompt, q.first, q.second, q.information) for q in questions]
        show_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        _show(questions)


def _show(questions: Iterable[Question]) -> None:
    for question in questions:
        show_text(_shown(question.prompt))
        for number, response in enumerate((question.first, question.second), start=1):
            show_text(f"  {number}. " + response.replace("\n", "\n     "))
        show_text(f"  expected information: {question.information:.3f} bits\n")


def _of_user(support: ComparisonSet, user: str | None, where: Path) -> ComparisonSet:
    """Return what one user says.

    Raises:
        OptionsError: the file has nothing of the user, or is of several and no user is named.
    """
    from copl.errors import OptionsError, quoted, suggest

    present = support.speakers
    if user is None and len(present) > 1:
        raise OptionsError(f"{where}: comparisons of {len(present)} users; name one with --user, such as {present[0]}")
    chosen = present[0] if user is None else user
    if chosen not in present:
        raise OptionsError(
            f"{where}: no comparisons of user {quoted(chosen)}{suggest(chosen, present)}; leave --support out to ask "
            "somebody who has said nothing"
        )
    return support.of_user(chosen)


def _unanswered(pairs: Sequence[Pair], in_training: Sequence[bool], said: ComparisonSet | None) -> list[int]:
    """Return the places of the pairs that the user has answered neither in training nor since."""
    since = set() if said is None else _answered(said)
    answered = enumerate(zip(pairs, in_training, strict=True))
    return [place for place, (pair, known) in answered if not known and _key(pair) not in since]


def _answered(said: ComparisonSet) -> set[tuple[str, frozenset[str]]]:
    """Return the pairs that were compared, or called a tie."""
    prompts, texts = said.responses.prompts, said.responses.texts
    ties = said.judgements.take(said.judgements.is_of_two)
    ends = ((said.given.chosen, said.given.rejected), (ties.response, ties.other))
    pairs = [pair for one, other in ends for pair in zip(one.tolist(), other.tolist(), strict=True)]
    return {(prompts[one], frozenset((texts[one], texts[other]))) for one, other in pairs}


def _key(pair: Pair) -> tuple[str, frozenset[str]]:
    from copl.data.chat import encode_prompt

    prompt, first, second = pair
    return encode_prompt(prompt), frozenset((first, second))


def _shown(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
