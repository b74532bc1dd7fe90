from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.data.reading.columns import ColumnEncoder, EncodedColumn, encode, encode_together, first_places

VALUES: list[Any] = ["a", "1", "", None, 1, 0, True, False, 1.0, 2.5, ["a"], {"a": 1}, {"a": True}]


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


def decoded(column: EncodedColumn) -> list[Any]:
    return [None if code < 0 else column.values[code] for code in column.codes.tolist()]


@given(st.lists(st.lists(st.sampled_from(VALUES))))
def test_a_column_gives_its_values_back_and_holds_each_once(parts: list[list[Any]]) -> None:
    encoder = ColumnEncoder()
    for part in parts:
        encoder.add(part)
        encoder.skip(1)
    column = encoder.finish()
    values = [value for part in parts for value in [*part, None]]
    assert all(map(same, decoded(column), values))
    assert len(column) == len(values)
    distinct: list[Any] = []
    for value in values:
        if value is not None and not any(same(value, other) for other in distinct):
            distinct.append(value)
    assert all(map(same, column.values, distinct))
    assert len(column.values) == len(distinct)


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["b", None, "a", "b"]),
        pa.array(["b", None, "a", "b"], pa.large_string()),
        pa.array(["b", None, "a", "b"], pa.string_view()),
        # not in order of appearance, with a value that no row has and one that is null
        pa.DictionaryArray.from_arrays(pa.array([3, 1, 2, 3]), pa.array(["z", None, "a", "b"])),
        pa.DictionaryArray.from_arrays(pa.array([1, None, 0, 1]), pa.array(["a", "b"])),
        pa.chunked_array([["b", None], ["a"], [], ["b"]], pa.string()),
    ],
)
def test_arrow_arrays_are_coded_like_lists(array: Any) -> None:
    column = encode(array)
    assert (column.codes.tolist(), list(column.values), column.is_typed) == ([0, -1, 1, 0], ["b", "a"], True)


def test_arrays_of_other_things() -> None:
    assert decoded(encode(pa.array([7, None, 8], pa.int64()))) == [7, None, 8]
    assert decoded(encode(pa.array([[1], None, [1]]))) == [[1], None, [1]]
    assert decoded(encode(pa.nulls(2))) == [None, None]
    assert decoded(encode(pa.array([b"x", b"x"]))) == [b"x", b"x"]


def test_columns_together_share_their_values() -> None:
    one, other = encode_together([["a", "b", None], pa.array(["c", "b"])])
    assert one.values is other.values
    assert (one.codes.tolist(), other.codes.tolist(), list(one.values)) == ([0, 1, -1], [2, 1], ["a", "b", "c"])


def test_values_may_become_equal_or_nothing() -> None:
    column = encode([7, "x", "7", None, "y"])
    made = column.converted(["7", None, "7", "y"])
    assert (decoded(made), list(made.values)) == (["7", None, "7", None, "y"], ["7", "y"])
    assert column.mapped([1, 2, 3, 4], 9, np.int8).tolist() == [1, 2, 3, 9, 4]
    assert column.rows_where([True, False, False, True]).tolist() == [0, 4]
    assert column.rows_where([False] * 4, nothing=True).tolist() == [3]


@given(st.lists(st.integers(-1, 4)))
def test_first_places(codes: list[int]) -> None:
    expected = [codes.index(code) if code in codes else len(codes) for code in range(5)]
    assert first_places(np.array(codes, dtype=np.int64), 5).tolist() == expected
