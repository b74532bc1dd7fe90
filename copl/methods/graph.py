"""Method ``graph``: the encoder alone, scoring by its own embeddings and no text.

This is collaborative filtering: the quick way to compare encoders, and what a reward model has to add to. A response
that was not in the graph scores 0, so comparisons of never-trained responses come out even.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, final

from copl.interfaces import FormerRun, OnlineUser, Workspace
from copl.methods.catalogue import GraphOptions
from copl.methods.parts.going_on import GoesOn
from copl.methods.parts.recency import Recency
from copl.methods.parts.user_space import UserSpace
from copl.records import (
    AdaptedUsers,
    ComparisonSet,
    Diagnostics,
    FloatArray,
    PreferenceData,
    ResponseTable,
    ScoreRequests,
    UserTable,
)
from copl.runs.recipe import Stages

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records.explanation import Explanation


@final
class GraphMethod(GoesOn):
    """Scores e_u . e_r + b_r from the encoder's embeddings, up to a constant of each user."""

    def __init__(self, options: GraphOptions, stages: Stages) -> None:
        self._options = options
        self._stages = stages
        self._space: UserSpace | None = None
        self._recency = Recency(None)

    @property
    def space(self) -> UserSpace:
        if self._space is None:
            raise RuntimeError("fit or load the method first")
        return self._space

    def _fit(self, data: PreferenceData, former: FormerRun | None, seed: int, workspace: Workspace) -> None:
        stages = self._stages
        self._recency = Recency.fit(self._options, data, stages, None, seed=seed, workspace=workspace, former=former)
        data = self._recency.of_data(data)
        self._space = UserSpace.fit(data, stages, None, seed=seed, workspace=workspace, former=former)

    def load(self, directory: Path) -> None:
        self._recency = Recency.load(self._options, directory)
        self._space = UserSpace.load(directory, self._stages, None)

    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        return self.space.adapt(self._recency.of_support(support))

    def online(self, user_id: str) -> OnlineUser:
        return self.space.online(user_id, self._recency.of_support)

    def explain(self, user: str, responses: ResponseTable, support: ComparisonSet | None) -> Explanation:
        heard, adapted = self.space.heard(user, None if support is None else self._recency.of_support(support))
        return self.space.explain(user, responses, heard, adapted)

    def seen_users(self) -> Collection[str]:
        return self.space.trained.user_rows.keys()

    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        return self.space.scores(requests, adapted)

    def user_vectors(self, users: UserTable, adapted: AdaptedUsers | None) -> Tensor:
        """Return the embedding of each user [U, D]: adapted, else trained, else the mean of the trained ones."""
        return self.space.vectors(users, adapted)

    def diagnostics(self) -> Diagnostics:
        trained = self.space.trained
        return Diagnostics(user_ids=trained.user_ids, user_embeddings=trained.users.double().numpy())


def build(options: GraphOptions, *, stages: Stages) -> GraphMethod:
    return GraphMethod(options, stages)
