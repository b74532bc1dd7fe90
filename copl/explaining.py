"""Why a response scores as it does for a user, with the texts of the answers that make the score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import attrs

from copl.adapt.explain import Explanation, Part
from copl.errors import OptionsError, quoted, suggest
from copl.evidence import LEVEL_KEYS
from copl.runs.reference import data_of

if TYPE_CHECKING:
    from copl.records import ComparisonSet, ResponseTable
    from copl.runs.directory import Run

WORDS: Mapping[str, str] = {
    "everybody": "what everybody thinks of it",
    "own answer": "the user's own answers",
    "like-minded user": "seen users who explain these answers best, each with the answer that speaks most",
    "other users": "all other seen users, by how like-minded they are",
    "reward model": "what the reward model reads in the texts for this user",
    "rest": "what the encoder has learnt beyond both",
}
"""What each source of a part is."""

_GONE = "a text that is not in the data any more"


@final
@attrs.frozen
class Reasons:
    """An explanation with its texts.

    Attributes:
        user: the user's id.
        prompt: what the responses answer.
        response: the response.
        against: the other one; None for the average response.
        score: by how much the user prefers it.
        parts: what makes the score, with texts in place of keys; the amounts add up to it.
        deviation: standard deviation of the score by what is not known of the user.
        probability: chance that the user chooses the first, that being taken into account.
        num_answers: how many answers of the user's own there are.
    """

    user: str
    prompt: str
    response: str
    against: str | None
    score: float
    parts: tuple[Part, ...]
    deviation: float
    probability: float
    num_answers: int

    @property
    def words(self) -> Mapping[str, str]:
        """What each source of a part is."""
        return WORDS

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return attrs.asdict(self)

    @classmethod
    def of(cls, explained: Explanation, responses: ResponseTable, texts: Mapping[str, str]) -> Reasons:
        """Put texts in place of the keys of an explanation."""

        def told(key: str) -> str:
            return texts.get(key, _GONE) if key else ""

        parts = tuple(attrs.evolve(p, chosen=told(p.chosen), rejected=told(p.rejected)) for p in explained.parts)
        against = responses.texts[1] if len(responses) > 1 else None
        return cls(
            explained.user, responses.prompts[0], responses.texts[0], against, explained.score, parts,
            explained.deviation, explained.probability, explained.num_answers,
        )  # fmt: skip


def texts_of(run: Run, support: ComparisonSet | None) -> dict[str, str]:
    """Return the text of each response that was trained on or is in `support`, by key; levels by name."""
    tables = [data.responses] if (data := data_of(run)) is not None else []
    tables += [support.responses] if support is not None else []
    texts = {key: text for table in tables for key, text in zip(table.keys, table.texts, strict=True)}
    return texts | {key: f"the user's {key} of {len(LEVEL_KEYS)}" for key in LEVEL_KEYS}


def own_comparison(run: Run, user: str) -> tuple[str, str, str]:
    """Return prompt and responses of the first comparison of a user in the run's data.

    Raises:
        OptionsError: the data is gone, or has no such user.
    """
    data = data_of(run)
    if data is None:
        raise OptionsError(f"{run.data_directory}: not the data of the run any more; give --prompt and --response")
    if user not in data.users.rows:
        raise OptionsError(f"no user {quoted(user)} in the data{suggest(user, data.users.ids)}")
    for name in data.evidence():
        rows = data.split(name).comparisons
        own = rows.take(rows.user == data.users.rows[user])
        if len(own):
            chosen, rejected = int(own.chosen[0]), int(own.rejected[0])
            return data.responses.prompts[chosen], data.responses.texts[chosen], data.responses.texts[rejected]
    raise OptionsError(f"user {quoted(user)} has compared nothing; give --prompt and --response")
