"""Text and graph together: what the reward model reads, and what the graph knows of a response.

A response that was compared in training carries more than its text says: the graph has seen who chose it. And of a
response that was not, the graph still says something, by the texts that it has met
(`copl.methods.parts.text_regression`). The score is

    s(u, x) = L(u) + a (T(u, x) - L(u)) + b G(u, x)

with the reward model's score T, its score L of the average text, and the encoder's centred score
G = e_u . (e_x - mean e) + b_x - mean b. There are two pairs of weights, for met and for new responses. Both are fitted
by Bradley-Terry likelihood on the validation split, whose comparisons neither half has trained on; those for new
responses on texts that were held out from the reward model, with what the graph says of them by the other texts. They
are scaled so that a T + b E[G | T] = T: scores of met and of new responses are then on one scale.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
from attrs import frozen
from scipy.optimize import minimize

from copl.records import BoolArray, FloatArray
from copl.system.documents import read_document, write_document

STAGE = "blend"
_FILE = "blend.json"


@final
@frozen
class Expectation:
    """Weights expected before any validation comparison is seen.

    Attributes:
        text: weight a of the text.
        graph: weight b of the graph.
        strength: precision, in nats per squared unit of the logarithms of both.
    """

    text: float
    graph: float
    strength: float


MET = Expectation(text=0.5, graph=1.0, strength=1.0)
"""Both halves are calibrated on their own; a few dozen comparisons outweigh this."""

NEW = Expectation(text=0.2, graph=1.0, strength=4.0)
"""Few texts are held out, and both halves read the same features, of which the graph makes more."""


@final
@frozen
class Weights:
    """Weights of text and graph.

    Attributes:
        text: weight a of the reward model's score.
        graph: weight b of the graph's score.
    """

    text: float
    graph: float

    @classmethod
    def fit(cls, text: FloatArray, graph: FloatArray, expected: Expectation) -> Weights:
        """Fit the weights.

        Args:
            text: margins T of validation comparisons [N].
            graph: margins G of the same comparisons [N].
            expected: what holds where they say little.
        """
        centre = np.log([expected.text, expected.graph])

        def objective(logarithms: FloatArray) -> float:
            a, b = np.exp(logarithms)
            departure = np.square(logarithms - centre).sum()
            return float(np.logaddexp(0.0, -(a * text + b * graph)).sum() + 0.5 * expected.strength * departure)

        found = minimize(objective, centre, method="Nelder-Mead", bounds=[(-8.0, 4.0)] * 2)
        a, b = np.exp(found.x)
        explained = float(np.square(text).sum())
        slope = max(float(text @ graph) / explained, 0.0) if explained > 0 else 1.0
        scale = a + b * slope
        return cls(float(a / scale), float(b / scale))


@final
@frozen
class Blend:
    """How text and graph are added.

    Attributes:
        met: weights for responses that were compared in training.
        new: weights for others.
    """

    met: Weights
    new: Weights

    def scores(self, text: FloatArray, level: FloatArray, graph: FloatArray, met: BoolArray) -> FloatArray:
        """Return the scores [N].

        Args:
            text: what the reward model says [N].
            level: what it says of the average text, for the same users [N].
            graph: what the graph says [N].
            met: whether the response was compared in training [N].
        """
        own = text - level
        return level + np.where(
            met, self.met.text * own + self.met.graph * graph, self.new.text * own + self.new.graph * graph
        )

    def save(self, directory: Path) -> None:
        """Write the weights."""
        write_document(directory / _FILE, self)

    @classmethod
    def load(cls, directory: Path) -> Blend:
        """Read the weights.

        Raises:
            RunError: they are missing or damaged.
        """
        return read_document(directory / _FILE, cls, advice="train the run again")
