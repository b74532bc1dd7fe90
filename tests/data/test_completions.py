"""Queries of OpenRLHF, which are prompt and response in one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from copl.data.canonical import ValueFaultError
from copl.data.completions import response_in

LETTERS = st.text("ab ", max_size=80)


@given(LETTERS, LETTERS)
@example("aab", "aabaab")
@example("", "a")
@example("a", "")
@example("a " * 16, "a " * 16 + "b")
@example("a" + "b" * 32, "b" * 32)
@example("a" + "b" * 31, "b" * 31)
def test_a_query_begins_with_its_prompt_or_with_a_long_end_of_it(prompt: str, query: str) -> None:
    asked, whole = prompt.lstrip(), query.lstrip()
    asked = asked if whole.startswith(asked) else asked.rstrip()
    ends = [asked] + [asked[start:] for start in range(len(asked) - 31)]
    found = next((end for end in ends if whole.startswith(end)), None)
    if found is None:
        with pytest.raises(ValueFaultError, match="does not begin with its prompt"):
            response_in(query, prompt)
    else:
        assert response_in(query, prompt) == whole[len(found) :].strip()


def test_the_last_letters_of_a_prompt_are_no_prompt_that_was_cut() -> None:
    with pytest.raises(ValueFaultError, match="does not begin with its prompt"):
        response_in("? What do you mean?", "What shall we drink?")


def test_spaces_that_a_tokenizer_puts_or_leaves_out_do_not_matter() -> None:
    assert response_in(" Tea? Coffee.", "Tea?") == response_in("Tea? Coffee.", "  Tea?\n") == "Coffee."


def test_a_long_query_of_another_prompt_is_refused_at_once() -> None:
    with pytest.raises(ValueFaultError, match="does not begin with its prompt"):
        response_in("a" * 300_000 + "c", "a" * 299_999 + "b")
