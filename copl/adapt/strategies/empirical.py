"""Empirical adaptation: the Bayesian estimate with the seen users themselves as the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import torch

from copl.adapt.agreement import log_likelihood
from copl.adapt.prior import Prior, prior_of
from copl.adapt.questions import expected_information
from copl.adapt.strategies.catalogue import NAME, EmpiricalOptions
from copl.adapt.strategy import PlacingStrategy
from copl.adapt.support import match
from copl.adapt.tastes import tastes_of
from copl.records import Comparisons, ComparisonSet, UserTable

if TYPE_CHECKING:
    from torch import Tensor

    from copl.adapt.estimates import Estimates
    from copl.adapt.support import MatchedSupport
    from copl.records import FloatArray, IntArray, NodeEmbeddings

_CELLS_PER_BLOCK = 1 << 19


@final
class Empirical(PlacingStrategy):
    r"""The posterior mean when a newcomer is taken to be like one of the seen users, each as likely beforehand.

    .. math::
        p(v \mid C_u) \propto \prod_{(c, r) \in C_u} \sigma\bigl(s\, e_v \cdot (e_c - e_r) + b_c - b_r\bigr)^{w_{cr}},
        \qquad e_u = \sum_v p(v \mid C_u) \, e_v

    over all seen users, with what all users share about the responses (b) explained first. Unlike two-hop it needs no
    response in common with anybody, more comparisons make it surer, and there is no temperature to choose. Seen users
    close to one another are taken together (`copl.adapt.prior`), so that the work does not grow with their number.

    Coordinates that are tastes in texts (`copl.adapt.tastes`) have a prior of their own: there a newcomer is not like
    somebody, but has the taste that is likely, of each group by its probability.

    `num_neighbours` is the effective number of seen users, 1 / sum of p squared, rounded. Confidence is the share of
    the seen users' variance that the comparisons removed, 1 - tr(weighted covariance) / tr(covariance), and 0 where
    they left more of it. A newcomer who says nothing about any trained response gets the mean (``population``).
    """

    def __init__(self, options: EmpiricalOptions) -> None:
        self._options = options

    def _place(self, matched: MatchedSupport, trained: NodeEmbeddings, estimates: Estimates) -> None:
        speaking = np.flatnonzero(matched.counts > 0)
        spoken, tastes = matched.take(speaking), tastes_of(trained)
        if tastes is None:
            estimates.put(speaking, *self._among_seen(spoken, trained))
            return
        embeddings, name, neighbours, sure = self._among_seen(tastes.without(spoken), tastes.rest)
        own, removed = tastes.place(spoken)
        share = tastes.variance / max(tastes.variance + tastes.variance_of_rest, 1e-12)
        estimates.put(speaking, tastes.join(own, embeddings), name, neighbours, share * removed + (1 - share) * sure)

    def _among_seen(self, matched: MatchedSupport, trained: NodeEmbeddings) -> tuple[Tensor, str, IntArray, FloatArray]:
        """Return embeddings, name, neighbours and confidence of newcomers by the seen users they are like."""
        prior = self.prior(trained)
        embeddings = torch.zeros(len(matched), trained.dim, dtype=torch.float64)
        neighbours, sure = np.zeros(len(matched), dtype=np.int64), np.zeros(len(matched))
        for newcomers, part in matched.blocks(_CELLS_PER_BLOCK // len(prior)):
            shares = prior.shares(self.evidence(part, prior))
            embeddings[torch.from_numpy(newcomers)] = prior.mean(shares)
            neighbours[newcomers], sure[newcomers] = prior.effective_users(shares), prior.variance_removed(shares)
        return embeddings, NAME, neighbours, sure

    def information(self, said: ComparisonSet, questions: ComparisonSet, trained: NodeEmbeddings) -> FloatArray:
        """Return the bits that one user's answer to each pair (chosen or rejected?) is expected to tell [Q].

        Args:
            said: what the user has said, if anything.
            questions: the pairs.
            trained: what the encoder has learnt; it has users.
        """
        rows = questions.comparisons
        one_each = Comparisons(np.arange(len(rows)), rows.chosen, rows.rejected)
        users = UserTable.ungrouped([f"question {row}" for row in range(len(rows))])
        pairs = ComparisonSet(users, questions.responses, one_each, questions.features)
        asked = match(pairs, trained, with_training=False)
        bits = np.zeros(len(rows))
        if not len(asked.newcomer):
            return bits
        heard, tastes = match(said, trained), tastes_of(trained)
        if tastes is None:
            shares, margins = self._belief(heard, asked, trained)
            variance = torch.zeros(len(asked.newcomer), dtype=torch.float64)
        else:
            shares, margins = self._belief(tastes.without(heard), tastes.without(asked), tastes.rest)
            of_groups, mean, variance = tastes.margins(heard, asked)
            variance = variance.repeat(len(margins), 1)
            shares = (shares[:, :, None] * of_groups).flatten(1)
            margins = (margins[:, None] + mean).flatten(0, 1)
        bits[asked.newcomer] = expected_information(shares, margins, variance)[0].numpy()
        return bits

    def _belief(self, heard: MatchedSupport, asked: MatchedSupport, trained: NodeEmbeddings) -> tuple[Tensor, Tensor]:
        """Return the probability of each point of the prior [1, K] and its margins of what is asked [K, Q]."""
        prior = self.prior(trained)
        evidence = torch.zeros(1, len(prior), dtype=torch.float64)
        if len(heard):
            evidence = self.evidence(heard, prior)
        points = prior.points * self._options.sharpness
        return prior.shares(evidence), points @ asked.differences.T + asked.bias

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
