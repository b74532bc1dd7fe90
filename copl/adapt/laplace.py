"""Laplace's approximation of a newcomer's posterior: Bradley-Terry likelihood, Gaussian prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch
from attrs import frozen
from torch.nn.functional import logsigmoid

if TYPE_CHECKING:
    from torch import Tensor

    from copl.adapt.support import MatchedSupport

_NEWTON_STEPS = 50
_HALVINGS = 8
_CONVERGED = 1e-10


def posterior_modes(
    part: MatchedSupport, mean: Tensor, factor: Tensor, *, sharpness: float = 1.0, power: float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""Return the most likely embedding of each newcomer and how much variance is left, by Newton's method.

    .. math::
        e_u = \arg\max_e p \sum_{(c, r)} w_{cr} \log\sigma\bigl(s\,(e \cdot (e_c - e_r) + b_c - b_r)\bigr)
              - \tfrac12 (e - \mu)^\top \Sigma^{-1} (e - \mu)

    The prior is whitened, e = mu + L z, so a singular covariance does no harm, and a step solves a system of the
    smaller of K and the number of comparisons.

    Args:
        part: comparisons of n newcomers.
        mean: mean of the prior [D], float64.
        factor: L with L Lᵀ the covariance of the prior [D, K], float64.
        sharpness: factor s on the margins.
        power: exponent p of a user's evidence.

    Returns:
        The modes [n, D] and the diagonal of the covariance of z [n, K].
    """
    rows = part.padded()
    features, offset = rows.differences @ factor, rows.differences @ mean + rows.bias
    mode, variance_left, _ = _laplace(_Evidence(features * sharpness, offset * sharpness, rows.weight * power))
    return mean + mode @ factor.T, variance_left


