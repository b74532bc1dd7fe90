"""A user who says one thing after another; nothing that is trained is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

import numpy as np

from copl.adapt.estimates import POPULATION, population_mean
from copl.adapt.strategies.catalogue import EmpiricalOptions
from copl.adapt.strategies.empirical import Empirical
from copl.adapt.support import nothing_said
from copl.interfaces import AdaptationStrategy, OnlineUser
from copl.records import AdaptedUsers, ComparisonSet, NodeEmbeddings, UserTable
from copl.records.said import joined

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray

TRAINED = "trained"
"""How an embedding was found that training has left and nothing that was said since has changed."""


def _as_it_is(said: ComparisonSet) -> ComparisonSet:
    return said


@final
class RunningEstimate(OnlineUser):
    """A user whose embedding is up to date after everything they say.

    The result is that of adapting to all of it at once, with the training comparisons of one seen in training. Such a
    user keeps the trained embedding until the first new word. Of what is said again of the same the last counts.
    Questions are chosen under the belief of ``empirical`` whatever the strategy.

    Args:
        user_id: the user's id.
        trained: what the encoder has learnt; it has users.
        strategy: places the user.
        read: returns what is added with the features of its texts, where there are texts.
        weigh: returns all that was said with the weight that each part has by now, such as less for what is older.
    """

    def __init__(
        self,
        user_id: str,
        trained: NodeEmbeddings,
        strategy: AdaptationStrategy,
        read: Callable[[ComparisonSet], ComparisonSet] = _as_it_is,
        weigh: Callable[[ComparisonSet], ComparisonSet] = _as_it_is,
    ) -> None:
        self._users = UserTable.ungrouped([user_id])
        self._trained = trained
        self._strategy = strategy
        self._belief = strategy if isinstance(strategy, Empirical) else Empirical(EmpiricalOptions())
        self._read = read
        self._weigh = weigh
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

    def add(self, said: ComparisonSet) -> AdaptedUsers:
        """Take more of what this user says into account, comparisons and judgements, and return the user as of now.

        Raises:
            ValueError: it is of several users, or of another one.
        """
        if not set(said.speakers) <= set(self._users.ids):
            raise ValueError(f"what {self._users.ids[0]!r} says is expected, got words of {list(said.speakers)}")
        if not said.says_nothing:
            self._said.append(self._read(said.of_user(self._users.ids[0])))
        return self.adapted

    def information(self, questions: ComparisonSet) -> FloatArray:
        return self._belief.information(self._everything(), self._read(questions), self._trained)

    def _answer(self, embedding: Tensor, how: str, confidence: float) -> AdaptedUsers:
        num_users = len(self._trained.user_ids)
        return AdaptedUsers(self._users.ids, embedding, (how,), np.array([num_users]), np.array([confidence]))

    def _everything(self) -> ComparisonSet:
        """Return all that was said so far as one set, with its weight by now; before the first, nothing."""
        return self._weigh(joined(self._said)) if self._said else nothing_said(self._users)
