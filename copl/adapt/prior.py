"""The seen users as a prior for newcomers, condensed to a few hundred points once for each trained set."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from attrs import frozen

from copl.records import NodeEmbeddings

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray, IntArray

_SAMPLE = 20_000
_ROUNDS = 10
_BLOCK = 1 << 22


@final
@frozen(eq=False)
class Prior:
    r"""Points in the space of user embeddings, each as likely beforehand as it stands for seen users.

    A point is the mean of the seen users it stands for. Its users are taken to explain a comparison alike; that is the
    approximation. Their number, mean and mean squared length are exact.

    Attributes:
        points: the points [K, D], float64.
        likelihood_points: the same in the precision of the trained embeddings, for likelihoods [K, D].
        log_share: log of the share of seen users of each point [K].
        size: number of seen users of each point [K].
        squares: mean squared length of the users of each point [K].
        variance: tr(covariance) of all seen users; 0 where it is below rounding.
    """

    points: Tensor
    likelihood_points: Tensor
    log_share: Tensor
    size: Tensor
    squares: Tensor
    variance: float

    def __len__(self) -> int:
        return len(self.points)

    def shares(self, log_likelihood: Tensor) -> Tensor:
        """Return the posterior share of each point [n, K] from the log-likelihoods of n users [n, K]."""
        return (log_likelihood + self.log_share).softmax(dim=1)

    def mean(self, shares: Tensor) -> Tensor:
        """Return the posterior mean embeddings [n, D]."""
        return shares @ self.points

    def variance_removed(self, shares: Tensor) -> FloatArray:
        """Return 1 - tr(posterior covariance) / tr(covariance of the seen users) [n]; 0 where more is left."""
        if not self.variance:
            return np.zeros(len(shares))
        left = shares @ self.squares - self.mean(shares).square().sum(dim=1)
        removed: FloatArray = (1 - left / self.variance).clamp(0, 1).numpy()
        return removed

    def effective_users(self, shares: Tensor) -> IntArray:
        """Return the effective number of seen users, 1 / sum of p squared, rounded [n]."""
        total = int(self.size.sum())
        effective: IntArray = (1 / (shares.square() / self.size).sum(dim=1)).round().long().clamp(1, total).numpy()
        return effective


_PRIORS: WeakKeyDictionary[NodeEmbeddings, dict[int | None, Prior]] = WeakKeyDictionary()


def prior_of(trained: NodeEmbeddings, num_points: int | None) -> Prior:
    """Return the prior of a trained set; made at the first call, kept as long as the trained set is.

    Args:
        trained: what the encoder has learnt; it has users.
        num_points: points at most; None makes every seen user one. Which users share a point is found by k-means
            (Lloyd, started by k-means++), always in the same way.
    """
    kept = _PRIORS.setdefault(trained, {})
    wanted = None if num_points is None or len(trained.user_ids) <= num_points else num_points
    if wanted not in kept:
        kept[wanted] = _make(trained.users.detach().cpu(), wanted)
    return kept[wanted]


def _make(users: Tensor, num_points: int | None) -> Prior:
    from scipy import sparse

    exact = users.double()
    squares = exact.square().sum(dim=1)
    variance = float(squares.mean() - exact.mean(dim=0).square().sum())
    if variance <= 1e-12 * float(squares.mean()):
        variance = 0.0
    if num_points is None:
        size = torch.ones(len(users), dtype=torch.float64)
        points = exact
    else:
        cell = _cells(users.float().numpy(), num_points)
        member = sparse.csr_matrix((np.ones(len(cell)), (cell, np.arange(len(cell)))))
        counts = np.bincount(cell)
        filled = np.flatnonzero(counts)
        size = torch.from_numpy(counts[filled].astype(np.float64))
        points = torch.from_numpy(np.asarray(member @ exact.numpy()))[filled] / size[:, None]
        squares = torch.from_numpy(member @ squares.numpy())[filled] / size
    kind = torch.promote_types(users.dtype, torch.float32)
    return Prior(points, points.to(kind), (size / size.sum()).log(), size, squares, variance)


def _cells(users: FloatArray, num_points: int) -> IntArray:
    """Return the cell of each user [U], from 0."""
    from scipy.cluster.vq import kmeans2, vq

    if not users.shape[1]:  # all there is to know of them has a prior of its own
        return np.zeros(len(users), dtype=np.int64)
    rng = np.random.default_rng(0)
    sample = users if len(users) <= _SAMPLE else users[np.sort(rng.choice(len(users), _SAMPLE, replace=False))]
    start = _spread_out(sample, num_points, rng)
    with warnings.catch_warnings():
        # such a cell keeps its centre
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        centres, _ = kmeans2(sample, start, iter=_ROUNDS, minit="matrix")
    step = max(1, _BLOCK // len(centres))
    parts = [vq(users[place : place + step], centres)[0] for place in range(0, len(users), step)]
    return np.concatenate(parts).astype(np.int64)


def _spread_out(sample: FloatArray, num_points: int, rng: np.random.Generator) -> FloatArray:
    """Return starting centres: each next one a user drawn by squared distance to those already there (k-means++).

    SciPy's own start measures all distances anew for each centre, which takes minutes for a few hundred.
    """
    chosen = [int(rng.integers(len(sample)))]
    lengths = np.square(sample).sum(axis=1)
    nearest = np.full(len(sample), np.inf)
    for _ in range(num_points - 1):
        centre = sample[chosen[-1]]
        distance = np.maximum(lengths - 2 * (sample @ centre) + np.square(centre).sum(), 0)
        nearest = np.minimum(nearest, distance)
        total = np.cumsum(nearest, dtype=np.float64)
        if total[-1] <= 0:
            break  # fewer distinct users than points
        chosen.append(min(int(np.searchsorted(total, rng.random() * total[-1], side="right")), len(sample) - 1))
    return sample[chosen]
