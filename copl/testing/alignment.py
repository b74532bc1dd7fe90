"""The small inputs that the kit gives to generators and aligners."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import attrs
import numpy as np

from copl.interfaces import PreferenceModel, Progress
from copl.records import AdaptedUsers, Comparisons, ComparisonSet, FloatArray, ResponseTable, UserTable
from copl.records.answers import AnswerRequests, CandidateRewards
from copl.system.progress import SilentProgress
from copl.testing.check import CheckSkipped

PROMPTS = (
    "Why does my bread not rise?",
    "How do I clean a keyboard?",
    "How do I choose a good password?",
)
"""Prompts that the kit asks generators; a generator of a file has to have candidates to them."""

STRANGER = "stranger"
"""Id of the user that nobody knows."""


@final
class EchoGenerator:
    """Writes texts of different length that say what they were asked; it follows any prompt."""

    @property
    def follows_prompts(self) -> bool:
        return True

    def fingerprint(self) -> str:
        return "echo"

    def candidates(self, prompts: Sequence[str], *, num: int, seed: int, progress: Progress) -> list[tuple[str, ...]]:
        return [
            tuple(f"answer {place}{' with more words' * (place % 3)}: {prompt}" for place in range(num))
            for prompt in prompts
        ]


@final
@attrs.frozen(eq=False)
class PlantedContext:
    """A context in which users with an even number like short texts, the others long ones, and most people short ones.

    Attributes:
        directory: where an aligner may keep what it makes.
        known: how many users there are, ``user-0`` and so on.
    """

    directory: Path
    known: int = 4
    seed: int = 0
    progress: Progress = attrs.field(factory=SilentProgress)
    adapted: AdaptedUsers | None = None
    generator: Any = attrs.field(factory=EchoGenerator)

    @property
    def user_ids(self) -> tuple[str, ...]:
        return tuple(f"user-{row}" for row in range(self.known))

    @property
    def method(self) -> PreferenceModel:
        """There is none.

        Raises:
            CheckSkipped: always.
        """
        raise CheckSkipped("it asks for a fitted method, which the kit has none of; test it on a run of your own")

    def knows(self, user_id: str) -> bool:
        return user_id in self.user_ids

    def _worth(self, user_id: str, texts: Sequence[str]) -> FloatArray:
        length = np.array([len(text) for text in texts], dtype=np.float64) / 10
        return length * (0.5 - float(user_id in self.user_ids[0::2])) if self.knows(user_id) else -0.1 * length

    def rewards(self, requests: AnswerRequests) -> CandidateRewards:
        return CandidateRewards(
            tuple(self._table(requests.user_ids, texts) for texts in requests.candidates),
            tuple(self._worth(STRANGER, texts) for texts in requests.candidates),
        )

    def _table(self, user_ids: Sequence[str], texts: Sequence[str]) -> FloatArray:
        rows = [self._worth(user, texts) for user in user_ids]
        return np.stack(rows) if rows else np.zeros((0, len(texts)))

    def utilities(self, requests: AnswerRequests) -> tuple[FloatArray, ...]:
        return tuple(self._table(requests.user_ids, texts) for texts in requests.candidates)

    def comparisons(self, user_id: str) -> ComparisonSet:
        prompts = [f"question {place // 2}" for place in range(8)]
        texts = ["short" if place % 2 else f"a much longer answer {place}" for place in range(8)]
        likes_long = user_id in self.user_ids[1::2]
        long, short = np.arange(0, 8, 2), np.arange(1, 8, 2)
        chosen, rejected = (long, short) if likes_long else (short, long)
        rows = Comparisons(np.zeros(4, np.int64), chosen, rejected) if self.knows(user_id) else Comparisons.empty()
        return ComparisonSet(UserTable.ungrouped([user_id]), ResponseTable(prompts, texts), rows)

    def without_newcomers(self) -> PlantedContext:
        return attrs.evolve(self, adapted=None)

    def features(self, responses: ResponseTable) -> FloatArray:
        sizes = [(len(p), len(text)) for p, text in zip(responses.prompts, responses.texts, strict=True)]
        return np.array(sizes, dtype=np.float64).reshape(-1, 2)
