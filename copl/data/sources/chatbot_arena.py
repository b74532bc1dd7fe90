"""Source ``chatbot-arena``: which of two language models visitors of the Chatbot Arena preferred, by judge.

Conversations of one turn give comparisons of two answers to one prompt. In longer ones the two sides part after the
first answer; they are left out, or compared as wholes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, final

import attrs
import numpy as np

from copl.data.checking.positions import one_sided_users
from copl.data.making.judged import Judged, JudgedOptions
from copl.data.making.origin import Origin, finding
from copl.data.pairs import intern_users
from copl.data.reading.hub import Published, require_published
from copl.data.reading.texts import clean
from copl.errors import DataError, quoted
from copl.options import option
from copl.plugins import Component
from copl.records import PreferenceData

_PUBLISHED = Published(
    "lmsys/chatbot_arena_conversations",
    advice="is this a copy of lmsys/chatbot_arena_conversations? votes of other arenas are read by source arena-votes",
)
_COLUMNS = ("judge", "winner", "conversation_a", "conversation_b")

_SHOWN = 10

ORIGIN = Origin(
    "chatbot-arena",
    "CC BY 4.0 for what people wrote, CC BY-NC 4.0 for the responses of models",
    "Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, 2023 (arXiv 2306.05685)",
    "The answer of the winning model against the other, by judge; ties are left out.",
)


@final
@attrs.frozen(kw_only=True)
class ChatbotArenaOptions(JudgedOptions):
    """Options of Chatbot Arena."""

    conversations: Literal["single", "all"] = option(
        "single",
        help="single: conversations of one turn; all: longer ones, too, each side's transcript after the first prompt "
        "as one response",
    )
    language: str | None = option(None, help="only conversations in this language, such as English; none for all")
    drop_one_sided: bool = option(
        True, help="leave out judges who nearly always pick the same side: they judge places, not answers"
    )


@final
@attrs.frozen
class _Vote:
    """One decided comparison, as it was shown."""

    judge: str
    prompt: str
    left: str
    right: str
    picked_left: bool


@final
class ChatbotArenaSource:
    """Reads the conversations."""

    def __init__(self, options: ChatbotArenaOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the conversations and split the comparisons.

        Raises:
            DataError: the data set cannot be read or has another schema.
        """
        judged = Judged()
        counts = dict.fromkeys(("judgements", "ties", "decisive"), 0)
        votes = self._read(judged, counts)
        judges, user = intern_users([vote.judge for vote in votes])
        left = np.array([vote.picked_left for vote in votes], dtype=np.bool_)
        one_sided = one_sided_users(user, left, len(judges))
        dropped = one_sided & self._options.drop_one_sided
        for vote, row in zip(votes, user.tolist(), strict=True):
            if dropped[row]:
                judged.drop("by one-sided judges")
                continue
            sides = (vote.left, vote.right) if vote.picked_left else (vote.right, vote.left)
            judged.add(vote.judge, vote.prompt, *sides)
        return judged.data(
            "chatbot-arena",
            self._options,
            ORIGIN,
            seed=seed,
            counts={**counts, "judges": len(judges)},
            positions={"judgements": len(votes), "first": int(left.sum())},
            findings=_one_sided([judges[row] for row in np.flatnonzero(one_sided).tolist()], self._options),
        )

    def _read(self, judged: Judged, counts: dict[str, int]) -> list[_Vote]:
        options = self._options
        rows = require_published(_PUBLISHED, options, columns=_COLUMNS, optional=("language",), ids=("judge",))
        votes = []
        for row in rows:
            if options.language is not None and row.get("language") != options.language:
                judged.drop("in another language")
                continue
            counts["judgements"] += 1
            winner = str(row["winner"])
            if winner.startswith("tie"):
                counts["ties"] += 1
                continue
            if winner not in ("model_a", "model_b"):
                raise DataError(f"{rows.place}: winner: {quoted(winner)}; expected model_a, model_b or a tie")
            counts["decisive"] += 1
            sides = [_parts(row[name], f"{rows.place}: {name}") for name in ("conversation_a", "conversation_b")]
            if sides[0][0] != sides[1][0]:
                judged.drop("whose sides answer different prompts")
            elif options.conversations == "single" and (sides[0][2] or sides[1][2]):
                judged.drop("of more than one turn")
            else:
                votes.append(_Vote(str(row["judge"]), *sides[0][:2], sides[1][1], winner == "model_a"))
        return votes


def _one_sided(judges: list[str], options: ChatbotArenaOptions) -> list[dict[str, object]]:
    if not judges:
        return []
    shown = ", ".join(judges[:_SHOWN]) + (", ..." if len(judges) > _SHOWN else "")
    severity = "info" if options.drop_one_sided else "warning"
    advice = "they are left out" if options.drop_one_sided else "leave them out: drop_one_sided=true"
    return [finding(severity, "users who nearly always pick the same side", f"judges {shown}", len(judges), advice)]


def _parts(messages: object, place: str) -> tuple[str, str, bool]:
    """Return the first prompt, what follows as one text, and whether there is more than one turn."""
    if isinstance(messages, Sequence) and len(messages) >= 2 and all(isinstance(m, Mapping) for m in messages):
        contents = [clean(message.get("content")) for message in messages]
        names = ["Human" if message.get("role") == "user" else "Assistant" for message in messages]
        later = [f"{name}: {content}" for name, content in zip(names[2:], contents[2:], strict=True)]
        return contents[0], "\n\n".join([contents[1], *later]), len(messages) > 2
    raise DataError(f"{place}: expected a list of messages, a prompt and an answer at least")


COMPONENTS = [
    Component(
        "chatbot-arena",
        ChatbotArenaOptions,
        ChatbotArenaSource,
        "votes of visitors of the Chatbot Arena between two language models, by judge",
        reference=ORIGIN.citation,
    )
]
