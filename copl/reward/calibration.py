"""Rewards of different users on one scale.

A user's rewards have a level and a spread of their own, which comparisons of that user never fix: only differences
matter to them. Across users they do matter, where rewards are averaged, thresholded or trained on together. The
calibrated reward of a response x for a user u is

    c(u, x) = (r(u, x) - mean_R r(u, .)) / spread_R r(u, .)

over one fixed set R of training responses: 0 is a response this user likes as much as the average of R, 1 one that
stands a standard deviation above it. The map is increasing, so no user's ranking changes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from copl.bradley_terry import log_loss
from copl.records import FloatArray, ResponseTable, ScoreRequests, UserTable

Scores = Callable[[ScoreRequests], FloatArray]
"""The rewards [N] of requests."""

ROUNDING = 1e-6
"""Rewards that differ by less than this share of their size differ by how single precision rounds."""


def levels_and_spreads(scores: Scores, users: UserTable, reference: ResponseTable) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of each user's rewards of the reference responses [U]; a spread of 0 as 1."""
    count = len(reference)
    user, response = np.repeat(np.arange(len(users)), count), np.tile(np.arange(count), len(users))
    rewards = scores(ScoreRequests(users, reference, user, response)).reshape(len(users), count)
    levels, spreads = rewards.mean(axis=1), rewards.std(axis=1)
    rounding = ROUNDING * np.abs(rewards).max(axis=1, initial=0.0)
    return levels, np.where(spreads > rounding, spreads, 1.0)


def fitted_weight(personal: FloatArray, quality: FloatArray) -> float:
    """Return the weight w of a quality reward beside a personal one: personal + w * quality.

    By Bradley-Terry likelihood of the comparisons under a (personal + w quality), a and w not negative, with a weak
    prior that keeps few comparisons near w = 0.

    Args:
        personal: margins of held-out comparisons by the personal reward [N].
        quality: margins of the same by the quality reward [N].
    """
    from scipy.optimize import minimize

    def objective(values: FloatArray) -> float:
        slope, weight = values
        margins = slope * personal + weight * quality
        return float(log_loss(margins).sum() + 0.5 * (np.square(np.log(slope)) + np.square(weight)))

    fitted = minimize(objective, [1.0, 0.1], method="L-BFGS-B", bounds=[(1e-2, 1e2), (0.0, 1e2)])
    slope, weight = fitted.x
    return float(weight / slope)
