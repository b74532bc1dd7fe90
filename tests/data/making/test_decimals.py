from __future__ import annotations

import itertools
from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from copl.data.making.decimals import exact, on_whole_scale

CENTS = st.integers(-1000, 1000).map(lambda cents: cents / 100)


def test_decimals_are_those_that_are_written() -> None:
    assert exact(0.7) - exact(0.4) == Decimal("0.3")
    assert exact(1e-7) == Decimal("0.0000001")
    assert exact(3) == 3


@given(st.lists(CENTS, min_size=1, max_size=6), CENTS)
def test_differences_on_a_whole_scale_are_exact(levels: list[float], margin: float) -> None:
    whole, least = on_whole_scale(levels, margin)
    np.testing.assert_array_equal(whole, np.round(whole))
    for (a, one), (b, other) in itertools.product(zip(levels, whole, strict=True), repeat=2):
        assert (one - other >= least) == (round(100 * a) - round(100 * b) >= round(100 * margin))


def test_levels_beyond_what_floats_hold_whole_are_left_as_they_are() -> None:
    levels, margin = on_whole_scale([1e300, 0.1], 0.3)
    assert (levels.tolist(), margin) == ([1e300, 0.1], 0.3)
    assert on_whole_scale([], 1.0)[0].tolist() == []
