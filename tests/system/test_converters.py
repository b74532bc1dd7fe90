from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from copl.system.converters import among, latest_of, number_names, ranks


def test_names_are_numbered_as_they_first_occur() -> None:
    assert number_names(["b", "a", "b", "", "a"]).tolist() == [0, 1, 0, 2, 1]
    assert number_names([]).tolist() == []


@given(st.lists(st.integers(0, 6)), st.lists(st.integers(0, 6)))
def test_what_is_known_is_what_numpy_says(values: list[int], known: list[int]) -> None:
    columns = np.array(values, dtype=np.uint64), np.array(known, dtype=np.uint64)
    assert among(*columns).tolist() == np.isin(*columns).tolist()


def test_the_last_key_orders_first() -> None:
    owner = np.array([1, 0, 1, 1, 0])
    later, value = np.array([True, False, False, True, False]), np.array([3, 9, 8, 2, 4])
    assert ranks(owner, value).tolist() == [1, 1, 2, 0, 0]
    assert ranks(owner, value, later).tolist() == [2, 1, 0, 1, 0]
    assert ranks(owner).tolist() == [0, 0, 1, 2, 1]  # in the order of the rows
    assert ranks(owner[:0], value[:0]).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5))))
def test_ranks_are_those_of_a_loop(rows: list[tuple[int, int]]) -> None:
    owner, key = (np.array([row[place] for row in rows], dtype=np.int64) for place in (0, 1))
    expected = [
        sum(own == other and (k, at) < (key[place], place) for at, (other, k) in enumerate(rows))
        for place, (own, _) in enumerate(rows)
    ]
    assert ranks(owner, key).tolist() == expected


def test_the_latest_known_time_counts_and_none_is_earlier_than_any() -> None:
    owner, time = np.array([2, 0, 2, 0, 1]), np.array([3.0, np.nan, 5.0, 1.0, np.nan])
    assert latest_of(owner, time, 4).tolist() == [1.0, -np.inf, 5.0, -np.inf]
