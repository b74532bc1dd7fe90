r"""Tastes of users from their comparisons, with what is common to all users given.

The margin of comparison n of user u, and the chance that it is as observed, are

.. math::
    f_n = o_n + a_n \cdot z_u + d_n \cdot e_u, \quad z_u \sim N(0, I_K), \quad e_u \sim N(0, \tau^2 I_D), \qquad
    p_n = \sigma(f_n + \epsilon_n), \quad \epsilon_n \sim N(0, v_n)

with d the difference of the responses' coordinates, a the same along K directions of taste that users have in common,
and o what everybody thinks. The bound of Jaakkola and Jordan ("Bayesian parameter estimation via variational methods",
Statistics and Computing 10, 2000) makes of each comparison a normal observation of the margin, so that everything is in
closed form. It is solved over a user's own few comparisons, so the number D of coordinates costs little.

Shapes: N comparisons, U users, and in a block u users with n comparisons each; J = K + 1 with y = (1, z).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, final

import torch
from attrs import evolve, frozen
from torch import Tensor
from torch.nn.functional import logsigmoid

if TYPE_CHECKING:
    from copl.records import IntArray

_CELLS = 1 << 22
_LEAST = 1e-12


def precision_of_bound(scale: Tensor) -> Tensor:
    r"""Return tanh(xi / 2) / (2 xi), the precision of the observation that the bound at xi makes of a comparison."""
    half = scale.abs().clamp_min(1e-4) / 2
    return torch.tanh(half) / (4 * half)


@final
@frozen(eq=False)
class Evidence:
    """Comparisons, as they bear on their users; float64 but for the differences.

    Attributes:
        differences: d [N, D].
        coordinates: a [N, K].
        offset: o [N].
        noise: v, variance of what is not known of the margin [N].
        weight: how often each comparison counts [N].
    """

    differences: Tensor
    coordinates: Tensor
    offset: Tensor
    noise: Tensor
    weight: Tensor

    def take(self, rows: Tensor) -> Evidence:
        """Return some of the comparisons."""
        fields = (self.differences, self.coordinates, self.offset, self.noise, self.weight)
        return Evidence(*(tensor[rows] for tensor in fields))

    def seen_from(self, coordinates: Tensor, offset: Tensor) -> Evidence:
        """Return the same along other directions, o being more by an offset [N]."""
        return evolve(self, coordinates=coordinates, offset=self.offset + offset)


@final
class Grouping:
    """Comparisons by user, in blocks of users with similarly many; one with very many is taken as several users.

    Args:
        user: row of the user of each comparison [N].
        num_coordinates: D, which with the number of comparisons decides how many users fit into a block.
        most_together: comparisons of one user beyond which they are taken as those of several.
    """

    def __init__(self, user: IntArray, num_coordinates: int, most_together: int = 512) -> None:
        rows = torch.from_numpy(user)
        order = torch.argsort(rows, stable=True)
        _, counts = torch.unique_consecutive(rows[order], return_counts=True)
        sizes = torch.tensor([size for count in counts.tolist() for size in _parts(count, most_together)])
        starts = torch.cumsum(sizes, 0) - sizes
        by_size = torch.argsort(sizes, stable=True)
        self.num_users = len(sizes)
        self._blocks: list[tuple[Tensor, Tensor]] = []
        first = 0
        while first < len(by_size):
            least = int(sizes[by_size[first]])
            room = max(1, _CELLS // (max(least, 1) * (num_coordinates + least)))
            stop = int(torch.searchsorted(sizes[by_size], max(least + 2, int(1.3 * least)), right=True))
            users = by_size[first : min(stop, first + room)]
            first += len(users)
            span = torch.arange(int(sizes[users].max()))
            mask = span < sizes[users][:, None]
            places = (starts[users][:, None] + span).clamp_max(len(order) - 1)
            self._blocks.append((order[places], mask))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows of comparisons of a block of users, and which of them are not padding, both [u, n]."""
        return iter(self._blocks)


