"""A user who answers one comparison after another; nothing that is trained is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

import attrs
import numpy as np
import torch

from copl.adapt.estimates import POPULATION, population_mean
from copl.adapt.strategies.catalogue import EmpiricalOptions
from copl.adapt.strategies.empirical import Empirical
from copl.interfaces import AdaptationStrategy, OnlineUser
from copl.records import AdaptedUsers, Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray

TRAINED = "trained"
"""How an embedding was found that training has left and no comparison has changed since."""


@final
class RunningEstimate(OnlineUser):
    """A user whose embedding is up to date after every comparison.

    The result is that of adapting to everything the user has said at once, with the training comparisons of one seen in
    training. Such a user keeps the trained embedding until the first new comparison. Questions are chosen under the
    belief of ``empirical`` whatever the strategy.

    Args:
        user_id: the user's id.
        trained: what the encoder has learnt; it has users.
        strategy: places the user.
        read: returns comparisons with the features of their texts, where there are texts.
    """

    def __init__(
        self,
        user_id: str,
        trained: NodeEmbeddings,
        strategy: AdaptationStrategy,
        read: Callable[[ComparisonSet], ComparisonSet] = lambda comparisons: comparisons,
    ) -> None:
        self._users = UserTable.ungrouped([user_id])
        self._trained = trained
        self._strategy = strategy
        self._belief = strategy if isinstance(strategy, Empirical) else Empirical(EmpiricalOptions())
        self._read = read
        self._said: list[ComparisonSet] = []

    @property
    def adapted(self) -> AdaptedUsers:
        """The user as of now."""
        trained = self._trained
        row = trained.user_rows.get(self._users.ids[0])
        if self._said:
            return self._strategy.adapt(self._everything(), trained)
        if row is None:
            mean = population_mean(trained)[None].to(trained.users.dtype)
            return self._answer(mean, POPULATION, 0.0)
        sure = float(self._belief.adapt(self._everything(), trained).confidence[0])  # by the training comparisons
        return self._answer(trained.users[row : row + 1].detach().cpu(), TRAINED, sure)

    def add(self, comparisons: ComparisonSet) -> AdaptedUsers:
        """Take more comparisons of this user into account and return the user as of now.

        Raises:
            ValueError: the comparisons are of several users, or of another one.
        """
        present = {comparisons.users.ids[row] for row in np.unique(comparisons.comparisons.user).tolist()}
        if not present <= set(self._users.ids):
            raise ValueError(f"comparisons of {self._users.ids[0]!r} expected, got those of {sorted(present)}")
        if len(comparisons):
            self._said.append(self._read(comparisons))
        return self.adapted

    def information(self, questions: ComparisonSet) -> FloatArray:
        return self._belief.information(self._everything(), self._read(questions), self._trained)

    def _answer(self, embedding: Tensor, how: str, confidence: float) -> AdaptedUsers:
        num_users = len(self._trained.user_ids)
        return AdaptedUsers(self._users.ids, embedding, (how,), np.array([num_users]), np.array([confidence]))

    def _everything(self) -> ComparisonSet:
        """Return all comparisons so far as one set; before the first one, a comparison that says nothing."""
        if not self._said:
            return ComparisonSet(self._users, ResponseTable([""], [""]), Comparisons([0], [0], [0], [0.0]))
        prompts: list[str] = []
        texts: list[str] = []
        parts, features = [], []
        for said in self._said:
            rows = said.comparisons
            parts.append(
                attrs.evolve(
                    rows,
                    user=np.zeros_like(rows.user),
                    chosen=rows.chosen + len(texts),
                    rejected=rows.rejected + len(texts),
                )
            )
            prompts += said.responses.prompts
            texts += said.responses.texts
            if said.features is not None:
                features.append(said.features)
        whole = torch.cat(features) if len(features) == len(self._said) else None
        return ComparisonSet(self._users, ResponseTable(prompts, texts), Comparisons.concat(parts), whole)
