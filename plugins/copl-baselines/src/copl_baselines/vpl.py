r"""Method ``vpl``: a variational encoder reads a user's comparisons into a latent vector that conditions the reward.

Poddar et al., "Personalizing Reinforcement Learning from Human Feedback with Variational Preference Learning", NeurIPS
2024, arXiv 2408.10075. Each comparison of a user is encoded by an MLP over the features of both responses, the
encodings attend to each other, and their mean gives the posterior,

.. math::
    s_i = \mathrm{MLP}([f_{c_i}; f_{r_i}]), \quad \bar s = \operatorname{mean}_i \operatorname{attention}(s)_i, \quad
    q(z \mid C_u) = N(\mu(\bar s), \sigma^2(\bar s)), \quad r_u(x) = \mathrm{MLP}([f; z])

trained by the Bradley-Terry loss plus beta KL(q || N(0, 1)), beta following cycles that rise as a half cosine; mu and
log sigma^2 are clamped to +-1 and z is scaled to the length of sqrt(D). Unseen users: their comparisons are encoded,
nothing is trained. The state of a user is the scaled mu.

Departures: the latent vector and the hidden layers are smaller than the published 512, and the language model is frozen
throughout. In training the comparisons of a user are divided at random into some that are encoded and the others that
are explained, so that none is explained by having been read. Beta weighs the mean divergence of a user; the release
sums over a batch, without the factor of a half, and shrinks the noise a thousandfold. z is scaled at evaluation as in
training. The linear term all users share is ours.
"""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl_baselines.layers import ConditionedHead, mlp
from copl_baselines.model import FeatureReward, Placed, Shape, Step, bradley_terry
from copl_baselines.options import VplOptions
from copl_baselines.pairs import Pairs, Texts


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, 1)) of each row [U], summed over coordinates."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def annealing(done: float, num_cycles: int) -> float:
    """Return the factor on beta: in each cycle a half cosine from 0 to 1.

    >>> [round(annealing(done, 2), 2) for done in (0, 0.25, 0.49, 0.5, 0.75)]
    [0.0, 0.5, 1.0, 0.0, 0.5]
    """
    return 0.5 * (1 - math.cos(math.pi * (done * num_cycles % 1)))


@final
class VplReward(FeatureReward):
    """Encoder of comparisons and reward of features and latent vector."""

    batches_users: ClassVar[bool] = True

    def __init__(self, options: VplOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._options = options
        width, dim = options.width, options.latent_dim
        self.pair = mlp(2 * shape.hidden_size, width, width, dim, dropout=options.dropout)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.mean, self.log_variance = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.head = ConditionedHead("mlp", shape.hidden_size, dim, width, options.dropout)

    def posterior(self, pairs: Pairs, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance [U, D] of the users' posteriors.

        Args:
            pairs: the comparisons.
            context: which of them are read [N].
        """
        read = self.pair(torch.cat([pairs.winners.features, pairs.losers.features], dim=1))
        rows, real = pairs.by_user()
        real = real & context[rows]
        codes = F.embedding(rows, read)
        scores = self.query(codes) @ self.key(codes).transpose(1, 2) / math.sqrt(codes.shape[2])
        attention = scores.masked_fill(~real[:, None, :], -1e9).softmax(2)
        attended = attention @ self.value(codes) * real[:, :, None]
        pooled = attended.sum(1) / real.sum(1).clamp_min(1)[:, None]
        return self.mean(pooled).clamp(-1, 1), self.log_variance(pooled).clamp(-1, 1)

    def loss(self, batch: Pairs, step: Step) -> Tensor:
        pairs, _ = batch.compact()
        context = draw_context(pairs, self._options.least_context, step.generator)
        mean, log_variance = self.posterior(pairs, context)
        noise = torch.randn(mean.shape, generator=step.generator)
        states = scaled(mean + (0.5 * log_variance).exp() * noise)
        alone = torch.bincount(pairs.user, minlength=len(pairs.users))[pairs.user] == 1
        explained = pairs.take(~context | alone)
        beta = self._options.kl_weight * annealing(step.done, self._options.num_cycles)
        divergence = kl_divergence(mean, log_variance).mean()
        return explained.mean(bradley_terry(self.margins(explained, states))) + beta * divergence

    def encode(self, texts: Texts) -> Tensor:
        return self.head.encode(texts.features)

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        return self.head.combine(codes, users)

    def seen_states(self, train: Pairs) -> Tensor:
        return self.place(train).states

    @torch.no_grad()
    def place(self, support: Pairs) -> Placed:
        mean, log_variance = self.posterior(support, torch.ones(len(support), dtype=torch.bool))
        return Placed(scaled(mean), "encoded", (1 - log_variance.exp().mean(1)).clamp(0, 1))


def scaled(states: Tensor) -> Tensor:
    """Return the states [U, D] with the length sqrt(D)."""
    return F.normalize(states, dim=1) * math.sqrt(states.shape[1])


def draw_context(pairs: Pairs, least: float, generator: torch.Generator) -> Tensor:
    """Return which comparisons [N] are read: at least the share `least` of each user, and not all of several.

    Args:
        pairs: the comparisons.
        least: from 0 to 1; one comparison is read in any case.
        generator: what is drawn from.
    """
    rows, real = pairs.by_user()
    order = torch.rand(rows.shape, generator=generator).masked_fill(~real, 2.0).argsort(1).argsort(1)
    most = real.sum(1) - 1
    fewest = (least * (most + 1)).long().clamp(min=1).minimum(most.clamp(min=1))
    share = torch.rand(len(rows), generator=generator)
    num_read = fewest + (share * (most - fewest + 1).clamp(min=1)).long()
    context = torch.zeros(len(pairs), dtype=torch.bool)
    context[rows[real]] = (order < num_read[:, None])[real]
    return context