def _parts(count: int, most: int) -> list[int]:
    """Divide a number of comparisons into parts of at most `most`."""
    num_parts = -(-count // most)
    return [count // num_parts + (part < count % num_parts) for part in range(num_parts)]


@final
@frozen(eq=False)
class Beliefs:
    """What is thought of the user of each comparison; `y` is (1, z).

    Attributes:
        scale: xi of each comparison [N].
        margin: margin by the user's other comparisons [N].
        variance: its variance [N].
        square: E[y y^T] [N, J, J].
        product: E[y (d . e)] [N, J].
        other_mean: E[y] by the user's other comparisons [N, J].
        other_square: E[y y^T] by the others [N, J, J].
        other_product: E[y (d . e)] by the others [N, J].
        second: E[z z^T], mean over users [K, K].
    """

    scale: Tensor
    margin: Tensor
    variance: Tensor
    square: Tensor
    product: Tensor
    other_mean: Tensor
    other_square: Tensor
    other_product: Tensor
    second: Tensor


def infer(evidence: Evidence, grouping: Grouping, tau2: float, scale: Tensor | None, *, sweeps: int) -> Beliefs:
    """Infer the users' tastes.

    Args:
        evidence: the comparisons.
        grouping: the same, by user.
        tau2: variance of taste in any direction of the coordinates.
        scale: xi to start from [N].
        sweeps: how often the bound is drawn tight.
    """
    count, size = len(evidence.offset), evidence.coordinates.shape[1] + 1

    def zeros(*sizes: int) -> Tensor:
        return torch.zeros(*sizes, dtype=torch.float64)

    beliefs = Beliefs(
        scale=zeros(count) + 1 if scale is None else scale.clone(),
        margin=zeros(count),
        variance=zeros(count),
        square=zeros(count, size, size),
        product=zeros(count, size),
        other_mean=zeros(count, size),
        other_square=zeros(count, size, size),
        other_product=zeros(count, size),
        second=zeros(size - 1, size - 1),
    )
    for rows, mask in grouping:
        block = Block(evidence, rows, mask, tau2, beliefs.scale[rows], sweeps)
        block.tell(beliefs, rows[mask], mask)
    beliefs.second.div_(max(grouping.num_users, 1))
    return beliefs


@final
class Block:
    """The posterior of a block of users: margins f ~ N(0, G) beforehand, observed as t with variance s, without o."""

    def __init__(self, evidence: Evidence, rows: Tensor, mask: Tensor, tau2: float, scale: Tensor, sweeps: int) -> None:
        both = mask[:, :, None] & mask[:, None, :]
        self.differences = evidence.differences[rows].double() * mask[..., None]
        self.directions = evidence.coordinates[rows] * mask[..., None]
        self.isotropic = tau2 * self.differences @ self.differences.mT
        self.gram = self.isotropic + self.directions @ self.directions.mT
        self.offset, noise, weight = evidence.offset[rows], evidence.noise[rows], evidence.weight[rows]
        self.scale = scale
        for _ in range(sweeps):
            bound_at, tight = self.scale, precision_of_bound(self.scale)
            self.target = (0.5 / tight - self.offset) * mask
            self.spread = torch.where(mask, 1 / (tight * weight) + noise, 1.0)
            lower = torch.linalg.cholesky(self.gram + torch.diag_embed(self.spread))
            self.inverse = torch.cholesky_inverse(lower) * both
            self.dual = (self.inverse @ self.target[..., None])[..., 0]
            self.margin = (self.gram @ self.dual[..., None])[..., 0]
            explained = ((self.gram @ self.inverse) * self.gram).sum(-1)
            self.variance = (_diagonal(self.gram) - explained).clamp_min(0)
            self.scale = ((self.margin + self.offset).square() + self.variance + noise).sqrt()
        self.noise = noise
        self._mask, self._tau2, self._weight = mask, tau2, weight
        self._bound_at, self._tight, self._lower = bound_at, tight, lower

    @property
    def along(self) -> Tensor:
        """Mean of z [u, K]."""
        return (self.dual[:, None] @ self.directions)[:, 0]

    @property
    def anyhow(self) -> Tensor:
        """Mean of e [u, D]."""
        return self._tau2 * (self.dual[:, None] @ self.differences)[:, 0]

    @property
    def log_evidence(self) -> Tensor:
        """The bound of the log-likelihood of each user's comparisons [u], but for a constant."""
        scale, tight, weight = self._bound_at, self._tight, self._weight
        # the log of the bound where it is highest, at a margin of 1 / (2 tight)
        highest = logsigmoid(scale) - scale / 2 + tight * scale.square() / 2 + 1 / (8 * tight)
        normal = _diagonal(self._lower).log() + self.target * self.dual / 2
        return ((weight * highest - (tight * weight).log() / 2 - normal) * self._mask).sum(1)

    def factor(self) -> tuple[Tensor, Tensor]:
        """Return what the comparisons say of z with e integrated out: its precision [u, K, K] and its pull [u, K]."""
        lower = torch.linalg.cholesky(self.isotropic + torch.diag_embed(self.spread))
        solved = torch.cholesky_solve(self.directions, lower)
        return self.directions.mT @ solved, (self.target[:, None] @ solved)[:, 0]

    def tell(self, beliefs: Beliefs, at: Tensor, mask: Tensor) -> None:
        """Put what is thought of the users into `beliefs`, at the comparisons `at`."""
        certain = _diagonal(self.inverse).clamp_min(_LEAST)
        beliefs.scale[at] = self.scale[mask]
        beliefs.margin[at] = (self.target - self.dual / certain + self.offset)[mask]
        beliefs.variance[at] = (1 / certain - self.spread + self.noise)[mask].clamp_min(0)
        size = self.directions.shape[2]
        mean = (self.dual[:, None] @ self.directions)[:, 0]
        identity = torch.eye(size, dtype=torch.float64)
        covariance = identity - self.directions.mT @ self.inverse @ self.directions
        beliefs.second.add_(mean.T @ mean + covariance.sum(0))

        with_margin = (self.directions - self.gram @ self.inverse @ self.directions) * mask[..., None]  # Cov(z, f_n)
        with_own = -(self.isotropic @ self.inverse @ self.directions) * mask[..., None]  # Cov(z, d_n . e)
        own = (self.isotropic @ self.dual[..., None])[..., 0]  # E[d_n . e]
        repeated = mean[:, None].expand_as(with_margin)
        square, product = _moments(repeated, covariance[:, None], own, with_own)
        beliefs.square[at], beliefs.product[at] = square[mask], product[mask]

        # The observation t_n taken back: what the user's other comparisons say alone.
        back = (self.spread - self.variance).clamp_min(1e-3 * self.spread)
        gain = (self.margin - self.target) / back
        shared = _diagonal(self.isotropic) - (self.isotropic * (self.inverse @ self.gram).mT).sum(-1)  # Cov(d_n.e, f_n)
        others = repeated + with_margin * gain[..., None]
        outer = with_margin[..., :, None] * with_margin[..., None, :] / back[..., None, None]
        square, product = _moments(
            others,
            covariance[:, None] + outer,
            own + shared * gain,
            with_own + with_margin * (shared / back)[..., None],
        )
        beliefs.other_mean[at] = _with_one(others)[mask]
        beliefs.other_square[at], beliefs.other_product[at] = square[mask], product[mask]


def _diagonal(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2)


def _with_one(mean: Tensor) -> Tensor:
    """Return (1, z) for z in the last dimension."""
    return torch.cat([mean.new_ones(*mean.shape[:-1], 1), mean], -1)


def _moments(mean: Tensor, covariance: Tensor, own: Tensor, with_own: Tensor) -> tuple[Tensor, Tensor]:
    """Return E[y y^T] [u, n, J, J] and E[y w] [u, n, J], with y = (1, z), of z [u, n, K] and w [u, n]."""
    y = _with_one(mean)
    square = y[..., :, None] * y[..., None, :]
    square[..., 1:, 1:] += covariance
    product = y * own[..., None]
    product[..., 1:] += with_own
    return square, product
