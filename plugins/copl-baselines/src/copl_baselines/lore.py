r"""Method ``lore``: users mix a few basis rewards, each linear in the features.

Bose et al., "LoRe: Personalizing LLMs via Low-Rank Reward Modeling", 2025, arXiv 2504.14439. With f the features of a
response and V [H, K] the basis,

.. math:: r_u(x) = f^T V \operatorname{softmax}(w_u)

V and all w are trained together by the Bradley-Terry loss, every user counting the same, with Adam and all comparisons
in each step. Unseen users: V is kept, w_u alone is learnt by the same loss. The state of a user is w_u.

Departures: features of a sentence encoder or language model as it is, where the authors take those of a trained reward
model and penalise the distance of V from its head; here there is early stopping instead. The release divides margins by
100 for features of another scale; `margin_scale` is that factor.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl_baselines.model import FeatureReward, Placed, Shape, Step, bradley_terry, fit_states
from copl_baselines.options import LoreOptions
from copl_baselines.pairs import Pairs, Texts


@final
class LoreReward(FeatureReward):
    """The basis V and the weights w of the seen users."""

    def __init__(self, options: LoreOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._options = options
        self.basis = nn.Parameter(torch.randn(shape.hidden_size, options.num_bases))
        self.users = nn.Parameter(torch.randn(len(shape.users), options.num_bases))

    def loss(self, batch: Pairs, step: Step) -> Tensor:
        return per_user_mean(batch, bradley_terry(self.margins(batch, self.users))).mean()

    def encode(self, texts: Texts) -> Tensor:
        return self._options.margin_scale * texts.features @ self.basis

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        return (codes * users.softmax(1)).sum(1)

    def seen_states(self, train: Pairs) -> Tensor:
        return self.users.detach()

    def place(self, support: Pairs) -> Placed:
        chosen, rejected = self.codes(support)
        differences = (chosen - rejected).detach()

        def loss(states: Tensor) -> Tensor:
            margins = (differences * F.embedding(support.user, states.softmax(1))).sum(1)
            return per_user_mean(support, bradley_terry(margins)).sum()

        start = torch.zeros(len(support.users), self._options.num_bases)
        options = self._options
        states = fit_states(start, loss, learning_rate=options.adapt_learning_rate, num_steps=options.adapt_steps)
        return Placed(states, "mixture-weights")

    def parameter_groups(self) -> list[dict[str, object]]:
        return [{"params": [self.basis]}, {"params": [self.users], "weight_decay": 0.0}]


def per_user_mean(pairs: Pairs, losses: Tensor) -> Tensor:
    """Return the mean of `losses` [N] over each user's comparisons [U]; 0 for a user without any."""
    return pairs.per_user(losses * pairs.weight) / pairs.per_user(pairs.weight).clamp_min(1e-12)
