r"""Method ``pref``: a user's reward is a linear combination of a few base rewards, found from few answers.

Shenfeld et al., "Language Model Personalization via Reward Factorization" (PReF), 2025, arXiv 2503.06358. With base
rewards phi(x) [d] of a response and coefficients u [d] of a user,

.. math:: P(c \succ r) = \sigma\bigl(u^T (\phi(x_c) - \phi(x_r))\bigr), \quad
    \text{loss } -\log P + \tfrac{\lambda_s}{2 U} \sum_u \lVert u \rVert^2

both started from a truncated singular value decomposition of the observed preferences, since the problem is bilinear.
Unseen users: phi is kept and u is the regularised logistic maximum-likelihood estimate from the support,

.. math:: \hat u = \arg\min_u \sum_i -\log \sigma(u^T v_i) + \tfrac{\lambda}{2} \lVert u \rVert^2, \quad
    v_i = \phi(x_{c_i}) - \phi(x_{r_i}),

found by Newton's method. The question worth asking next is the one with the largest (`uncertainty`)

.. math:: \sigma'(\hat u^T v)^2 \; v^T M^{-1} v, \quad M = \lambda I + \sum_i \sigma'(\hat u^T v_i)\, v_i v_i^T .

Departures: phi is linear in frozen features, or a small MLP beside that, where the authors train a language model's
head. They decompose the matrix of users and pairs, here pairs are rarely shared: what is decomposed is the matrix of
users and features, each row the sum of the user's differences of features, chosen minus rejected. The state of a user
is u.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl_baselines.model import FeatureReward, Placed, Shape, Step, bradley_terry
from copl_baselines.options import PrefOptions
from copl_baselines.pairs import Pairs, Texts

_NEWTON_STEPS = 25


@final
class PrefReward(FeatureReward):
    """Base rewards and the coefficients of the seen users."""

    def __init__(self, options: PrefOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._options = options
        self.linear = nn.Linear(shape.hidden_size, options.num_bases, bias=False)
        self.beside = None
        if options.width:
            last = nn.Linear(options.width, options.num_bases)
            nn.init.zeros_(last.weight)
            first = nn.Linear(shape.hidden_size, options.width)
            self.beside = nn.Sequential(first, nn.LeakyReLU(0.2), nn.Dropout(options.dropout), last)
        self.users = nn.Parameter(torch.randn(len(shape.users), options.num_bases))

    def start(self, train: Pairs) -> None:
        users, bases = spectral_start(train, self._options.num_bases)
        self.linear.weight.zero_()
        self.users.zero_()
        self.linear.weight[: len(bases)] = bases
        self.users[:, : len(bases)] = users

    def loss(self, batch: Pairs, step: Step) -> Tensor:
        penalty = 0.5 * self._options.seen_ridge * self.users.square().sum() / len(self.users)
        return batch.mean(bradley_terry(self.margins(batch, self.users))) + penalty

    def encode(self, texts: Texts) -> Tensor:
        codes: Tensor = self.linear(texts.features)
        return codes if self.beside is None else codes + self.beside(texts.features)

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        return (codes * users).sum(1)

    def seen_states(self, train: Pairs) -> Tensor:
        return self.users.detach()

    @torch.no_grad()
    def place(self, support: Pairs) -> Placed:
        chosen, rejected = self.codes(support)
        differences = (chosen - rejected).double()
        states = logistic_estimate(support, differences, self._options.ridge)
        return Placed(states.float(), "logistic-estimate")

    def parameter_groups(self) -> list[dict[str, object]]:
        others = [p for p in self.parameters() if p is not self.users]
        return [{"params": others}, {"params": [self.users], "weight_decay": 0.0}]


def spectral_start(train: Pairs, rank: int) -> tuple[Tensor, Tensor]:
    """Return coefficients [U, r] and linear base rewards [r, H], r <= `rank`, from a truncated decomposition.

    The matrix [U, H] holds the sum of each user's differences of features; the signs of the vectors are such that the
    largest coordinate of each base reward is positive, and the margins of `train` have a mean square of 1.
    """
    differences = train.winners.features - train.losers.features
    left, values, right = torch.linalg.svd(train.per_user(differences * train.weight[:, None]), full_matrices=False)
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    sign = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()
    users, bases = left * values.sqrt() * sign.T, values.sqrt()[:, None] * right * sign
    margins = (F.embedding(train.user, users) * (differences @ bases.T)).sum(1)
    scale = margins.square().mean().clamp_min(1e-24) ** -0.25
    return users * scale, bases * scale


def logistic_estimate(pairs: Pairs, differences: Tensor, ridge: float) -> Tensor:
    """Return each user's regularised logistic maximum-likelihood estimate [U, d].

    Newton's method, a step being halved as long as it does not lower the loss.

    Args:
        pairs: the comparisons.
        differences: base rewards of the chosen response minus those of the rejected one [N, d].
        ridge: lambda.
    """
    weight = pairs.weight.to(differences.dtype)
    identity = torch.eye(differences.shape[1], dtype=differences.dtype)
    users = differences.new_zeros(len(pairs.users), differences.shape[1])

    def loss(states: Tensor) -> Tensor:
        margins = (F.embedding(pairs.user, states) * differences).sum(1)
        return pairs.per_user(weight * bradley_terry(margins)) + 0.5 * ridge * states.square().sum(1)

    for _ in range(_NEWTON_STEPS):
        margins = (F.embedding(pairs.user, users) * differences).sum(1)
        gradient = ridge * users - pairs.per_user((weight * torch.sigmoid(-margins))[:, None] * differences)
        curvature = weight * torch.sigmoid(margins) * torch.sigmoid(-margins)
        outer = curvature[:, None, None] * differences[:, :, None] * differences[:, None, :]
        step = torch.linalg.solve(ridge * identity + pairs.per_user(outer), gradient[:, :, None])[:, :, 0]
        size, before = users.new_ones(len(users)), loss(users)
        for _ in range(10):
            size = torch.where(loss(users - size[:, None] * step) > before, size / 2, size)
        users = users - size[:, None] * step
    return users


def uncertainty(state: Tensor, asked: Tensor, questions: Tensor, ridge: float) -> Tensor:
    """Return for each question [Q] how uncertain its answer is: the user's next question is the largest.

    Args:
        state: coefficients of the user [d].
        asked: differences of base rewards of the pairs already answered [N, d].
        questions: those of the pairs that may be asked [Q, d].
        ridge: lambda.
    """

    def slope(differences: Tensor) -> Tensor:
        margins = differences @ state
        return torch.sigmoid(margins) * torch.sigmoid(-margins)

    precision = ridge * torch.eye(len(state), dtype=state.dtype) + asked.T @ (slope(asked)[:, None] * asked)
    variance: Tensor = (questions * torch.linalg.solve(precision, questions.T).T).sum(1)
    return slope(questions).square() * variance
