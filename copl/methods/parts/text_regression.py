r"""What the graph would say of responses that nobody has compared: a regression of its embeddings on texts.

A response that was compared has an embedding e_r and a bias b_r, the surer the more often it was compared. Kernel ridge
regression (the posterior mean of a Gaussian process) carries both over to other texts by their frozen features x:

.. math::
    \hat e(x) = k(x, X) \bigl(K + \lambda\, \mathrm{diag}(\bar n / n_r)\bigr)^{-1} E, \qquad
    k(x, x') = \exp\bigl(-\tfrac12 \lVert x - x' \rVert^2\bigr)

with n_r the comparisons of a response and features of mean squared norm 1 over coordinates of equal variance. Every
text counts once, by how well it is known, and not once a comparison, as in the likelihood of a reward model.
Saunders, Gammerman and Vovk, "Ridge Regression Learning Algorithm in Dual Variables", ICML 1998; beyond a thousand
responses by the Nystrom method, Williams and Seeger, NIPS 2000.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, final

import torch
from attrs import frozen

from copl.reward.model import AffineScaling
from copl.system.tensors import floats, load_tensors, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

_FILE = "text_regression.safetensors"
_EXPECTED = {
    "centre": floats("F"),
    "scale": floats("F"),
    "landmarks": floats("m", "F"),
    "coefficients": floats("m", "K"),
}
_RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
_USUAL_RIDGE = 0.3
_MAX_LANDMARKS = 1024
_MAX_RESPONSES = 20_000
_AT_ONCE = 8192
_LEAST_EIGENVALUE = 1e-8


@final
@frozen(eq=False)
class TextRegression:
    """A regression of vectors of dimension K on features of dimension F, by m landmarks.

    Attributes:
        centre: mean of the features [F].
        scale: what features are divided by [F], positive.
        landmarks: scaled features that new ones are compared with [m, F].
        coefficients: weights of the landmarks [m, K].
    """

    centre: Tensor
    scale: Tensor
    landmarks: Tensor
    coefficients: Tensor

    @classmethod
    def fit(
        cls, features: Tensor, targets: Tensor, counts: Tensor, judge: Callable[[Tensor], float] | None
    ) -> tuple[TextRegression, Tensor]:
        """Fit the regression.

        Args:
            features: features of responses [R, F].
            targets: what to predict of them [R, K].
            counts: how many comparisons each target rests on [R]; a response without any teaches nothing.
            judge: returns the loss of leave-one-out predictions [R, K], which chooses the ridge; None takes the usual
                one.

        Returns:
            the regression, and for each response what the others say of it [R, K], float64.
        """
        features, targets, counts = features.double(), targets.double(), counts.double()
        taught = torch.argsort(counts, descending=True, stable=True)[:_MAX_RESPONSES]
        taught = taught[counts[taught] > 0].sort().values
        others = torch.zeros_like(targets)
        if not len(taught):
            num_features = features.shape[1]
            return cls(torch.zeros(num_features), torch.ones(num_features), features[:0], targets[:0]), others
        untaught = torch.ones(len(features), dtype=torch.bool).index_fill_(0, taught, False)
        known, answers = features[taught], targets[taught]
        weight = counts[taught] / counts[taught].mean()
        scaling = AffineScaling.of_features(known)
        centre, scale = scaling.centre, scaling.scale
        scale = scale * ((known - centre) / scale).square().sum(1).mean().sqrt().clamp_min(1e-12)
        scaled = (known - centre) / scale
        landmarks = scaled[_evenly(len(scaled), _MAX_LANDMARKS)]
        values, vectors = torch.linalg.eigh(_kernel(landmarks, landmarks))
        kept = values > _LEAST_EIGENVALUE * values[-1]
        basis = vectors[:, kept] / values[kept].sqrt()
        codes = _kernel(scaled, landmarks) @ basis
        # one decomposition serves all ridges
        gram, axes = torch.linalg.eigh(codes.T @ (codes * weight[:, None]))
        basis, codes = basis @ axes, codes @ axes
        pulls = codes.T @ (answers * weight[:, None])
        best: tuple[float, TextRegression, Tensor] | None = None
        for ridge in (_USUAL_RIDGE,) if judge is None else _RIDGES:
            shrunk = 1.0 / (gram.clamp_min(0) + ridge)
            solution = shrunk[:, None] * pulls
            leverage = weight * (codes.square() @ shrunk)
            found = cls(centre, scale, landmarks, basis @ solution)
            others = torch.zeros_like(targets)
            others[taught] = (codes @ solution - leverage[:, None] * answers) / (1 - leverage).clamp_min(1e-9)[:, None]
            others[untaught] = found.predict(features[untaught])
            loss = 0.0 if judge is None else judge(others)
            if best is None or loss < best[0]:
                best = loss, found, others
        assert best is not None  # there are ridges to try
        return best[1], best[2]

    def predict(self, features: Tensor) -> Tensor:
        """Return the predictions [n, K], float64, for features [n, F]; zeros where nothing could be learnt."""
        parts = [
            _kernel((part.double() - self.centre) / self.scale, self.landmarks) @ self.coefficients
            for part in torch.split(features, _AT_ONCE)
        ]
        return torch.cat(parts)

    def save(self, directory: Path) -> None:
        """Write the regression."""
        save_tensors(directory / _FILE, {name: getattr(self, name).float() for name in _EXPECTED})

    @classmethod
    def load(cls, directory: Path) -> TextRegression:
        """Read the regression.

        Raises:
            RunError: it is missing or damaged.
        """
        tensors = load_tensors(directory / _FILE, _EXPECTED, advice="train the run again")
        return cls(*(tensors[name].double() for name in _EXPECTED))


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    """Return exp(-|x - x'|^2 / 2) [n, m]."""
    squares = one.square().sum(1)[:, None] + other.square().sum(1)[None] - 2 * one @ other.T
    return torch.exp(-0.5 * squares.clamp_min(0))


def _evenly(count: int, at_most: int) -> Tensor:
    """Return up to `at_most` places among `count`, evenly spread."""
    return torch.arange(min(count, at_most)) * count // min(count, at_most)
