"""Posterior adaptation: the Bayesian estimate of a newcomer's embedding from its comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary

import attrs
import numpy as np
import torch
from attrs import frozen
from torch.nn.functional import logsigmoid

from copl.adapt.estimates import Estimates, population_mean
from copl.adapt.support import MatchedSupport, match
from copl.options import option
from copl.plugins import Component
from copl.records import AdaptedUsers, ComparisonSet, NodeEmbeddings

if TYPE_CHECKING:
    from torch import Tensor

_NEWTON_STEPS = 50
_HALVINGS = 8
_CONVERGED = 1e-10


@final
@attrs.frozen
class PosteriorOptions:
    prior_scale: float = option(
        2.0,
        help="factor on the seen users' covariance, which is the prior; above 1 since they were drawn to their mean",
        validator=attrs.validators.gt(0),
    )


@final
class Posterior:
    r"""The mode of the posterior under the Bradley-Terry likelihood and a Gaussian prior (Laplace's approximation).

    .. math::
        e_u = \arg\max_e \sum_{(c, r)} w_{cr} \log\sigma\bigl(e \cdot (e_c - e_r) + b_c - b_r\bigr)
              - \tfrac12 (e - \mu)^\top \Sigma^{-1} (e - \mu)

    with the mean and the covariance of the seen users' embeddings as prior. The prior is whitened, e = mu + L z, so a
    singular covariance does no harm, and a Newton step solves a system of the smaller of D and the number of
    comparisons. A newcomer who says nothing about any trained response gets the prior mean (``population``).

    Confidence is the share of the prior variance that the comparisons removed,
    1 - tr(posterior covariance) / tr(prior covariance). All seen users take part, through the prior.
    """

    def __init__(self, options: PosteriorOptions) -> None:
        self._options = options

    def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
        matched = match(support, trained)
        estimates = Estimates(matched, trained)
        num_users = len(trained.user_ids)
        if not num_users:
            return estimates.result()
        mean = population_mean(trained)
        factor = _covariance_factor(trained) * self._options.prior_scale**0.5
        variances = factor.square().sum(dim=0)
        for newcomers, part in matched.by_length():
            evidence = _Evidence.of(part, mean, factor)
            mode, variance_left = _laplace(evidence)
            left = (variance_left @ variances) / variances.sum().clamp_min(torch.finfo(torch.float64).tiny)
            sure = (1 - left).numpy() if len(variances) else np.zeros(len(newcomers))
            estimates.put(newcomers, mean + mode @ factor.T, "posterior", num_users, sure)
        return estimates.result()


_FACTORS: WeakKeyDictionary[NodeEmbeddings, Tensor] = WeakKeyDictionary()


def _covariance_factor(trained: NodeEmbeddings) -> Tensor:
    """Return L [D, rank] with L Lᵀ the covariance of the seen users; made once for each trained set."""
    if trained not in _FACTORS:
        centred = trained.users.detach().cpu().double() - population_mean(trained)
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        kept = values > values[-1] * 1e-10
        _FACTORS[trained] = vectors[:, kept] * values[kept].sqrt()
    return _FACTORS[trained]


@final
@frozen(eq=False)
class _Evidence:
    """Comparisons of n newcomers, padded to K with comparisons of weight 0, in the whitened space.

    Attributes:
        features: (e_chosen - e_rejected) L [n, K, rank].
        offset: margin at the prior mean [n, K].
        weight: weight of each comparison [n, K].
    """

    features: Tensor
    offset: Tensor
    weight: Tensor

    @classmethod
    def of(cls, part: MatchedSupport, mean: Tensor, factor: Tensor) -> _Evidence:
        rows = part.padded()
        return cls(rows.differences @ factor, rows.differences @ mean + rows.bias, rows.weight)

    def margins(self, mode: Tensor) -> Tensor:
        return self.offset + (self.features @ mode[:, :, None])[:, :, 0]

    def log_posterior(self, mode: Tensor) -> Tensor:
        return (self.weight * logsigmoid(self.margins(mode))).sum(dim=1) - mode.square().sum(dim=1) / 2

    def gradient(self, mode: Tensor) -> Tensor:
        return (self.features * (self.weight * torch.sigmoid(-self.margins(mode)))[:, :, None]).sum(dim=1) - mode

    def curvature(self, mode: Tensor) -> Tensor:
        """Return the square root of the negative Hessian's data part [n, K, rank]: H = I + VᵀV."""
        margins = self.margins(mode)
        return self.features * (self.weight * torch.sigmoid(margins) * torch.sigmoid(-margins)).sqrt()[:, :, None]


def _laplace(evidence: _Evidence) -> tuple[Tensor, Tensor]:
    """Return the posterior mode z [n, rank] and the diagonal of its covariance [n, rank], in the whitened space."""
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
    return mode, _inverse_diagonal(evidence.curvature(mode))


def _solve(root: Tensor, right: Tensor) -> Tensor:
    """Return (I + VᵀV)⁻¹ b, solving in the smaller of the two spaces (Woodbury)."""
    if root.shape[1] >= root.shape[2]:
        primal: Tensor = torch.cholesky_solve(right[:, :, None], _cholesky(root.mT @ root))
        return primal[:, :, 0]
    dual: Tensor = torch.cholesky_solve(root @ right[:, :, None], _cholesky(root @ root.mT))
    return right - (root.mT @ dual)[:, :, 0]


def _inverse_diagonal(root: Tensor) -> Tensor:
    """Return the diagonal of (I + VᵀV)⁻¹."""
    if root.shape[1] >= root.shape[2]:
        inverse: Tensor = torch.cholesky_inverse(_cholesky(root.mT @ root))
        return inverse.diagonal(dim1=1, dim2=2)
    whitened: Tensor = torch.linalg.solve_triangular(_cholesky(root @ root.mT), root, upper=False)
    return 1 - whitened.square().sum(dim=1)


def _cholesky(gram: Tensor) -> Tensor:
    lower: Tensor = torch.linalg.cholesky(gram + torch.eye(gram.shape[1], dtype=gram.dtype))
    return lower


COMPONENTS = [
    Component(
        name="posterior",
        options=PosteriorOptions,
        build=Posterior,
        summary="Bayesian estimate from the newcomer's comparisons, with the seen users as prior; knows how sure it is",
        reference="Rasmussen and Williams, Gaussian Processes for Machine Learning, section 3.4 (Laplace)",
    )
]
