from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.data.pairs import (
    compact,
    contradictions,
    first_rows,
    intern_responses,
    intern_users,
    number_rows,
    pair_numbers,
    repeats,
)
from copl.records import Comparisons, ResponseTable, UserTable

#                    0  1  2  3  4  5
ROWS = Comparisons([0, 0, 0, 1, 0, 0], [1, 1, 2, 2, 3, 1], [2, 2, 1, 1, 4, 2])


def test_a_pair_is_the_same_either_way_and_for_one_user() -> None:
    pair = pair_numbers(ROWS)
    assert pair[0] == pair[1] == pair[2] == pair[5]
    assert len({pair[0], pair[3], pair[4]}) == 3


def test_repeats_are_all_but_the_first() -> None:
    assert repeats(ROWS).tolist() == [False, True, False, False, False, True]


def test_contradictions_are_both_sides_of_one_user() -> None:
    assert contradictions(ROWS).tolist() == [True, True, True, False, False, True]


def test_first_rows() -> None:
    assert first_rows(pair_numbers(ROWS)).tolist() == [0, 0, 0, 3, 4, 0]


def test_nothing_has_no_pairs() -> None:
    none = Comparisons.empty()
    assert len(repeats(none)) == len(contradictions(none)) == len(pair_numbers(none)) == 0


@settings(max_examples=50)
@given(st.lists(st.tuples(*[st.sampled_from([0, 1, 2, 2**40])] * 3), max_size=12))
def test_rows_have_one_number_exactly_when_they_are_equal(rows: list[tuple[int, int, int]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    table = Comparisons(*columns)
    numbers = number_rows(table.user, table.chosen, table.rejected).tolist()
    for one, first in zip(rows, numbers, strict=True):
        for other, second in zip(rows, numbers, strict=True):
            assert (one == other) == (first == second)


def test_a_response_is_its_prompt_and_text() -> None:
    table, chosen, rejected = intern_responses(["q", "p", "q"], ["b", "b", "a"], ["a", "c", "b"])
    assert list(zip(table.prompts, table.texts, strict=True)) == [("q", "a"), ("q", "b"), ("p", "b"), ("p", "c")]
    assert chosen.tolist() == [1, 2, 0]
    assert rejected.tolist() == [0, 3, 1]


def test_rows_of_responses_do_not_tell_who_won() -> None:
    one = intern_responses(["p", "p"], ["x", "y"], ["a", "b"])[0]
    other = intern_responses(["p", "p"], ["a", "b"], ["x", "y"])[0]
    assert one.texts == other.texts


def test_arrow_columns_in_pieces_are_interned() -> None:
    ids, rows = intern_users(pa.chunked_array([["u", "v"], [], ["v", "w"]]))
    assert ids == ("u", "v", "w")
    assert rows.tolist() == [0, 1, 1, 2]


def test_compact_keeps_what_is_referred_to() -> None:
    users = UserTable(["a", "b", "c"], ["x", None, "z"])
    responses = ResponseTable(["p", "p", "q", "q"], ["0", "1", "2", "3"])
    rows = Comparisons([2, 2], [3, 1], [1, 3], [0.5, 2.0], [1, -1])  # type: ignore[arg-type]  # lists, for brevity
    new_users, new_responses, splits = compact(users, responses, {"train": rows, "test": Comparisons.empty()})
    assert (new_users.ids, new_users.groups) == (("c",), ("z",))
    assert (new_responses.prompts, new_responses.texts) == (("p", "q"), ("1", "3"))
    assert splits["train"].user.tolist() == [0, 0]
    assert splits["train"].chosen.tolist() == [1, 0]
    assert splits["train"].rejected.tolist() == [0, 1]
    assert list(splits["train"].weight) == [0.5, 2.0]
    assert len(splits["test"]) == 0
