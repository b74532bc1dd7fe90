r"""Method ``p-ttt``: a user's comparisons are written into fast weights of the reward model.

Personal test-time training of reward models, 2026, known here by its update rule. One MLP stands before the head; its
down-projection W [D, M] is fast. With keys k(x) [M], the hidden units of the MLP, and the head a [D], each comparison
of a user's context does

.. math:: W \leftarrow W + \eta \, v \, (k(x_c) - k(x_r))^T, \qquad v = W_{value} \, a

and the reward is that of the model with the user's weights, r_u(x) = a . (W_in f + W_u k(x)). No gradient is taken when
adapting: the rule is learnt, W_value and k with it, by the Bradley-Terry loss of comparisons that were not written.
Unseen users: the same updates on their comparisons. As v is the same in every update, W_u = W + eta v g_u^T with g_u
the sum of the differences of keys: g_u is the state of a user, the order of updates does not matter, and a user without
comparisons has g = 0.

Departures: the fast layer stands on the frozen features of whole responses, not on the last token within a language
model, and all layers are trained from nothing. The MLP is not gated: a gated one learnt the training
comparisons by heart.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl_baselines.episodes import episode
from copl_baselines.model import FeatureReward, Placed, Shape, Step, bradley_terry
from copl_baselines.options import PtttOptions
from copl_baselines.pairs import Pairs, Texts


@final
class PtttReward(FeatureReward):
    """An MLP with a fast down-projection, and a head."""

    batches_users: ClassVar[bool] = True

    def __init__(self, options: PtttOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._options = options
        self.dropout = nn.Dropout(options.dropout)
        self.up = nn.Linear(shape.hidden_size, options.width, bias=False)
        self.down = nn.Linear(options.width, options.output_dim, bias=False)
        self.past = nn.Linear(shape.hidden_size, options.output_dim, bias=False)
        self.value = nn.Linear(options.output_dim, options.output_dim, bias=False)
        self.head = nn.Linear(options.output_dim, 1, bias=False)
        nn.init.eye_(self.value.weight)

    def keys(self, features: Tensor) -> Tensor:
        """Return the keys [S, M] of features [S, H]."""
        return F.gelu(self.up(self.dropout(features)))

    def updates(self, pairs: Pairs, keys: Tensor) -> Tensor:
        """Return the sums [U, M] of each user's differences of keys [N, M]."""
        return pairs.per_user(keys * pairs.weight[:, None])

    def loss(self, batch: Pairs, step: Step) -> Tensor:
        pairs, shown = episode(batch, self._options.least_context, step.generator)
        chosen, rejected = self.codes(pairs)
        states = self.updates(pairs.take(shown), (chosen - rejected)[shown][:, 1:])
        left = pairs.take(~shown)
        users = F.embedding(left.user, states)
        margins = self.combine(chosen[~shown], users) - self.combine(rejected[~shown], users)
        return left.mean(bradley_terry(margins))

    def encode(self, texts: Texts) -> Tensor:
        keys = self.keys(texts.features)
        return torch.cat([self.head(self.past(texts.features) + self.down(keys)), keys], dim=1)

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        head = self.head.weight[0]
        strength = self._options.fast_rate * (head @ self.value(head))
        rewards: Tensor = codes[:, 0] + strength * (codes[:, 1:] * users).sum(1)
        return rewards

    def seen_states(self, train: Pairs) -> Tensor:
        return self.place(train).states

    @torch.no_grad()
    def place(self, support: Pairs) -> Placed:
        chosen, rejected = self.codes(support)
        return Placed(self.updates(support, (chosen - rejected)[:, 1:]), "fast-weights")

    def stranger(self, seen: Tensor) -> Tensor:
        return seen.new_zeros(seen.shape[1])
