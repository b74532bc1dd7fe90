"""The table of users and responses and the reward model together.

The table scores by frozen features and by what comparisons say of a response; the reward model by what its adapters
have learnt to see in a text. The score is

    s(u, x) = b S(u, x) + a (T(u, x) - L(u))

with the table's score S, and the reward model's score T less its score L of the average text, so that scores of all
users are on one scale. The weights are fitted by Bradley-Terry likelihood on the validation split, which neither has
learnt from, and what the reward model changes counts by how surely it helps on these N comparisons, doubt twice,

    Phi(z)^2 N / (N + 30),    z = mean gain of log likelihood over the table alone / its standard error,

so that a reward model learnt from next to nothing leaves the table as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
from attrs import frozen

from copl.bradley_terry import log_loss
from copl.records import FloatArray
from copl.system.documents import read_document, write_document

STAGE = "blend"
_FILE = "blend.json"
_EXPECTED = np.log([0.8, 0.2])
_STRENGTH = 4.0
_DOUBT = 30
"""Comparisons that it takes to count half of what looks sure."""
_LEAST_ERROR = 1e-12


@final
@frozen
class Blend:
    """Weights of table and reward model.

    Attributes:
        table: b.
        text: a.
    """

    table: float
    text: float

    @classmethod
    def fit(cls, table: FloatArray, text: FloatArray) -> Blend:
        """Fit the weights; few comparisons leave them near .8 and next to 0.

        Args:
            table: margins by the table of validation comparisons [N].
            text: margins by the reward model of the same [N].
        """
        alone, _ = _fitted(table, np.zeros_like(text))
        b, a = _fitted(table, text)
        gain = log_loss(alone * table) - log_loss(b * table + a * text)
        sure = _confidence(gain)
        return cls(alone + sure * (b - alone), sure * a)

    def scores(self, table: FloatArray, text: FloatArray, level: FloatArray) -> FloatArray:
        """Return the scores [N] from those of the table, of the reward model, and of the average text there [N]."""
        return self.table * table + self.text * (text - level)

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


def _fitted(table: FloatArray, text: FloatArray) -> tuple[float, float]:
    from scipy.optimize import minimize

    def objective(logarithms: FloatArray) -> float:
        b, a = np.exp(logarithms)
        departure = np.square(logarithms - _EXPECTED).sum()
        return float(log_loss(b * table + a * text).sum() + 0.5 * _STRENGTH * departure)

    b, a = np.exp(minimize(objective, _EXPECTED, method="Nelder-Mead", bounds=[(-8.0, 4.0)] * 2).x)
    return float(b), float(a)


def _confidence(gain: FloatArray) -> float:
    """Return how surely the mean of gains [N] is above 0, in [0, 1); 0 where there are none."""
    from scipy.special import ndtr

    if not len(gain):
        return 0.0
    error = max(float(gain.std()) / np.sqrt(len(gain)), _LEAST_ERROR)
    return float(ndtr(gain.mean() / error)) ** 2 * len(gain) / (len(gain) + _DOUBT)
