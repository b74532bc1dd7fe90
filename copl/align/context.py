"""What a fitted run tells an aligner of users and texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, final

import numpy as np
from attrs import evolve, field, frozen

from copl.align.truth import KnownTruth
from copl.errors import RunError
from copl.interfaces import Generator, PreferenceModel, Progress
from copl.records import (
    NOBODY,
    AdaptedUsers,
    Comparisons,
    ComparisonSet,
    FloatArray,
    PreferenceData,
    ResponseTable,
    ScoreRequests,
    UserTable,
)
from copl.records.answers import AnswerRequests, CandidateRewards
from copl.records.said import joined
from copl.runs.recipe import Stages

if TYPE_CHECKING:
    from copl.records import IntArray
    from copl.reward.reading.reader import TextReader

Scores: TypeAlias = Callable[[ScoreRequests, AdaptedUsers | None], FloatArray]
"""Gives the reward of each request, as `copl.interfaces.PreferenceModel.scores`."""


@final
@frozen(eq=False)
class FittedRun:
    """A fitted run as `RunContext` needs it.

    Attributes:
        root: the run directory.
        method: the fitted method.
        stages: the parts of its recipe.
        data: gives the data set that it was trained on, when first asked for.
        scores: gives rewards; the method's own, or those with checks on top.
    """

    root: Path
    method: PreferenceModel
    stages: Stages
    data: Callable[[], PreferenceData]
    scores: Scores

    @cached_property
    def reader(self) -> TextReader:
        """Reads texts by the frozen backbone of the run.

        Raises:
            RunError: the method has none.
        """
        if "backbone" not in self.stages.parts:
            raise RunError(f"{self.root}: the run's method reads no texts; take a run of one that does, such as copl")
        from copl.reward.reading.reader import TextReader

        reader = TextReader.of(self.stages)
        reader.load(self.root)
        return reader

    @cached_property
    def truth(self) -> KnownTruth:
        """What the simulated users value.

        Raises:
            DataError: the data are not simulated.
        """
        return KnownTruth.of(self.data())


@final
@frozen(eq=False)
class RunContext:
    """A `copl.interfaces.AlignerContext` on a fitted run.

    Attributes:
        run: the run.
        generator: who writes candidates.
        directory: where the aligner may keep what it makes.
        progress: where to show progress.
        seed: the same seed gives the same answers.
        adapted: newcomers.
        support: what the newcomers have said, where that is known; what seen users among them have said since.
        simulated: users of whom all is known, whatever they have said; to an aligner that shows what they truly value.
    """

    run: FittedRun
    generator: Generator
    directory: Path
    progress: Progress
    seed: int = 0
    adapted: AdaptedUsers | None = None
    support: ComparisonSet | None = field(default=None)
    simulated: frozenset[str] = frozenset()

    @property
    def method(self) -> PreferenceModel:
        return self.run.method

    @cached_property
    def _known(self) -> frozenset[str]:
        newcomers = self.adapted.known if self.adapted else frozenset[str]()
        return self.simulated.union(self.run.method.seen_users(), newcomers)

    def knows(self, user_id: str) -> bool:
        return user_id in self._known

    def rewards(self, requests: AnswerRequests) -> CandidateRewards:
        user_ids = list(dict.fromkeys((*requests.user_ids, NOBODY)))
        table, places = _distinct(requests)
        users, responses = np.divmod(np.arange(len(user_ids) * len(table)), max(len(table), 1))
        asked = ScoreRequests(UserTable.ungrouped(user_ids), table, users, responses)
        scores = self.run.scores(asked, self.adapted).reshape(len(user_ids), len(table))
        rows = {user: row for row, user in enumerate(user_ids)}
        own = np.array([rows[user] for user in requests.user_ids], dtype=np.int64)
        return CandidateRewards(
            tuple(scores[own][:, texts] for texts in places), tuple(scores[rows[NOBODY], texts] for texts in places)
        )

    def utilities(self, requests: AnswerRequests) -> tuple[FloatArray, ...]:
        return self.run.truth.utilities(requests)

    def comparisons(self, user_id: str) -> ComparisonSet:
        said = [self.run.data().split("train").of_user(user_id)] if user_id in self.run.method.seen_users() else []
        if self.support is not None and not (now := self.support.of_user(user_id)).says_nothing:
            said.append(now)
        if not said:  # adapted elsewhere, by what nobody has told here
            return ComparisonSet(UserTable.ungrouped([user_id]), ResponseTable([], []), Comparisons.empty())
        return said[0] if len(said) == 1 else joined(said)

    def without_newcomers(self) -> RunContext:
        return evolve(self, adapted=None, support=None)

    def features(self, responses: ResponseTable) -> FloatArray:
        features = self.run.reader.features(responses, np.arange(len(responses)))
        values: FloatArray = features.double().cpu().numpy()
        return values


def _distinct(requests: AnswerRequests) -> tuple[ResponseTable, list[IntArray]]:
    """Return the distinct responses of all candidates, and the row of each candidate [P][n]."""
    rows: dict[tuple[str, str], int] = {}
    places = [
        np.array([rows.setdefault((prompt, text), len(rows)) for text in texts], dtype=np.int64)
        for prompt, texts in zip(requests.prompts, requests.candidates, strict=True)
    ]
    return ResponseTable([prompt for prompt, _ in rows], [text for _, text in rows]), places
