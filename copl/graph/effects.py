"""What all users share about a response: Bradley-Terry response effects, without anything personal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from copl.bradley_terry import log_loss, mean_log_loss
from copl.records import Comparisons

if TYPE_CHECKING:
    from copl.records import FloatArray

_PRECISIONS = (0.1, 0.3, 1.0, 3.0, 10.0)
_SCALES = tuple(2.0 ** (halves / 2) for halves in range(-8, 9))


def response_effects(train: Comparisons, validation: Comparisons, num_responses: int) -> FloatArray:
    """Return the effects b [R] that maximise the posterior of P(c over r) = sigmoid(b_c - b_r).

    The prior is Gaussian around 0; its precision is chosen by the loss on `validation`, or on `train` where that is
    empty. A response without comparisons has effect 0.
    """
    held = validation if len(validation) else train
    train = _pooled(train, num_responses)
    best, lowest = np.zeros(num_responses), float(np.log(2))
    start = best
    for precision in reversed(_PRECISIONS):
        start = _posterior_mode(train, num_responses, precision, start)
        loss = mean_log_loss(start[held.chosen] - start[held.rejected], held.weight)
        if loss < lowest:
            best, lowest = start, loss
    return best


def _pooled(rows: Comparisons, num_responses: int) -> Comparisons:
    """Return one comparison, with the weight of all, for those of the same two responses with the same outcome."""
    place, row = np.unique(rows.chosen * num_responses + rows.rejected, return_inverse=True)
    if len(place) == len(rows):
        return rows
    chosen, rejected = place // num_responses, place % num_responses
    return Comparisons(np.zeros_like(place), chosen, rejected, np.bincount(row, rows.weight))


def _posterior_mode(train: Comparisons, num_responses: int, precision: float, start: FloatArray) -> FloatArray:
    from scipy.optimize import minimize
    from scipy.special import expit

    ends = np.concatenate([train.chosen, train.rejected])

    def negative_log_density(effects: FloatArray) -> tuple[float, FloatArray]:
        margins = effects[train.chosen] - effects[train.rejected]
        pull = -train.weight * expit(-margins)  # derivative by the margin
        value = train.weight @ log_loss(margins) + precision / 2 * effects @ effects
        gradient = np.bincount(ends, np.concatenate([pull, -pull]), num_responses) + precision * effects
        return float(value), gradient

    mode: FloatArray = minimize(negative_log_density, start, jac=True, method="L-BFGS-B").x
    return mode


def best_scale(personal: FloatArray, shared: FloatArray, weight: FloatArray) -> tuple[float, float]:
    """Return the factor of the personal margins that goes best with the shared ones, 0 included, and its loss."""
    losses = {scale: mean_log_loss(scale * personal + shared, weight) for scale in (0.0, *_SCALES)}
    scale = min(losses, key=losses.__getitem__)
    return scale, losses[scale]
