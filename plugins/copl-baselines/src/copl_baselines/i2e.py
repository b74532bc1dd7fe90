r"""Methods ``i2e`` and ``i2e-proxy``: a trained embedding for each user id conditions the reward model.

Baselines of Choi et al., "CoPL", EMNLP 2025, arXiv 2503.01658, who describe no more than that; these are working
definitions. With e_u a free vector for each seen user and f the features of a response,

.. math:: r_u(x) = w \cdot f + e_u^T B f / \sqrt{D} \quad \text{or} \quad w \cdot f + \mathrm{MLP}([f; e_u])

trained by the Bradley-Terry loss. Unseen users: ``i2e`` trains an embedding for the new id on the newcomer's
comparisons while the rest is kept as it is; ``i2e-proxy`` trains nothing and lends a newcomer the embedding of the seen
user whose rewards explain the comparisons best.

Departures: the language model is frozen and the head on its features is what is trained. The linear term all users
share is ours; so is the choice of the proxy.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl_baselines.layers import ConditionedHead
from copl_baselines.model import FeatureReward, Placed, Shape, Step, bradley_terry, fit_states
from copl_baselines.options import I2eOptions, IdOptions
from copl_baselines.pairs import Pairs, Texts


class IdReward(FeatureReward):
    """What both methods share: they differ in what an unseen user gets."""

    def __init__(self, options: IdOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self.users = nn.Embedding(len(shape.users), options.embedding_dim)
        self.head = ConditionedHead(
            options.head, shape.hidden_size, options.embedding_dim, options.width, options.dropout
        )
        self._decay = options.embedding_decay

    def loss(self, batch: Pairs, step: Step) -> Tensor:
        return batch.mean(bradley_terry(self.margins(batch, self.users.weight)))

    def encode(self, texts: Texts) -> Tensor:
        return self.head.encode(texts.features)

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        return self.head.combine(codes, users)

    def seen_states(self, train: Pairs) -> Tensor:
        return self.users.weight.detach()

    def parameter_groups(self) -> list[dict[str, object]]:
        return [
            {"params": list(self.head.parameters())},
            {"params": [self.users.weight], "weight_decay": self._decay},
        ]


@final
class I2eReward(IdReward):
    """Trains an embedding for a new id, starting from the mean of the seen ones."""

    def __init__(self, options: I2eOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._options = options

    def place(self, support: Pairs) -> Placed:
        start = self.stranger(self.users.weight).expand(len(support.users), -1)
        chosen, rejected = (codes.detach() for codes in self.codes(support))

        def loss(states: Tensor) -> Tensor:
            users = F.embedding(support.user, states)
            margins = self.combine(chosen, users) - self.combine(rejected, users)
            return (bradley_terry(margins) * support.weight).sum() + 0.5 * self._decay * (states - start).square().sum()

        options = self._options
        states = fit_states(start, loss, learning_rate=options.adapt_learning_rate, num_steps=options.adapt_steps)
        return Placed(states, "trained-embedding")


@final
class I2eProxyReward(IdReward):
    """Lends a newcomer the embedding of the seen user who would have chosen most like the newcomer did."""

    @torch.no_grad()
    def place(self, support: Pairs) -> Placed:
        seen = self.users.weight
        chosen, rejected = self.codes(support)
        fits = []
        for state in seen:
            users = state.expand(len(support), -1)
            margins = self.combine(chosen, users) - self.combine(rejected, users)
            fits.append(support.per_user(-bradley_terry(margins) * support.weight))
        likelihood = torch.stack(fits, dim=1)
        return Placed(F.embedding(likelihood.argmax(1), seen), "proxy", likelihood.softmax(1).amax(1))