def group_posteriors(
    part: MatchedSupport, means: Tensor, scale: Tensor, log_share: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return how likely each newcomer is of each group, and the posterior of each if they are.

    Args:
        part: comparisons of n newcomers.
        means: mean of each group [G, D], float64.
        scale: standard deviations within a group [D], float64.
        log_share: log of each group's share of the users [G].

    Returns:
        Probabilities [n, G], the modes [n, G, D], and the variance that is left [n, G, D], of prior variance 1.
    """
    of_groups = [_laplace(evidence) for evidence in _as_groups_see(part, means, scale)]
    modes, left, value = (torch.stack(tensors, 1) for tensors in zip(*of_groups, strict=True))
    return (value + log_share).softmax(1), means + modes * scale, left


def group_margins(
    part: MatchedSupport, means: Tensor, scale: Tensor, log_share: Tensor, asked: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return how likely one newcomer is of each group [G], and mean and variance of margins of pairs if so [G, Q].

    Args:
        part: comparisons of the newcomer, or none.
        means: mean of each group [G, D], float64.
        scale: standard deviations within a group [D], float64.
        log_share: log of each group's share of the users [G].
        asked: differences of the pairs' responses [Q, D], float64.
    """
    margins, whitened = means @ asked.T, asked * scale
    variance = whitened.square().sum(dim=1).expand_as(margins)
    if not len(part.newcomer):
        return log_share.softmax(0), margins, variance
    evidences = _as_groups_see(part, means, scale)
    modes, _, value = (torch.cat(tensors) for tensors in zip(*map(_laplace, evidences), strict=True))
    root = torch.cat([evidence.curvature(mode[None]) for evidence, mode in zip(evidences, modes, strict=True)])
    whitened = whitened.T.expand(len(means), -1, -1)
    explained = torch.linalg.solve_triangular(_cholesky(root @ root.mT), root @ whitened, upper=False)
    variance = (variance - explained.square().sum(dim=1)).clamp_min(0)
    return (value + log_share).softmax(0), margins + (modes[:, None] @ whitened)[:, 0], variance


def posterior_margins(part: MatchedSupport, mean: Tensor, scale: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance [Q] of one newcomer's margins of pairs where the prior is one group, as `group_margins`.

    Args:
        part: comparisons of the newcomer, or none.
        mean: mean of the prior [D], float64.
        scale: its standard deviations [D], float64.
        asked: differences of the pairs' responses [Q, D], float64.
    """
    _, margins, variance = group_margins(part, mean[None], scale, mean.new_zeros(1), asked)
    return margins[0], variance[0]


def _as_groups_see(part: MatchedSupport, means: Tensor, scale: Tensor) -> list[_Evidence]:
    rows = part.padded()
    features, offset = rows.differences * scale, rows.differences @ means.T + rows.bias[..., None]
    return [_Evidence(features, of_group, rows.weight) for of_group in offset.unbind(2)]


@final
@frozen(eq=False)
class _Evidence:
    """Comparisons of n newcomers, padded to k with comparisons of weight 0, in the whitened space.

    Attributes:
        features: s (e_chosen - e_rejected) L [n, k, K].
        offset: s times the margin at the prior mean [n, k].
        weight: weight of each comparison, times p [n, k].
    """

    features: Tensor
    offset: Tensor
    weight: Tensor

    def margins(self, mode: Tensor) -> Tensor:
        return self.offset + (self.features @ mode[:, :, None])[:, :, 0]

    def log_posterior(self, mode: Tensor) -> Tensor:
        return (self.weight * logsigmoid(self.margins(mode))).sum(dim=1) - mode.square().sum(dim=1) / 2

    def gradient(self, mode: Tensor) -> Tensor:
        return (self.features * (self.weight * torch.sigmoid(-self.margins(mode)))[:, :, None]).sum(dim=1) - mode

    def curvature(self, mode: Tensor) -> Tensor:
        """Return the square root of the negative Hessian's data part [n, k, K]: H = I + VᵀV."""
        margins = self.margins(mode)
        return self.features * (self.weight * torch.sigmoid(margins) * torch.sigmoid(-margins)).sqrt()[:, :, None]


def _laplace(evidence: _Evidence) -> tuple[Tensor, Tensor, Tensor]:
    """Return the posterior mode z [n, K], the diagonal of its covariance [n, K] and the log evidence [n].

    All of it in the whitened space.
    """
    mode = torch.zeros(len(evidence.offset), evidence.features.shape[2], dtype=torch.float64)
    value = evidence.log_posterior(mode)
    for _ in range(_NEWTON_STEPS):
        step = _solve(evidence.curvature(mode), evidence.gradient(mode))
        if not step.numel() or step.abs().max() < _CONVERGED:
            break
        length = torch.ones(len(mode), 1, dtype=torch.float64)
        for _ in range(_HALVINGS):  # a full step can overshoot where the likelihood is nearly flat
            worse = evidence.log_posterior(mode + length * step) < value - _CONVERGED
            if not worse.any():
                break
            length[worse] /= 2
        mode = mode + length * step
        value = evidence.log_posterior(mode)
    left, half_log_determinant = _inverse_diagonal(evidence.curvature(mode))
    return mode, left, value - half_log_determinant


def _solve(root: Tensor, right: Tensor) -> Tensor:
    """Return (I + VᵀV)⁻¹ b, solving in the smaller of the two spaces (Woodbury)."""
    if root.shape[1] >= root.shape[2]:
        primal: Tensor = torch.cholesky_solve(right[:, :, None], _cholesky(root.mT @ root))
        return primal[:, :, 0]
    dual: Tensor = torch.cholesky_solve(root @ right[:, :, None], _cholesky(root @ root.mT))
    return right - (root.mT @ dual)[:, :, 0]


def _inverse_diagonal(root: Tensor) -> tuple[Tensor, Tensor]:
    """Return the diagonal of (I + VᵀV)⁻¹, and half the log determinant of I + VᵀV."""
    if root.shape[1] >= root.shape[2]:
        lower = _cholesky(root.mT @ root)
        left: Tensor = torch.cholesky_inverse(lower).diagonal(dim1=1, dim2=2)
    else:
        lower = _cholesky(root @ root.mT)
        whitened: Tensor = torch.linalg.solve_triangular(lower, root, upper=False)
        left = 1 - whitened.square().sum(dim=1)
    return left, lower.diagonal(dim1=1, dim2=2).log().sum(dim=1)


def _cholesky(gram: Tensor) -> Tensor:
    lower: Tensor = torch.linalg.cholesky(gram + torch.eye(gram.shape[-1], dtype=gram.dtype))
    return lower
