"""What an explanation of a score is: parts that add up, and how sure it is."""

from __future__ import annotations

from typing import final

import attrs
import numpy as np

ANSWERS = {
    "comparison": "{} over {}",
    "tie": "{} as good as {}",
    "good": "{} is good",
    "bad": "{} is not good",
    "between": "{} is neither good nor bad",
}
"""Kinds of answers, in words; the last three are thumbs and ratings, of one response, on the user's own scale."""


@final
@attrs.frozen
class Part:
    """One part of a score.

    Attributes:
        source: ``everybody``, ``own answer``, ``like-minded user``, ``other users``, ``reward model`` or ``rest``.
        amount: what it adds; the amounts of all parts make the score.
        user: the like-minded user's id.
        chosen: key of the response that the answer preferred; of a like-minded user the answer that speaks most.
        rejected: key of the other one.
        kind: what the answer said, of `ANSWERS`; an encoder leaves it to its readers to tell by the keys.
    """

    source: str
    amount: float
    user: str = ""
    chosen: str = ""
    rejected: str = ""
    kind: str = "comparison"


@final
@attrs.frozen
class Explanation:
    """Why a user prefers a response to another one, or to the average one.

    Attributes:
        user: the user's id.
        score: by how much; negative where the other one is preferred.
        parts: what makes the score, in the order of `Part.source` and of size.
        deviation: standard deviation of the score by what is not known of the user.
        probability: chance that the user chooses the first, that being taken into account.
        num_answers: how many answers of the user's own there are.
    """

    user: str
    score: float
    parts: tuple[Part, ...]
    deviation: float
    probability: float
    num_answers: int

    def scaled(self, factor: float, more: tuple[Part, ...] = ()) -> Explanation:
        """Return the explanation of a score that is `factor` times this one, with more parts."""
        parts = (*(attrs.evolve(part, amount=factor * part.amount) for part in self.parts), *more)
        score = sum(part.amount for part in parts)
        deviation = factor * self.deviation
        return Explanation(self.user, score, parts, deviation, chance(score, deviation), self.num_answers)


def chance(score: float, deviation: float) -> float:
    """Return the mean of sigma over a normal margin, by MacKay's approximation (Neural Computation 4, 1992)."""
    return float(1 / (1 + np.exp(-score / np.sqrt(1 + np.pi * deviation**2 / 8))))
