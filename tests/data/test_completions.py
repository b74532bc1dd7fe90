"""Queries of OpenRLHF, which are prompt and response in one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from copl.data.canonical import ValueFaultError
from copl.data.completions import response_in

LETTERS = st.text("ab ", max_size=12)


@given(LETTERS, LETTERS)
@example("aab", "aabaab")
@example("", "a")
@example("a", "")
def test_a_query_begins_with_as_much_of_the_end_of_its_prompt_as_can_be(prompt: str, query: str) -> None:
    ends = [prompt[start:] for start in range(len(prompt)) if query.startswith(prompt[start:])]
    if prompt and not ends:
        with pytest.raises(ValueFaultError, match="does not begin with its prompt"):
            response_in(query, prompt)
    else:
        assert response_in(query, prompt) == query[len(ends[0]) if ends else 0 :].strip()


def test_a_long_query_of_another_prompt_is_refused_at_once() -> None:
    with pytest.raises(ValueFaultError, match="does not begin with its prompt"):
        response_in("a" * 300_000 + "c", "a" * 299_999 + "b")
