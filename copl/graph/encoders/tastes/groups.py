r"""Where users gather along the directions of taste: a mixture of normal distributions as their prior.

.. math::
    p(z) = \sum_g \pi_g\, N(z;\, \mu_g, S)

Two users of a group want nearly the same, two of different groups may want the opposite; one normal distribution can
say neither. A user's comparisons are a normal factor of z with taste in any direction integrated out (the bound of
`copl.graph.encoders.tastes.users`), so expectation-maximisation has no more to look at than U small matrices, as the
"extreme deconvolution" of Bovy, Hogg and Roweis (Annals of Applied Statistics 5, 2011). How many groups there are is
told by the evidence less Schwarz's penalty (Annals of Statistics 6, 1978); one normal distribution of unit variance
stands for users who gather nowhere. The bound takes large margins for surer than they are, which lets groups be seen
too readily: whether they are worth anything is for what is held out to say.

Shapes: U users, G groups, K directions, D coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from copl.graph.encoders.tastes.users import Block, Evidence, Grouping
from copl.graph.starts import clusters

if TYPE_CHECKING:
    from copl.records import IntArray

_MOST_OF_A_USER = 4096
_SWEEPS = 8
_MOST_USERS = 5000
_STARTS = 4
_ROUNDS = 200
_SETTLED = 1e-6
_LEAST_VARIANCE = 1e-2
_START = 0.1


@final
@frozen(eq=False)
class TasteGroups:
    """The prior of tastes along directions; the covariance all groups have in common is diagonal.

    Attributes:
        shares: pi, share of the users in each group [G].
        means: mu, mean taste of each group [G, K].
        scale: standard deviations within a group [K].
    """

    shares: Tensor
    means: Tensor
    scale: Tensor

    @classmethod
    def one(cls, num_directions: int) -> TasteGroups:
        """Return the prior of users who gather nowhere, of unit variance."""
        unit = torch.ones(num_directions, dtype=torch.float64)
        return cls(torch.ones(1, dtype=torch.float64), torch.zeros_like(unit)[None], unit)

    def __len__(self) -> int:
        return len(self.shares)


def tastes(
    evidence: Evidence, user: IntArray, num_users: int, tau2: float, groups: TasteGroups
) -> tuple[Tensor, Tensor]:
    """Return the mean z [U, K] and e [U, D] of all users; those of the prior where a user has no comparison.

    Of a user with more than 4,096 comparisons a part of so many speaks.
    """
    along = (groups.shares @ groups.means).repeat(num_users, 1)
    anyhow = torch.zeros(num_users, evidence.differences.shape[1], dtype=torch.float64)
    rows_of_users = torch.from_numpy(user)
    coordinates = evidence.coordinates * groups.scale
    of_groups = [evidence.seen_from(coordinates, offset) for offset in (evidence.coordinates @ groups.means.T).T]
    for rows, mask in Grouping(user, anyhow.shape[1], _MOST_OF_A_USER):
        owners = rows_of_users[rows[:, 0]]
        blocks = [Block(seen, rows, mask, tau2, torch.ones_like(rows).double(), _SWEEPS) for seen in of_groups]
        shares = torch.stack([block.log_evidence for block in blocks], 1).add(groups.shares.log()).softmax(1)
        means = [
            torch.cat([mean + groups.scale * block.along, block.anyhow], 1)
            for mean, block in zip(groups.means, blocks, strict=True)
        ]
        mean = (shares[:, None] @ torch.stack(means, 1))[:, 0]
        along[owners], anyhow[owners] = mean[:, : along.shape[1]], mean[:, along.shape[1] :]
    return along, anyhow


def find_groups(evidence: Evidence, user: IntArray, tau2: float, numbers: Sequence[int]) -> tuple[TasteGroups, Tensor]:
    """Find how many groups users form, and which.

    Args:
        evidence: the comparisons; their coordinates are along directions in which users have unit variance.
        user: row of the user of each comparison [N].
        tau2: variance of taste in any direction of the coordinates.
        numbers: numbers of groups to choose from; 1 stands for users who gather nowhere.

    Returns:
        The groups, and the rotation [K, K] of the directions after which they have a diagonal covariance.
    """
    size = evidence.coordinates.shape[1]
    best, basis = TasteGroups.one(size), torch.eye(size, dtype=torch.float64)
    if not size or max(numbers) == 1:
        return best, basis
    factors = _Factors.of(evidence, user, tau2)
    unit = _Mixture(torch.ones(1).double(), torch.zeros(1, size).double(), torch.eye(size).double())
    places, _, log_evidence = factors.posterior(unit)
    most = float(log_evidence.sum()) if 1 in numbers else float("-inf")
    for number in numbers:
        if 1 < number < len(factors):
            mixture, value = _fit(factors, places[:, 0], number)
            num_free = number - 1 + number * size + size * (size + 1) // 2
            penalised = value - num_free / 2 * np.log(len(factors))
            if penalised > most:
                most = penalised
                best, basis = mixture.rotated()
    return best, basis


@final
@frozen(eq=False)
class _Mixture:
    shares: Tensor
    means: Tensor
    covariance: Tensor

    def rotated(self) -> tuple[TasteGroups, Tensor]:
        """Return it along directions in which its covariance is diagonal, and these."""
        variances, basis = torch.linalg.eigh(self.covariance)
        return TasteGroups(self.shares, self.means @ basis, variances.sqrt()), basis


@final
@frozen(eq=False)
class _Factors:
    """What comparisons say of each user's z: exp(pull . z - z . precision z / 2)."""

    precision: Tensor
    pull: Tensor

    @classmethod
    def of(cls, evidence: Evidence, user: IntArray, tau2: float) -> _Factors:
        users = np.unique(user)
        if len(users) > _MOST_USERS:
            users = users[:: -(-len(users) // _MOST_USERS)]
            is_kept = np.isin(user, users)
            evidence, user = evidence.take(torch.from_numpy(is_kept)), user[is_kept]
        parts = []
        for rows, mask in Grouping(user, evidence.differences.shape[1], _MOST_OF_A_USER):
            block = Block(evidence, rows, mask, tau2, torch.ones_like(rows).double(), _SWEEPS)
            parts.append(block.factor())
        return cls(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def __len__(self) -> int:
        return len(self.pull)

    def posterior(self, mixture: _Mixture) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean in each group [U, G, K], covariance [U, K, K] and log evidence of each group with its share."""
        prior = torch.linalg.inv(mixture.covariance)
        covariance = torch.linalg.inv(self.precision + prior)
        start = mixture.means @ prior
        mean = (self.pull[:, None] + start) @ covariance
        value = ((self.pull[:, None] + start) * mean).sum(2) - (start * mixture.means).sum(1)
        value = value + torch.logdet(covariance)[:, None] - torch.logdet(mixture.covariance)
        return mean, covariance, value / 2 + mixture.shares.log()


def _fit(factors: _Factors, places: Tensor, number: int) -> tuple[_Mixture, float]:
    """Return the most likely mixture of several starts, clusters of the users' places, and its log evidence."""
    fits = [_expectation_maximisation(factors, _start(places, number, seed)) for seed in range(_STARTS)]
    return max(fits, key=lambda fit: fit[1])


def _start(places: Tensor, number: int, seed: int) -> _Mixture:
    nearest = torch.from_numpy(clusters(places.numpy(), number, np.random.default_rng(seed)))
    sizes = torch.bincount(nearest, minlength=number).double() + 1
    means = torch.zeros(number, places.shape[1], dtype=torch.float64).index_add_(0, nearest, places) / sizes[:, None]
    within = places - means[nearest]
    covariance = within.T @ within / len(places) + _START * torch.eye(places.shape[1], dtype=torch.float64)
    return _Mixture(sizes / sizes.sum(), means, covariance)


def _expectation_maximisation(factors: _Factors, mixture: _Mixture) -> tuple[_Mixture, float]:
    before = float("-inf")
    for _ in range(_ROUNDS):
        mean, covariance, log_joint = factors.posterior(mixture)
        value = float(log_joint.logsumexp(1).sum())
        if value - before < _SETTLED * len(factors):
            break
        before = value
        shares = log_joint.softmax(1)
        size = shares.sum(0) + 1e-9
        means = (shares[:, None].mT * mean).sum(0) / size[:, None]
        within = mean - means
        scatter = torch.einsum("ug,ugi,ugj->ij", shares, within, within) + covariance.sum(0)
        floor = _LEAST_VARIANCE * torch.eye(len(scatter), dtype=torch.float64)
        mixture = _Mixture((size + 1) / (size + 1).sum(), means, scatter / len(factors) + floor)
    return mixture, value
