"""Text and graph together: what the reward model reads, and what the graph knows of a response it has met.

A response that was compared in training carries more than its text says: the graph has seen who chose it. Its score is

    s(u, x) = L(u) + a (T(u, x) - L(u)) + b G(u, x),        of a response never met        s(u, x) = T(u, x)

with the reward model's score T, its score L of the average text, and the encoder's centred score
G = e_u . (e_x - mean e) + b_x - mean b. The weights are fitted by Bradley-Terry likelihood on the validation split,
whose comparisons neither half has trained on, and scaled so that a T + b E[G | T] = T: scores of met and of new
responses are then on one scale.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import final

import numpy as np
from attrs import frozen
from scipy.optimize import minimize

from copl.errors import RunError
from copl.files import write_text
from copl.records import BoolArray, FloatArray

STAGE = "blend"
_FILE = "blend.json"
_PRIOR = (np.log(0.5), 0.0)
"""Logarithms of a and b expected before any validation comparison is seen: both halves are calibrated on their own."""
_PRIOR_STRENGTH = 1.0
"""Precision of the prior, in nats per squared unit of the logarithms; a few dozen comparisons outweigh it."""


@final
@frozen
class Blend:
    """Weights of text and graph for responses that were compared in training.

    Attributes:
        text: weight a of the reward model's score.
        graph: weight b of the graph's score.
    """

    text: float
    graph: float

    @classmethod
    def fit(cls, text: FloatArray, graph: FloatArray) -> Blend:
        """Fit the weights.

        Args:
            text: margins T of validation comparisons between responses that were both met [N].
            graph: margins G of the same comparisons [N].
        """

        def objective(logarithms: FloatArray) -> float:
            a, b = np.exp(logarithms)
            departure = np.square(logarithms - np.array(_PRIOR)).sum()
            return float(np.logaddexp(0.0, -(a * text + b * graph)).sum() + 0.5 * _PRIOR_STRENGTH * departure)

        found = minimize(objective, np.array(_PRIOR), method="Nelder-Mead", bounds=[(-8.0, 4.0)] * 2)
        a, b = np.exp(found.x)
        explained = float(np.square(text).sum())
        slope = max(float(text @ graph) / explained, 0.0) if explained > 0 else 0.0
        scale = a + b * slope
        return cls(float(a / scale), float(b / scale))

    def scores(self, text: FloatArray, level: FloatArray, graph: FloatArray, met: BoolArray) -> FloatArray:
        """Return the scores [N].

        Args:
            text: what the reward model says [N].
            level: what it says of the average text, for the same users [N].
            graph: what the graph says [N].
            met: whether the response was compared in training [N]; where not, the text alone decides.
        """
        return np.where(met, level + self.text * (text - level) + self.graph * graph, text)

    def save(self, directory: Path) -> None:
        """Write the weights."""
        write_text(directory / _FILE, json.dumps({"text": self.text, "graph": self.graph}) + "\n")

    @classmethod
    def load(cls, directory: Path) -> Blend:
        """Read the weights.

        Raises:
            RunError: they are missing or damaged.
        """
        try:
            content = json.loads((directory / _FILE).read_text(encoding="utf-8"))
            return cls(float(content["text"]), float(content["graph"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{directory / _FILE} cannot be read ({error}); train the run again") from error
