"""Differences of ratings as they are written: .7 is .3 more than .4, though in binary it is a little less."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from copl.records import FloatArray

_WHOLE = 2**53
"""Up to here every whole number is a float."""


def exact(value: float) -> Decimal:
    """Return the shortest decimal that is read as `value`.

    >>> exact(0.7) - exact(0.4) >= exact(0.3)
    True
    """
    return Decimal(repr(float(value)))


def on_whole_scale(levels: Sequence[float], margin: float) -> tuple[FloatArray, float]:
    """Return levels and a margin times the power of ten that makes them whole numbers, so that differences are exact.

    Where there is no such power within what floats hold, they are returned as they are.

    Args:
        levels: finite levels [N].
        margin: a difference of levels.
    """
    decimals = [exact(value) for value in (*levels, margin)]
    places = max((-int(value.as_tuple().exponent) for value in decimals), default=0)
    scaled = [value.scaleb(max(places, 0)) for value in decimals]
    if any(abs(value) > _WHOLE for value in scaled):
        return np.array(levels, dtype=np.float64), margin
    *whole, whole_margin = (float(value) for value in scaled)
    return np.array(whole, dtype=np.float64), whole_margin
