"""How the values that a record is given become the columns it holds: arrays and tuples of one type, numbered rows.

Nothing is changed in silence that would change its meaning: a number that is no whole number is never made a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INT64 = 2**63 - 1


def int_array(values: object) -> NDArray[np.int64]:
    """Return whole numbers, such as rows of a table.

    Raises:
        TypeError: they are of another type; a cast would turn 1.7, or a mask, into rows.
    """
    array = np.ascontiguousarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"rows are whole numbers, got {array.dtype}")
    if any(stride < 0 for stride in array.strides):  # one value reversed counts as contiguous, but torch refuses it
        array = array.copy()
    return array.astype(np.int64, copy=False)


def float_array(values: object) -> NDArray[np.float64]:
    return np.ascontiguousarray(values, dtype=np.float64)


def flag_array(values: object) -> NDArray[np.int8]:
    return np.ascontiguousarray(values, dtype=np.int8)


def renumbering(kept: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the new row of each of `count` old rows when only `kept` ones stay, in that order; -1 for the others."""
    rows = np.full(count, -1, dtype=np.int64)
    rows[kept] = np.arange(len(kept))
    return rows


def among(values: NDArray[Any], known: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which values are known [N], as `np.isin` does, at a third of its time for millions of hashes."""
    if not (len(values) and len(known)):
        return np.zeros(len(values), dtype=np.bool_)
    ordered = np.sort(known)
    is_known: NDArray[np.bool_] = ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values
    return is_known


def number_rows(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each row of non-negative columns [N], counted from 0, equal exactly for equal rows."""
    numbers, span = columns[0], int(columns[0].max(initial=0)) + 1
    for column in columns[1:]:
        width = int(column.max(initial=0)) + 1
        if span * width > _INT64:
            numbers = np.unique(numbers, return_inverse=True)[1].astype(np.int64)
            span = int(numbers.max(initial=0)) + 1
        if span * width > _INT64:
            distinct, column = np.unique(column, return_inverse=True)  # the same values, renumbered
            width = len(distinct)
        numbers, span = numbers * width + column, span * width
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def number_names(names: Iterable[str]) -> NDArray[np.int64]:
    """Return a number for each name [N], counted from 0 in the order in which they first occur."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)


def ranks(owner: NDArray[np.int64], *keys: NDArray[Any]) -> NDArray[np.int64]:
    """Return the place of each row among those of its owner [N], counted from 0 in the order of the keys.

    Args:
        owner: the owner of each row [N].
        keys: what rows are ordered by, the last key first [N].
    """
    order = np.lexsort((*keys, owner))
    starts = np.searchsorted(owner[order], owner[order], side="left")
    place = np.empty(len(owner), dtype=np.int64)
    place[order] = np.arange(len(owner)) - starts
    return place


def latest_of(owner: NDArray[np.int64], time: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return the latest known time of each of `count` owners; minus infinity for one that has none.

    Args:
        owner: the owner of each time [N].
        time: the times; NaN where one is not known [N].
        count: how many owners there are.
    """
    latest = np.full(count, -np.inf)
    known = ~np.isnan(time)
    np.maximum.at(latest, owner[known], time[known])
    return latest


def strings(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def optional_strings(values: Iterable[str | None]) -> tuple[str | None, ...]:
    return tuple(values)
