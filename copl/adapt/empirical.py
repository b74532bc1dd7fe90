"""Empirical adaptation: the Bayesian estimate with the seen users themselves as the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs
import numpy as np

from copl.adapt.agreement import log_likelihood
from copl.adapt.estimates import Estimates
from copl.adapt.support import match
from copl.options import option
from copl.plugins import Component
from copl.records import AdaptedUsers, ComparisonSet, NodeEmbeddings

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray


@final
@attrs.frozen
class EmpiricalOptions:
    sharpness: float = option(
        1.0,
        help="factor on the seen users' embeddings in the likelihood; above 1 where they are shorter than in training",
        validator=attrs.validators.gt(0),
    )


@final
class Empirical:
    r"""The posterior mean when a newcomer is taken to be like one of the seen users, each as likely beforehand.

    .. math::
        p(v \mid C_u) \propto \prod_{(c, r) \in C_u} \sigma\bigl(s\, e_v \cdot (e_c - e_r) + b_c - b_r\bigr)^{w_{cr}},
        \qquad e_u = \sum_v p(v \mid C_u) \, e_v

    over all seen users, with what all users share about the responses (b) explained first. Unlike two-hop it needs no
    response in common with anybody, more comparisons make it surer, and there is no temperature to choose.

    `num_neighbours` is the effective number of seen users, 1 / sum of p squared, rounded. Confidence is the share of
    the seen users' variance that the comparisons removed, 1 - tr(weighted covariance) / tr(covariance), and 0 where
    they left more of it. A newcomer who says nothing about any trained response gets the mean (``population``).
    """

    def __init__(self, options: EmpiricalOptions) -> None:
        self._options = options

    def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
        matched = match(support, trained)
        estimates = Estimates(matched, trained)
        speaking = np.flatnonzero(matched.counts > 0)
        if not len(trained.user_ids):
            return estimates.result()
        users = trained.users.detach().cpu()
        candidates, users = users * self._options.sharpness, users.double()
        for newcomers, part in matched.take(speaking).blocks():
            weights = log_likelihood(part, candidates, weight=part.weight, bias=part.bias).softmax(dim=1)
            effective = (1 / weights.square().sum(dim=1)).round().long().clamp(1, len(users)).numpy()
            embeddings = weights @ users
            sure = _variance_removed(weights, users, embeddings)
            estimates.put(speaking[newcomers], embeddings, "empirical", effective, sure)
        return estimates.result()


def _variance_removed(weights: Tensor, users: Tensor, means: Tensor) -> FloatArray:
    """Return 1 - tr(covariance under the weights [n, v]) / tr(covariance of the users [v, D])."""
    lengths = users.square().sum(dim=1)
    before = lengths.mean() - users.mean(dim=0).square().sum()
    after = weights @ lengths - means.square().sum(dim=1)
    if before <= 1e-12 * lengths.mean():
        return np.zeros(len(weights))
    sure: FloatArray = (1 - after / before).numpy()
    return sure


COMPONENTS = [
    Component(
        name="empirical",
        options=EmpiricalOptions,
        build=Empirical,
        summary="Bayesian estimate with the seen users themselves as the prior; needs no shared response",
        reference="Robbins, An empirical Bayes approach to statistics, 1956",
    )
]
