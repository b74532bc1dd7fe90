"""Empirical adaptation: the Bayesian estimate with the seen users themselves as the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs
import numpy as np
import torch

from copl.adapt.agreement import log_likelihood
from copl.adapt.prior import Prior, prior_of
from copl.adapt.strategy import PlacingStrategy
from copl.options import option
from copl.plugins import Component

if TYPE_CHECKING:
    from torch import Tensor

    from copl.adapt.estimates import Estimates
    from copl.adapt.support import MatchedSupport
    from copl.records import NodeEmbeddings

NAME = "empirical"
_CELLS_PER_BLOCK = 1 << 19


@final
@attrs.frozen
class EmpiricalOptions:
    num_points: int | None = option(
        256,
        help="points that the seen users are condensed to, by k-means once for each trained set; none keeps every user",
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )
    sharpness: float = option(
        1.5,
        help="factor on the seen users' embeddings in the likelihood; above 1 since they were drawn to their mean",
        validator=attrs.validators.gt(0),
    )


@final
class Empirical(PlacingStrategy):
    r"""The posterior mean when a newcomer is taken to be like one of the seen users, each as likely beforehand.

    .. math::
        p(v \mid C_u) \propto \prod_{(c, r) \in C_u} \sigma\bigl(s\, e_v \cdot (e_c - e_r) + b_c - b_r\bigr)^{w_{cr}},
        \qquad e_u = \sum_v p(v \mid C_u) \, e_v

    over all seen users, with what all users share about the responses (b) explained first. Unlike two-hop it needs no
    response in common with anybody, more comparisons make it surer, and there is no temperature to choose. Seen users
    close to one another are taken together (`copl.adapt.prior`), so that the work does not grow with their number.

    `num_neighbours` is the effective number of seen users, 1 / sum of p squared, rounded. Confidence is the share of
    the seen users' variance that the comparisons removed, 1 - tr(weighted covariance) / tr(covariance), and 0 where
    they left more of it. A newcomer who says nothing about any trained response gets the mean (``population``).
    """

    def __init__(self, options: EmpiricalOptions) -> None:
        self._options = options

    def _place(self, matched: MatchedSupport, trained: NodeEmbeddings, estimates: Estimates) -> None:
        speaking = np.flatnonzero(matched.counts > 0)
        prior = self.prior(trained)
        for newcomers, part in matched.take(speaking).blocks(_CELLS_PER_BLOCK // len(prior)):
            shares = prior.shares(self.evidence(part, prior))
            estimates.put(
                speaking[newcomers],
                prior.mean(shares),
                NAME,
                prior.effective_users(shares),
                prior.variance_removed(shares),
            )

    def prior(self, trained: NodeEmbeddings) -> Prior:
        """Return what is thought of a newcomer beforehand; `trained` has users."""
        return prior_of(trained, self._options.num_points)

    def evidence(self, part: MatchedSupport, prior: Prior) -> Tensor:
        """Return the log-likelihood of each newcomer's comparisons under each point of the prior [n, K], in float64.

        Comparisons are independent given the point, so the evidence of parts of the comparisons adds up.
        """
        candidates = prior.likelihood_points * self._options.sharpness
        if not len(part.newcomer):
            return torch.zeros(len(part), len(prior), dtype=torch.float64)
        return log_likelihood(part, candidates, weight=part.weight, bias=part.bias)

    def probabilities(self, part: MatchedSupport, prior: Prior) -> Tensor:
        """Return how likely a user like each point is to choose as in each comparison [K, comparisons], in float64."""
        points = prior.points * self._options.sharpness
        return torch.sigmoid(points @ part.differences.T + part.bias)


COMPONENTS = [
    Component(
        name=NAME,
        options=EmpiricalOptions,
        build=Empirical,
        summary="Bayesian estimate with the seen users themselves as the prior; needs no shared response",
        reference="Robbins, An empirical Bayes approach to statistics, 1956",
    )
]
