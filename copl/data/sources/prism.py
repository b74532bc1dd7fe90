"""Source ``prism``: what people from many countries preferred in their conversations with language models.

At each turn of a conversation a person saw several answers to what they had written, scored each and chose one to go on
with. Nearly every prompt is one person's own, so users share no responses: what is learnt of one user reaches another
only through the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import permutations
from typing import Literal, final

import attrs

from copl.data.chat import encode_prompt
from copl.data.making.decimals import exact
from copl.data.making.judged import Judged, JudgedOptions
from copl.data.making.origin import Origin
from copl.data.reading.hub import Published, require_published
from copl.data.reading.texts import clean
from copl.errors import DataError
from copl.options import option
from copl.plugins import Component
from copl.records import PreferenceData

_PUBLISHED = Published("HannahRoseKirk/prism-alignment", config="utterances")
_COLUMNS = ("user_id", "conversation_id", "turn", "user_prompt", "model_response", "score", "if_chosen")

ORIGIN = Origin(
    "prism",
    "CC BY 4.0 for what people wrote, CC BY-NC 4.0 for the responses of models",
    "Kirk et al., The PRISM Alignment Dataset, 2024 (arXiv 2404.16019)",
    "At each turn the chosen answer against each of the others, or answers whose scores differ by a margin. The prompt "
    "of a later turn is the conversation so far, with the answers that were chosen.",
)


@final
@attrs.frozen(kw_only=True)
class PrismOptions(JudgedOptions):
    """Options of PRISM."""

    preference: Literal["choice", "score"] = option(
        "choice", help="choice: the answer a person went on with against the others; score: higher against lower score"
    )
    margin: float = option(
        5.0, help="least difference of two scores (1 to 100) for a comparison", validator=attrs.validators.gt(0.0)
    )
    turns: Literal["first", "all"] = option("all", help="first: only the opening of each conversation; all: every turn")
    strategy: Literal["pair", "response"] = option(
        "response",
        help="response: a user's splits share no response, for comparisons of one turn have answers in common; pair: "
        "hold out whole comparisons",
    )


@final
@attrs.frozen
class _Answer:
    """One answer a person saw."""

    text: str
    score: Decimal
    chosen: bool


_Turns = dict[int, tuple[str, list[_Answer]]]


@final
class PrismSource:
    """Reads the utterances."""

    def __init__(self, options: PrismOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the utterances and split the comparisons.

        Raises:
            DataError: the data set cannot be read or has another schema.
        """
        judged = Judged()
        conversations = _read(self._options)
        counts = {"conversations": len(conversations), "turns": 0, "answers": 0}
        for (user, _), turns in conversations.items():
            for prompt, answers in self._prompts(turns):
                counts["turns"] += 1
                counts["answers"] += len(answers)
                for better, worse in self._preferences(answers):
                    judged.add(user, prompt, better.text, worse.text)
        return judged.data("prism", self._options, ORIGIN, seed=seed, counts=counts)

    def _prompts(self, turns: _Turns) -> Iterator[tuple[str, list[_Answer]]]:
        """Yield the prompt of each turn with its answers, as long as it is known what was said before."""
        said: list[dict[str, str]] = []
        for _, (question, answers) in sorted(turns.items()):
            if not question.strip():
                return
            said.append({"role": "user", "content": question})
            yield encode_prompt(said), answers
            chosen = [answer for answer in answers if answer.chosen and answer.text.strip()]
            if not chosen or self._options.turns == "first":
                return
            said.append({"role": "assistant", "content": chosen[0].text})

    def _preferences(self, answers: Iterable[_Answer]) -> Iterator[tuple[_Answer, _Answer]]:
        for one, other in permutations(answers, 2):
            by_choice = one.chosen and not other.chosen
            by_score = one.score - other.score >= exact(self._options.margin)
            if by_choice if self._options.preference == "choice" else by_score:
                yield one, other


def _read(options: PrismOptions) -> dict[tuple[str, str], _Turns]:
    rows = require_published(_PUBLISHED, options, columns=_COLUMNS, ids=("user_id", "conversation_id"))
    conversations: dict[tuple[str, str], _Turns] = {}
    for row in rows:
        try:
            key = str(row["user_id"]), str(row["conversation_id"])
            answer = _Answer(clean(row["model_response"]), exact(row["score"]), _truth(row["if_chosen"]))
            _, answers = conversations.setdefault(key, {}).setdefault(int(row["turn"]), (clean(row["user_prompt"]), []))
        except (TypeError, ValueError) as error:
            raise DataError(f"{rows.place}: turn and score are numbers, if_chosen is true or false") from error
        answers.append(answer)
    return conversations


def _truth(value: object) -> bool:
    if isinstance(value, bool | int):
        return bool(value)
    if str(value).strip().lower() not in ("true", "false"):
        raise ValueError(value)
    return str(value).strip().lower() == "true"


COMPONENTS = [
    Component(
        "prism",
        PrismOptions,
        PrismSource,
        "conversations of people from many countries with language models; users share no responses",
        reference=ORIGIN.citation,
    )
]
