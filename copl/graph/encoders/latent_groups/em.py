"""Latent groups of users, each with its own response effects, found by expectation-maximisation.

Given the groups, a comparison follows the Bradley-Terry model with the effects of its user's group:

    P(c > r | u in g) = sigma(t_g[c] - t_g[r]),  t_g[r] = b[r] + d_g[r],  b ~ N(0, 1/lambda_b),  d ~ N(0, 1/lambda_d)

What a user said is taken out of the effects before that user's group is judged by them (leave-one-out): on sparse
graphs a user's own few comparisons would otherwise come back as if others had made them. These are the
non-backtracking messages of belief propagation (Krzakala et al., 2013, arXiv 1306.5550).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs
import numpy as np
import torch
from scipy.special import logsumexp
from torch.nn.functional import logsigmoid

from copl.graph.encoders.latent_groups.evidence import Block, Evidence

if TYPE_CHECKING:
    from copl.records import FloatArray

_SETTLE = 4
_TINY = 1e-3
EVEN_ROUNDS = 15


@final
@attrs.frozen
class EffectPrior:
    """Gaussian priors of the response effects.

    The effects of a response in the K groups have the precision matrix lambda_d I - c 1 1ᵀ, with the shared part
    integrated out: c = lambda_d^2 / (lambda_b + K lambda_d).

    Attributes:
        group: precision lambda_d of what sets a group apart.
        shared: precision lambda_b of what all groups share.
    """

    group: float
    shared: float

    def coupling(self, num_groups: int) -> float:
        """Return c."""
        return self.group**2 / (self.shared + num_groups * self.group)


def _solve(diagonal: FloatArray, coupling: float, right: FloatArray) -> FloatArray:
    """Return x with (diag(d) - c 1 1ᵀ) x = b for each row of d and b [rows, K] (Sherman and Morrison)."""
    inverse = 1.0 / diagonal
    solution: FloatArray = right * inverse
    inverse *= coupling * _row_sums(solution) / (1 - coupling * _row_sums(inverse))
    solution += inverse
    return solution


# The passes over all comparisons are most of the work. On a few columns each of these takes a quarter of the time of
# numpy's own way or less: a product for a sum of each row, `take` for indexing, torch's functions for scipy's.
def _row_sums(values: FloatArray) -> FloatArray:
    sums: FloatArray = values @ np.ones((values.shape[1], 1))
    return sums


def _sigmoid(margins: FloatArray) -> FloatArray:
    result: FloatArray = torch.from_numpy(margins).sigmoid().numpy()
    return result


def _log_sigmoid(margins: FloatArray) -> FloatArray:
    result: FloatArray = logsigmoid(torch.from_numpy(margins)).numpy()
    return result


@final
@attrs.frozen(eq=False)
class Groups:
    """Groups found in a graph.

    Attributes:
        membership: posterior probability of each group for each user [U, K].
        effects: response effects t of each group [R, K].
        shares: share of the users in each group [K].
        log_evidence: mean log evidence of a user after each round.
    """

    membership: FloatArray
    effects: FloatArray
    shares: FloatArray
    log_evidence: tuple[float, ...]

    @property
    def num_groups(self) -> int:
        return len(self.shares)


@final
class LatentGroups:
    """Expectation-maximisation on one graph.

    Args:
        evidence: the comparisons.
        prior: of the response effects.
        power: exponent of the evidence in the memberships; below 1 where a user's comparisons are not independent,
            such as pairs drawn from the same votes.
        leave_one_out: take a user's own comparisons out of the effects that judge them. Without it the log posterior
            of the effects, with memberships integrated out, never falls.
        even_rounds: rounds in which all groups count as equally large, so that none dies before it has formed.
    """

    def __init__(
        self,
        evidence: Evidence,
        prior: EffectPrior,
        *,
        power: float = 1.0,
        leave_one_out: bool = True,
        even_rounds: int = EVEN_ROUNDS,
    ) -> None:
        self._evidence = evidence
        self._prior = prior
        self._power = power
        self._leave_one_out = leave_one_out
        self._even_rounds = even_rounds

    def fit(self, start: Groups, num_rounds: int, tolerance: float = 1e-3) -> Groups:
        """Alternate between effects and memberships until a mean membership changes by less than `tolerance`."""
        membership, effects, shares = start.membership, start.effects, start.shares
        history = list(start.log_evidence)
        for number in range(num_rounds):
            effects = self.update_effects(membership, effects, steps=2 if number else _SETTLE)
            before = membership
            membership, log_evidence = self.update_membership(before, effects, shares)
            history.append(log_evidence)
            if len(history) > self._even_rounds:
                shares = (membership.sum(axis=0) + 1) / (len(membership) + membership.shape[1])
                if np.abs(membership - before).mean() < tolerance:
                    break
        effects = self.update_effects(membership, effects, steps=5 * _SETTLE)
        return Groups(membership, effects, shares, tuple(history))

    def update_effects(self, membership: FloatArray, effects: FloatArray, steps: int) -> FloatArray:
        """Raise the expected log posterior of the effects [R, K], given memberships.

        Each step maximises a lower bound that touches at the present effects: the quadratic bound of the logistic
        function (Jaakkola and Jordan, 2000) with (x - y)^2 <= 2 x^2 + 2 y^2. So no step can lower the objective.
        """
        evidence, prior = self._evidence, self._prior
        wins, losses = evidence.counts(membership)
        total = wins + losses
        coupling = prior.coupling(effects.shape[1])
        for _ in range(steps):
            margins = self.margins(effects)
            probability = _sigmoid(margins)
            # tanh(m / 2) / (4 m / 2), 1/4 at 0
            size = np.abs(margins)
            bound = total * np.where(size > _TINY, np.abs(probability - 0.5) / np.maximum(size, _TINY), 0.25)
            gradient = evidence.incidence @ (wins - total * probability)
            gradient += coupling * _row_sums(effects) - prior.group * effects
            effects = effects + _solve(2 * (evidence.touches @ bound) + prior.group, coupling, gradient)
        return effects

    def margins(self, effects: FloatArray) -> FloatArray:
        """Return the margin of each pair in each group [P, K]."""
        difference: FloatArray = effects.take(self._evidence.first, axis=0)
        difference -= effects.take(self._evidence.second, axis=0)
        return difference

    def update_membership(
        self, membership: FloatArray, effects: FloatArray, shares: FloatArray
    ) -> tuple[FloatArray, float]:
        """Return the posterior memberships [U, K] and the mean log evidence of a user."""
        evidence, updated = self._evidence, np.empty_like(membership)
        model = self._pair_model(membership, effects)
        log_shares, total = np.log(shares), 0.0
        for block in evidence.blocks:
            margins = self._judging_margins(block, membership, model)
            wins, losses = evidence.wins[block.rows, None], evidence.losses[block.rows, None]
            log_likelihood = (wins + losses) * _log_sigmoid(margins) - losses * margins
            joint = self._power * (block.gather @ log_likelihood) + log_shares
            marginal = logsumexp(joint, axis=1, keepdims=True)
            updated[block.users] = np.exp(joint - marginal)
            total += float(marginal.sum())
        return updated, total / max(evidence.num_users, 1)

    def judging_margins(self, membership: FloatArray, effects: FloatArray) -> FloatArray:
        """Return the margins [N, K] that each row of evidence is judged by: without its user's own comparisons."""
        model = self._pair_model(membership, effects)
        return np.concatenate([self._judging_margins(block, membership, model) for block in self._evidence.blocks])

    def _pair_model(self, membership: FloatArray, effects: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the margins and the curvature that the comparisons hold them in place with [P, K]."""
        evidence, margins = self._evidence, self.margins(effects)
        probability = _sigmoid(margins)
        wins, losses = evidence.counts(membership)
        own = (wins + losses) * probability * (1 - probability)
        if not evidence.overlapping:
            return margins, own
        # the other comparisons of the two responses hold the margin like two springs in series
        around = evidence.touches @ own
        first, second = around[evidence.first] - own, around[evidence.second] - own
        return margins, own + first * second / np.maximum(first + second, 1e-12)

    def _judging_margins(
        self, block: Block, membership: FloatArray, model: tuple[FloatArray, FloatArray]
    ) -> FloatArray:
        """Return m - delta, where delta is what the user's comparisons have moved the margin m by.

        One Newton step of the pair's margins in all groups from their optimum to that without the user, the effects of
        other pairs held fast: (Lambda/2 + H - H_u) delta = gradient of the user's comparisons, with prior precision
        Lambda of the effects. Where nobody else compared the pair, what remains is the prior mean 0.
        """
        evidence, prior = self._evidence, self._prior
        pair, user = evidence.pair[block.rows], evidence.user[block.rows]
        margins: FloatArray = model[0].take(pair, axis=0)
        if not self._leave_one_out:
            return margins
        wins, losses = evidence.wins[block.rows, None], evidence.losses[block.rows, None]
        own = membership.take(user, axis=0)
        probability = _sigmoid(margins)
        expected = (wins + losses) * probability
        gradient = own * (wins - expected)
        curvature = model[1].take(pair, axis=0) - own * expected * (1 - probability)
        if block.edges is not None:
            # a gradient on one of two responses moves their margin by half of what it does on both
            gradient = 0.5 * (block.edges.T @ (block.edges @ gradient))
        coupling = prior.coupling(membership.shape[1])
        margins -= _solve(np.maximum(curvature, 0.0) + prior.group / 2, coupling / 2, gradient)
        return margins


def random_start(num_groups: int, evidence: Evidence, rng: np.random.Generator) -> Groups:
    """Return memberships drawn at random and no effects."""
    return start_at(rng.dirichlet(np.ones(num_groups), evidence.num_users), evidence)


def start_at(membership: FloatArray, evidence: Evidence) -> Groups:
    """Return a start at these memberships [U, K], with no effects and groups of equal size."""
    num_groups = membership.shape[1]
    return Groups(membership, np.zeros((evidence.num_responses, num_groups)), np.full(num_groups, 1 / num_groups), ())
