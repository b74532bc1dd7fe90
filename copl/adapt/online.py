"""A user who answers one comparison after another; nothing that is trained is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import torch

from copl.adapt.estimates import POPULATION, population_mean
from copl.adapt.lookalikes import Lookalikes, by_similar_texts
from copl.adapt.questions import expected_information
from copl.adapt.strategies.empirical import NAME, Empirical, EmpiricalOptions
from copl.adapt.support import match, matched_rows
from copl.interfaces import AdaptationStrategy, OnlineUser
from copl.records import AdaptedUsers, Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray

TRAINED = "trained"
"""How an embedding was found that training has left and no comparison has changed since."""


@final
class Belief:
    """What is thought of one user: how likely it is that they are like each group of seen users.

    Comparisons are independent given the group, so each adds its log-likelihood, and their order does not matter.

    Args:
        trained: what the encoder has learnt; it has users.
        model: how likely comparisons are for seen users, and what those are condensed to.
    """

    def __init__(self, trained: NodeEmbeddings, model: Empirical) -> None:
        self._trained = trained
        self._model = model
        self.prior = model.prior(trained)
        self.num_comparisons = 0
        self._evidence = torch.zeros(1, len(self.prior), dtype=torch.float64)

    @property
    def shares(self) -> Tensor:
        """Probability of each point of the prior [1, K]."""
        return self.prior.shares(self._evidence)

    def observe(self, comparisons: ComparisonSet) -> None:
        """Take comparisons of the user into account; those that touch no trained response say nothing.

        Raises:
            ValueError: the comparisons are of several users.
        """
        part = match(comparisons, self._trained)
        if len(part) > 1:
            raise ValueError(f"comparisons of one user expected, got those of {len(part)}")
        if len(part.newcomer):
            self._evidence = self._evidence + self._model.evidence(part, self.prior)
            self.num_comparisons += len(part.newcomer)

    def observe_training(self, user: int) -> None:
        """Take the training comparisons of the seen user at this row into account."""
        rows = self._trained.comparisons
        own = rows.take(rows.user == user)
        part = matched_rows((self._trained.user_ids[user],), np.zeros(len(own), dtype=np.int64), own, self._trained)
        self._evidence = self._evidence + self._model.evidence(part, self.prior)
        self.num_comparisons += len(part.newcomer)

    def information(self, questions: ComparisonSet) -> FloatArray:
        """Return the bits that the answer to each pair (chosen or rejected?) is expected to tell [Q].

        A pair that touches no trained response tells nothing.
        """
        rows = questions.comparisons
        one_each = Comparisons(np.arange(len(rows)), rows.chosen, rows.rejected)
        users = UserTable.ungrouped([str(row) for row in range(len(rows))])
        part = match(ComparisonSet(users, questions.responses, one_each), self._trained)
        bits = np.zeros(len(rows))
        if len(part.newcomer):
            probabilities = self._model.probabilities(part, self.prior)
            bits[part.newcomer] = expected_information(self.shares, probabilities)[0].numpy()
        return bits


@final
class RunningEstimate(OnlineUser):
    """A user whose embedding is up to date after every comparison.

    With the strategy ``empirical`` a comparison costs one pass over the points of the prior, however many came before.
    Any other strategy is given all the user's comparisons anew. Either way the result is that of adapting to all of
    them at once. Questions are chosen under the belief of ``empirical`` whatever the strategy. A user seen in training
    starts with the training comparisons, keeps the trained embedding until the first new one, and is then placed by
    ``empirical``.

    Args:
        user_id: the user's id.
        trained: what the encoder has learnt; it has users.
        strategy: places the user.
        lookalikes: finds annotated responses for those that were never annotated, where there are texts.
    """

    def __init__(
        self,
        user_id: str,
        trained: NodeEmbeddings,
        strategy: AdaptationStrategy,
        lookalikes: Lookalikes | None = None,
    ) -> None:
        self._users = UserTable.ungrouped([user_id])
        self._trained = trained
        self._strategy = strategy
        self._lookalikes = lookalikes
        self._said: list[ComparisonSet] = []
        self._translated = False
        self._belief = Belief(trained, strategy if isinstance(strategy, Empirical) else Empirical(EmpiricalOptions()))
        self._row = trained.user_rows.get(user_id)
        if self._row is not None:
            self._belief.observe_training(self._row)

    @property
    def adapted(self) -> AdaptedUsers:
        """The user as of now."""
        if self._row is not None and not self._said:
            one = self._trained.users[self._row : self._row + 1].detach().cpu()
            return self._answer(one, TRAINED, len(self._trained.user_ids), self._sure())
        if self._row is None and self._said and not isinstance(self._strategy, Empirical):
            found = self._strategy.adapt(self._everything(), self._trained)
            return by_similar_texts(found, np.array([self._translated]))
        if not self._belief.num_comparisons:
            mean = population_mean(self._trained)[None].to(self._trained.users.dtype)
            return self._answer(mean, POPULATION, len(self._trained.user_ids), 0.0)
        shares, prior = self._belief.shares, self._belief.prior
        embedding = prior.mean(shares).to(self._trained.users.dtype)
        found = self._answer(embedding, NAME, int(prior.effective_users(shares)[0]), self._sure())
        return by_similar_texts(found, np.array([self._translated]))

    def add(self, comparisons: ComparisonSet) -> AdaptedUsers:
        """Take more comparisons of this user into account and return the user as of now.

        Raises:
            ValueError: the comparisons are of several users, or of another one.
        """
        present = {comparisons.users.ids[row] for row in np.unique(comparisons.comparisons.user).tolist()}
        if not present <= set(self._users.ids):
            raise ValueError(f"comparisons of {self._users.ids[0]!r} expected, got those of {sorted(present)}")
        if self._lookalikes is not None:
            comparisons, changed = self._lookalikes.translate(comparisons, self._trained)
            self._translated |= bool(changed.any())
        self._belief.observe(comparisons)
        self._said.append(comparisons)
        return self.adapted

    def information(self, questions: ComparisonSet) -> FloatArray:
        if self._lookalikes is not None:
            questions, _ = self._lookalikes.translate(questions, self._trained)
        return self._belief.information(questions)

    def _sure(self) -> float:
        return float(self._belief.prior.variance_removed(self._belief.shares)[0])

    def _answer(self, embedding: Tensor, how: str, num_neighbours: int, confidence: float) -> AdaptedUsers:
        return AdaptedUsers(self._users.ids, embedding, (how,), np.array([num_neighbours]), np.array([confidence]))

    def _everything(self) -> ComparisonSet:
        """Return all comparisons so far as one set."""
        prompts: list[str] = []
        texts: list[str] = []
        parts = []
        for said in self._said:
            rows = said.comparisons
            parts.append(
                Comparisons(np.zeros_like(rows.user), rows.chosen + len(texts), rows.rejected + len(texts), rows.weight)
            )
            prompts += said.responses.prompts
            texts += said.responses.texts
        return ComparisonSet(self._users, ResponseTable(prompts, texts), Comparisons.concat(parts))
