r"""Response effects with the text as their prior.

.. math::
    P(c \succ r) = \sigma(\theta_c - \theta_r), \qquad \theta_r = w^\top x_r + o_r, \qquad
    w \sim N(0, I / \lambda_w), \quad o_r \sim N(0, 1 / \lambda_o)

with coordinates x_r of the text: a Gaussian process over responses whose kernel is linear in the text plus white. What
comparisons say of a response moves its own o_r, and by w those of like texts; a response never compared has o_r = 0.
The coordinates are the principal axes of the differences between the two texts of a comparison, divided by their
singular values to the power p. How much to make of texts, lambda_w and p, is chosen by how well they foretell responses
whose comparisons are all left out, in turn a third of the prompts (or, where there is but one prompt, of the
responses); then lambda_o by the loss on held-out comparisons. Either part may turn out to be nothing.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen
from scipy.optimize import minimize
from scipy.special import expit

from copl.bradley_terry import log_loss, mean_log_loss

if TYPE_CHECKING:
    from copl.records import Comparisons, FloatArray, IntArray

_AXES = 128
_POWERS = (0.0, 0.5)
_TEXT_PRECISIONS = (30.0, 10.0, 3.0, 1.0, 0.3)
_OWN_PRECISIONS = (30.0, 10.0, 3.0, 1.0, 0.3)
_USUAL = 1.0
"""Precision of a response's own effect while the part of texts is chosen."""
_FOLDS = 3
_MAX_PAIRS = 20_000
"""Pairs of texts that axes are found from at most."""
_NOTHING = np.inf
"""The precision of a part that is left out."""


@final
@frozen(eq=False)
class Effects:
    """What all users share about responses.

    Attributes:
        weights: w, in the space of the features [F].
        own: o_r; 0 for responses without training comparisons [R].
        power: p that was chosen.
        text_precision: lambda_w that was chosen.
        own_precision: lambda_o that was chosen.
        loss: Bradley-Terry loss on the held-out comparisons.
    """

    weights: FloatArray
    own: FloatArray
    power: float
    text_precision: float
    own_precision: float
    loss: float


def fit_effects(train: Comparisons, validation: Comparisons, features: FloatArray, prompts: IntArray) -> Effects:
    """Return the effects of the highest posterior, with strengths chosen on comparisons that are left out.

    Args:
        train: comparisons to learn from, at least one; rows refer to `features`.
        validation: held-out comparisons; where there are none, a tenth of `train` takes their place.
        features: of the texts of all responses [R, F].
        prompts: the prompt of each response, as a number [R].
    """
    axes = _Axes.of(train, features)
    power, text = _strength_of_texts(train, axes, prompts)
    if not len(validation):
        held = np.arange(len(train)) % 10 == 9
        train, validation = (train.take(~held), train.take(held)) if held.any() else (train, train)
    own = np.zeros(len(features))
    best = Effects(np.zeros(features.shape[1]), own, power, _NOTHING, _NOTHING, float(np.log(2)))
    for precision in (text, _NOTHING):
        lengths = axes.lengths(power, precision)
        for own_precision in (_NOTHING, *_OWN_PRECISIONS):
            slopes, own = _posterior_mode(train, axes.values * lengths, own_precision)
            loss = _loss((axes.values * lengths) @ slopes + own, validation)
            if loss < best.loss:
                best = Effects(axes.directions @ (lengths * slopes), own, power, precision, own_precision, loss)
    return best


def _strength_of_texts(train: Comparisons, axes: _Axes, prompts: IntArray) -> tuple[float, float]:
    """Return p and lambda_w that foretell best what the comparisons of left-out texts say."""
    unit = prompts if len(np.unique(prompts[train.chosen])) >= _FOLDS else np.arange(len(axes.values))
    _, place = np.unique(unit, return_inverse=True)
    fold = np.random.default_rng(0).permutation(int(place.max()) + 1)[place] % _FOLDS
    losses: dict[tuple[float, float], float] = {}
    for left_out in range(_FOLDS):
        held = (fold[train.chosen] == left_out) | (fold[train.rejected] == left_out)
        if held.all() or not held.any():
            continue
        rest, asked = train.take(~held), train.take(held)
        for power, text in [(0.0, _NOTHING), *product(_POWERS, _TEXT_PRECISIONS)]:
            coordinates = axes.values * axes.lengths(power, text)
            slopes, own = _posterior_mode(rest, coordinates, _USUAL)
            loss = _loss(coordinates @ slopes + own, asked) * float(asked.weight.sum())
            losses[power, text] = losses.get((power, text), 0.0) + loss
    return min(losses, key=losses.__getitem__, default=(0.5, 1.0))


def _loss(rewards: FloatArray, held: Comparisons) -> float:
    return mean_log_loss(rewards[held.chosen] - rewards[held.rejected], held.weight)


@final
@frozen(eq=False)
class _Axes:
    """Directions of feature space [F, K], how much of the differences is along each [K], and the texts there [R, K]."""

    directions: FloatArray
    spread: FloatArray
    values: FloatArray

    @classmethod
    def of(cls, train: Comparisons, features: FloatArray) -> _Axes:
        """Find the principal axes of the differences between the texts of a comparison."""
        pairs = np.unique(np.stack([train.chosen, train.rejected], axis=1), axis=0)
        pairs = pairs[:: -(-len(pairs) // _MAX_PAIRS)]
        differences = (features[pairs[:, 0]] - features[pairs[:, 1]]).astype(np.float64)
        values, vectors = np.linalg.eigh(differences.T @ differences / max(1, len(pairs)))
        keep = np.flatnonzero(values > max(1e-9 * values.max(initial=0.0), 1e-30))[::-1][:_AXES]
        directions = vectors[:, keep]
        return cls(directions, np.sqrt(values[keep]), (features @ directions.astype(features.dtype)).astype(np.float64))

    def lengths(self, power: float, precision: float) -> FloatArray:
        """Return what to stretch the axes by [K] for differences of mean square norm 1 / precision."""
        if not len(self.spread) or precision == _NOTHING:
            return np.zeros(len(self.spread))
        relative = (self.spread / self.spread[0]) ** -power
        stretched: FloatArray = relative / np.sqrt(np.square(self.spread * relative).sum() * precision)
        return stretched


def _posterior_mode(train: Comparisons, coordinates: FloatArray, own: float) -> tuple[FloatArray, FloatArray]:
    """Return slopes [K] of standard normal prior and o [R]."""
    num_responses, num_axes = coordinates.shape
    scale = 1 / np.sqrt(own)

    def negative_log_density(point: FloatArray) -> tuple[float, FloatArray]:
        rewards = coordinates @ point[:num_axes] + (scale * point[num_axes:] if scale else 0.0)
        margins = rewards[train.chosen] - rewards[train.rejected]
        pull = -train.weight * expit(-margins)  # derivative by the margin
        by_response = np.bincount(train.chosen, pull, num_responses) - np.bincount(train.rejected, pull, num_responses)
        gradient = np.concatenate([coordinates.T @ by_response, scale * by_response if scale else []])
        return float(train.weight @ log_loss(margins) + point @ point / 2), point + gradient

    start = np.zeros(num_axes + (num_responses if scale else 0))
    mode = minimize(negative_log_density, start, jac=True, method="L-BFGS-B").x if len(start) else start
    return mode[:num_axes], scale * mode[num_axes:] if scale else np.zeros(num_responses)
