r"""Method ``dpl``: the reward of a response is a distribution over annotators who are not told apart.

Siththaranjan et al., "Distributional Preference Learning: Understanding and Accounting for Hidden Context in RLHF",
ICLR 2024, arXiv 2312.08358. With mean and deviation, or the probabilities p of atoms between 0 and 1, of each response,
the loss of a comparison of c and r is

.. math::
    \text{mean-variance: } \operatorname{softplus}\Bigl(-\sqrt{2\pi}\,
        \frac{\mu_c - \mu_r}{\sqrt{\sigma_c^2 + \sigma_r^2}}\Bigr), \qquad
    \text{categorical: } -\log \sum_{i, j} p_{c,i}\, p_{r,j}\, \bigl([i > j] + \tfrac12 [i = j]\bigr)

the latter with a bonus for the entropy of the mean distribution of the batch.

Unseen users are scored like everybody: the method takes no notice of users. A response is scored by its mean reward.

Departures: the language model is frozen and only a head on its features is trained.
"""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from copl_baselines.layers import mlp
from copl_baselines.model import FeatureReward, Placed, Shape, Step
from copl_baselines.options import DplOptions
from copl_baselines.pairs import Pairs, Texts


def mean_variance_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the loss of each comparison [N] from means (column 0) and raw deviations (column 1) [N, 2]."""
    variance = F.softplus(chosen[:, 1]).square() + F.softplus(rejected[:, 1]).square()
    return F.softplus(-math.sqrt(2 * math.pi) * (chosen[:, 0] - rejected[:, 0]) / variance.sqrt())


def categorical_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the loss of each comparison [N] from the logits of the atoms [N, A]."""
    p, q = chosen.softmax(1), rejected.softmax(1)
    below = q.cumsum(1) - 0.5 * q
    return -(p * below).sum(1).clamp_min(1e-12).log()


@final
class DplReward(FeatureReward):
    """A head with two outputs, mean and deviation, or one for each atom."""

    def __init__(self, options: DplOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._options = options
        outputs = 2 if options.distribution == "mean-variance" else options.num_atoms
        hidden = [options.width] if options.width else []
        self.head = mlp(shape.hidden_size, *hidden, outputs, dropout=options.dropout)

    def loss(self, batch: Pairs, step: Step) -> Tensor:
        chosen, rejected = self.codes(batch)
        if self._options.distribution == "categorical":
            mean = torch.cat([chosen, rejected]).softmax(1).mean(0)
            entropy = -(mean * mean.clamp_min(1e-12).log()).sum()
            return batch.mean(categorical_loss(chosen, rejected)) - self._options.entropy_weight * entropy
        variance = F.softplus(chosen[:, 1]).square() + F.softplus(rejected[:, 1]).square()
        loss = batch.mean(mean_variance_loss(chosen, rejected))
        return loss + self._options.variance_penalty * variance.mean()

    def encode(self, texts: Texts) -> Tensor:
        outputs: Tensor = self.head(texts.features)
        return outputs

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        if self._options.distribution == "categorical":
            return codes.softmax(1) @ torch.linspace(0, 1, codes.shape[1])
        return codes[:, 0]

    def seen_states(self, train: Pairs) -> Tensor:
        return torch.zeros(len(train.users), 0)

    def place(self, support: Pairs) -> Placed:
        return Placed(torch.zeros(len(support.users), 0), "unpersonalised")
