r"""Method ``group-oracle``: one Bradley-Terry model for each true group of users, what knowing the groups is worth.

An upper reference of Choi et al., "CoPL", EMNLP 2025, arXiv 2503.01658 (a working definition). With f the features of a
response, the reward for group g is

.. math:: r_g(x) = (w + d_g) \cdot f

trained by the Bradley-Terry loss on the group's comparisons: d_g is the group's own adapter, w what all share; the
weight decay of d_g says how much. Users whose group the data does not tell are left out of training.

Unseen users: the model of their true group where the data tells it, else of the group that explains their comparisons
best; seen users of no known group likewise. A stranger gets the mean over the seen users.

Departures: the language model is frozen and the heads on its features are what is trained.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor, nn

from copl.errors import DataError
from copl_baselines.model import FeatureReward, Placed, Shape, Step, bradley_terry
from copl_baselines.options import GroupOracleOptions
from copl_baselines.pairs import Pairs, Texts


@final
class GroupReward(FeatureReward):
    """A shared weight vector and one for each group; the state of a user is one-hot over the groups.

    Raises:
        DataError: no seen user has a group.
    """

    knows_groups: ClassVar[bool] = True

    def __init__(self, options: GroupOracleOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._rows = {name: row for row, name in enumerate(sorted({g for g in shape.users.groups if g is not None}))}
        if not self._rows:
            raise DataError("method group-oracle needs the true groups of users, and the data set tells none")
        self.shared = nn.Linear(shape.hidden_size, 1, bias=False)
        self.groups = nn.Linear(shape.hidden_size, len(self._rows), bias=False)
        nn.init.zeros_(self.shared.weight)
        nn.init.zeros_(self.groups.weight)
        self._decay = options.group_decay

    def loss(self, batch: Pairs, step: Step) -> Tensor:
        states = self._true(batch)
        known = states.sum(1)[batch.user]
        losses = bradley_terry(self.margins(batch, states)) * batch.weight * known
        return losses.sum() / (batch.weight * known).sum().clamp_min(1e-12)

    def encode(self, texts: Texts) -> Tensor:
        return torch.cat([self.shared(texts.features), self.groups(texts.features)], dim=1)

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        return codes[:, 0] + (codes[:, 1:] * users).sum(1)

    def seen_states(self, train: Pairs) -> Tensor:
        return self.place(train).states

    def place(self, support: Pairs) -> Placed:
        states = self._true(support)
        unknown = states.sum(1) == 0
        likelihood = support.per_user(self._log_likelihoods(support)).softmax(1)
        best = torch.eye(len(self._rows))[likelihood.argmax(1)]
        how = tuple("best-group" if here else "true-group" for here in unknown.tolist())
        confidence = torch.where(unknown, likelihood.amax(1), torch.ones(len(states)))
        return Placed(torch.where(unknown[:, None], best, states), how, confidence)

    def parameter_groups(self) -> list[dict[str, object]]:
        return [
            {"params": [self.shared.weight]},
            {"params": [self.groups.weight], "weight_decay": self._decay},
        ]

    def _true(self, pairs: Pairs) -> Tensor:
        """Return one-hot groups [U, G]; zeros where the group is not told, or was never trained."""
        states = torch.zeros(len(pairs.users), len(self._rows))
        for user, group in enumerate(pairs.users.groups):
            if group in self._rows:
                states[user, self._rows[group]] = 1
        return states

    @torch.no_grad()
    def _log_likelihoods(self, pairs: Pairs) -> Tensor:
        """Return the log-likelihood of each comparison under each group's model [N, G]."""
        chosen, rejected = self.codes(pairs)
        difference = chosen - rejected
        return -bradley_terry(difference[:, :1] + difference[:, 1:]) * pairs.weight[:, None]
