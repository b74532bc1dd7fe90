"""The table of users and responses and the reward model together.

The table scores by frozen features and by what comparisons say of a response; the reward model by what its adapters
have learnt to see in a text. The score is

    s(u, x) = b S(u, x) + a (T(u, x) - L(u))

with the table's score S, and the reward model's score T less its score L of the average text, so that scores of all
users are on one scale. The weights are fitted by Bradley-Terry likelihood on the validation split, which neither has
learnt from.
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
        """Fit the weights; few comparisons leave them near .8 and .2.

        Args:
            table: margins by the table of validation comparisons [N].
            text: margins by the reward model of the same [N].
        """
        from scipy.optimize import minimize

        def objective(logarithms: FloatArray) -> float:
            b, a = np.exp(logarithms)
            departure = np.square(logarithms - _EXPECTED).sum()
            return float(log_loss(b * table + a * text).sum() + 0.5 * _STRENGTH * departure)

        fitted = minimize(objective, _EXPECTED, method="Nelder-Mead", bounds=[(-8.0, 4.0)] * 2)
        b, a = np.exp(fitted.x)
        return cls(float(b), float(a))

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
