r"""Method ``mrm``: base rewards whose mixture is meta-learned, so that one gradient step makes it a user's own.

Cai et al., "One Adapts to Any: Meta Reward Modeling for Personalized LLM Alignment", SIGIR 2026, arXiv 2601.18731. With
base rewards phi(x) [K] and mixture weights w [K],

.. math:: r_w(x) = \operatorname{softmax}(w)^T \phi(x)

Each user is a task. An inner step of gradient descent starts from the common w_0 and goes down the Bradley-Terry loss
of some of the user's comparisons, the outer loss L_u is that of the others, and gradients go through the step to w_0
and phi:

.. math:: w_u = w_0 - \alpha \nabla_{w_0} \operatorname{BT}(w_0; C_u), \qquad
    \text{loss } \frac{1}{U} \sum_u s_u L_u, \quad s_u = \sigma\bigl((L_u - \tau) / \gamma\bigr)

where tau is the 1 - rho quantile of the batch's losses, so that users who are hard to learn count more. Seen and unseen
users alike: one inner step on all their comparisons. The state of a user is w_u.

Departures: the release takes the inner step with Adam, which on a first step knows the gradient's sign only; here it is
gradient descent as in the paper's equation, with a rate to suit, and as many bases as `num_bases` says (preset
``paper``: two). The release sums over a batch of users, here it is the mean; its shared layers are linear, as here.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl_baselines.episodes import episode
from copl_baselines.lore import per_user_mean
from copl_baselines.model import FeatureReward, Placed, Shape, Step, bradley_terry
from copl_baselines.options import MrmOptions
from copl_baselines.pairs import Pairs, Texts


def robust_mean(losses: Tensor, hard_share: float, smoothing: float) -> Tensor:
    """Return the mean [] of users' losses [U], the hard to learn counting more: those over the 1 - rho quantile."""
    threshold = torch.quantile(losses, 1 - hard_share)
    if smoothing == 0:
        return (losses * (losses > threshold)).mean()
    return (losses * torch.sigmoid((losses - threshold) / smoothing)).mean()


@final
class MrmReward(FeatureReward):
    """Base rewards and the common start w_0 of the mixture weights."""

    batches_users: ClassVar[bool] = True

    def __init__(self, options: MrmOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._options = options
        self.bases = nn.Linear(shape.hidden_size, options.num_bases, bias=False)
        self.weights = nn.Parameter(torch.randn(options.num_bases))

    def loss(self, batch: Pairs, step: Step) -> Tensor:
        pairs, shown = episode(batch, self._options.least_context, step.generator)
        chosen, rejected = self.codes(pairs)
        differences = chosen - rejected
        states = self.adapted(pairs.take(shown), differences[shown])
        outer = pairs.take(~shown)
        margins = (differences[~shown] * F.embedding(outer.user, states.softmax(1))).sum(1)
        losses = per_user_mean(outer, bradley_terry(margins))
        return robust_mean(losses, self._options.hard_share, self._options.smoothing)

    def adapted(self, pairs: Pairs, differences: Tensor) -> Tensor:
        """Return the users' weights [U, K] after the inner steps; a user without comparisons keeps w_0.

        Args:
            pairs: the comparisons.
            differences: base rewards of the chosen response minus those of the rejected one [N, K].
        """
        states = self.weights.expand(len(pairs.users), -1)
        for _ in range(self._options.inner_steps):
            shares = states.softmax(1)
            margins = (F.embedding(pairs.user, shares) * differences).sum(1)
            wanted = per_user_mean_of(pairs, torch.sigmoid(-margins)[:, None] * differences)
            # The gradient of the loss by w, through the softmax.
            states = states + self._options.inner_rate * shares * (wanted - (shares * wanted).sum(1, keepdim=True))
        return states

    def encode(self, texts: Texts) -> Tensor:
        codes: Tensor = self.bases(texts.features)
        return codes

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        return (codes * users.softmax(1)).sum(1)

    def seen_states(self, train: Pairs) -> Tensor:
        return self.place(train).states

    @torch.no_grad()
    def place(self, support: Pairs) -> Placed:
        chosen, rejected = self.codes(support)
        return Placed(self.adapted(support, chosen - rejected), "inner-step")

    def stranger(self, seen: Tensor) -> Tensor:
        return self.weights.detach()


def per_user_mean_of(pairs: Pairs, values: Tensor) -> Tensor:
    """Return the weighted mean of `values` [N, K] over each user's comparisons [U, K]; 0 for a user without any."""
    return pairs.per_user(values * pairs.weight[:, None]) / pairs.per_user(pairs.weight).clamp_min(1e-12)[:, None]
