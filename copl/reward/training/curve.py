"""How training went: the looks at comparisons that the model is not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from attrs import frozen


@final
@frozen
class CurvePoint:
    """The model after some steps, as measured on comparisons that it is not trained on."""

    step: int
    validation_loss: float
    validation_accuracy: float


def best_of(curve: Sequence[CurvePoint]) -> CurvePoint:
    """Return the point of the lowest validation loss, the earliest of equals."""
    return min(curve, key=lambda point: (point.validation_loss, point.step))
