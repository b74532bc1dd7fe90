"""Distinct things drawn for many owners at once, the popular ones more often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator

    from copl.records import FloatArray, IntArray

_ROUNDS = 64
"""Rounds of drawing again what came out twice; after them the few owners left are served one by one, exactly."""

_CELLS = 4_000_000
"""Owners times things handled at once when they are served exactly."""


def zipf_weights(num: int, exponent: float, rng: Generator) -> FloatArray:
    """Return weights rank^-exponent [num] for ranks dealt at random; exponent 0 makes all equally popular."""
    weights: FloatArray = np.power(rng.permutation(num) + 1.0, -exponent)
    return weights


def draw_distinct(counts: IntArray, weights: FloatArray, rng: Generator) -> IntArray:
    """Draw for each owner `counts` different things, one after the other in proportion to their weights.

    Args:
        counts: how many each owner draws [O], at most as many as there are things.
        weights: weight of each thing [P], positive.
        rng: source of randomness.

    Returns:
        the things of all owners [sum of counts], owner by owner, each owner's in random order.
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    if not len(owner):
        return owner
    drawn = np.full(len(owner), -1, dtype=np.int64)
    crowded = 2 * counts > len(weights)  # drawing again until nothing repeats would take long
    rows = np.flatnonzero(~crowded[owner])
    for _ in range(_ROUNDS):
        open_rows = rows[drawn[rows] < 0]
        if not len(open_rows):
            break
        drawn[open_rows] = _draw(len(open_rows), weights, rng)
        # only owners who have just drawn can have something twice
        drew = np.zeros(len(counts), dtype=np.bool_)
        drew[owner[open_rows]] = True
        rows = rows[drew[owner[rows]]]
        again = np.ones(len(rows), dtype=np.bool_)
        again[np.unique(owner[rows] * len(weights) + drawn[rows], return_index=True)[1]] = False
        drawn[rows[again]] = -1
    _serve_exactly(np.unique(owner[drawn < 0]), counts, weights, owner, drawn, rng)
    return _shuffled(owner, drawn, weights, rng)


def _draw(num: int, weights: FloatArray, rng: Generator) -> IntArray:
    if weights.min() == weights.max():
        return rng.integers(len(weights), size=num)
    ends = np.cumsum(weights)
    things: IntArray = np.searchsorted(ends, rng.random(num) * ends[-1], side="right").astype(np.int64)
    return np.minimum(things, len(weights) - 1)


def _serve_exactly(
    owners: IntArray, counts: IntArray, weights: FloatArray, owner: IntArray, drawn: IntArray, rng: Generator
) -> None:
    """Draw everything anew for a few owners: the largest log weights with Gumbel noise are such a draw."""
    starts = np.searchsorted(owner, owners)
    step = max(_CELLS // len(weights), 1)
    for first in range(0, len(owners), step):
        part = slice(first, first + step)
        keys = np.log(weights) + rng.gumbel(size=(len(owners[part]), len(weights)))
        ranked = np.argsort(-keys, axis=1)
        for things, start, count in zip(ranked, starts[part], counts[owners[part]], strict=True):
            drawn[start : start + count] = things[:count]


def _shuffled(owner: IntArray, drawn: IntArray, weights: FloatArray, rng: Generator) -> IntArray:
    """Return the draws in random order within each owner: unshuffled, the popular things come first."""
    if weights.min() == weights.max():
        return drawn
    return drawn[np.lexsort((rng.random(len(owner)), owner))]
