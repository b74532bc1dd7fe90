"""What a model thought before its answer, in the forms that models write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.data.thinking import answer_in

PARTS = st.lists(st.sampled_from(["<think>", "</think>", "\n", " ", "a", "b"]), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("<think>\nTea? Hm.\n</think>\n\nCoffee.", "Coffee."),
        (" <think></think>\n\nCoffee.\n", "Coffee."),
        ("Tea? Hm.\n</think>\n\nCoffee.", "Coffee."),  # the template wrote the opening mark
        ("<think>Tea?</think> <think>Hm.</think>Coffee.", "Coffee."),
        ("<think>Tea? Hm", ""),
        ("<think>Tea?</think>", ""),
        ("Write <think> first.\n</think>\nThen answer.", "Write <think> first.\n</think>\nThen answer."),
        ("The mark </think> ends it.", "The mark </think> ends it."),
        (" Coffee. ", " Coffee. "),
    ],
)
def test_what_is_left_is_the_answer(written: str, answer: str) -> None:
    assert answer_in(written) == answer


@given(PARTS)
def test_an_answer_is_an_answer(written: str) -> None:
    answer = answer_in(written)
    assert answer_in(answer) == answer
    assert not answer.startswith("<think>")
    assert answer in written


@pytest.mark.parametrize("part", ["<think></think>", "a\n</think>\n", " \n"])
def test_texts_as_long_as_a_request_are_read_at_once(part: str) -> None:
    assert not answer_in("<think>" + part * 100_000)
    assert answer_in(part * 100_000 + "x").endswith("x")
