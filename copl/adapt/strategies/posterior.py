"""Posterior adaptation: the Bayesian estimate of a newcomer's embedding from its comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import torch

from copl.adapt.estimates import Estimates, covariance_factor, population_mean
from copl.adapt.laplace import posterior_modes
from copl.adapt.strategies.catalogue import PosteriorOptions
from copl.adapt.strategy import PlacingStrategy
from copl.records import NodeEmbeddings

if TYPE_CHECKING:
    from copl.adapt.support import MatchedSupport


@final
class Posterior(PlacingStrategy):
    r"""The mode of the posterior under the Bradley-Terry likelihood and a Gaussian prior (Laplace's approximation).

    .. math::
        e_u = \arg\max_e \sum_{(c, r)} w_{cr} \log\sigma\bigl(e \cdot (e_c - e_r) + b_c - b_r\bigr)
              - \tfrac12 (e - \mu)^\top \Sigma^{-1} (e - \mu)

    with the mean and the covariance of the seen users' embeddings as prior. A newcomer who says nothing about any
    trained response gets the prior mean (``population``).

    Confidence is the share of the prior variance that the comparisons removed,
    1 - tr(posterior covariance) / tr(prior covariance). All seen users take part, through the prior.
    """

    def __init__(self, options: PosteriorOptions) -> None:
        self._options = options

    def _place(self, matched: MatchedSupport, trained: NodeEmbeddings, estimates: Estimates) -> None:
        mean = population_mean(trained)
        factor = covariance_factor(trained) * self._options.prior_scale**0.5
        variances = factor.square().sum(dim=0)
        for newcomers, part in matched.by_length():
            modes, variance_left = posterior_modes(part, mean, factor)
            left = (variance_left @ variances) / variances.sum().clamp_min(torch.finfo(torch.float64).tiny)
            sure = (1 - left).numpy() if len(variances) else np.zeros(len(newcomers))
            estimates.put(newcomers, modes, "posterior", len(trained.user_ids), sure)
