"""The facets of a text of the grammar can be read off it; of other texts they are not guessed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.data.sources.facets.corpus import FACETS, compose, topics
from copl.data.sources.facets.reading import find_subject, read_facets
from copl.data.sources.facets.wording import NUM_WORDINGS, reword

SUBJECTS = [(topic, subject) for topic in topics() for subject in topic.subjects]
FACET_VALUES = st.tuples(*[st.integers(0, 1)] * len(FACETS))
ASKED = st.sampled_from(SUBJECTS)
WORDINGS = st.integers(0, NUM_WORDINGS - 1)


@given(asked=ASKED, facets=FACET_VALUES, seed=st.integers(0, 2**32), wording=WORDINGS)
def test_what_was_put_in_is_read_off(asked, facets, seed, wording) -> None:  # type: ignore[no-untyped-def]
    topic, subject = asked
    text = compose(topic, subject, facets, np.random.default_rng(seed))
    assert read_facets(reword(subject.ask, wording), text) == facets


@given(asked=ASKED, facets=FACET_VALUES, seed=st.integers(0, 2**32), data=st.data())
def test_a_text_that_lost_or_won_a_word_is_not_read_as_another_style(asked, facets, seed, data) -> None:  # type: ignore[no-untyped-def]
    topic, subject = asked
    words = compose(topic, subject, facets, np.random.default_rng(seed)).split(" ")
    place = data.draw(st.integers(0, len(words) - 1))
    assert read_facets(subject.ask, " ".join([*words[:place], *words[place + 1 :]])) in (None, facets)
    assert read_facets(subject.ask, " ".join([*words[:place], "well,", *words[place:]])) is None


@given(st.sampled_from(SUBJECTS), WORDINGS)
def test_a_question_is_known_in_whatever_words(asked, wording) -> None:  # type: ignore[no-untyped-def]
    assert find_subject(reword(asked[1].ask, wording)) == asked


_, SUBJECT = SUBJECTS[0]
PLAIN, TECHNICAL = SUBJECT.plain, SUBJECT.technical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It depends.",
        f"You must {PLAIN[0]}.",  # one point, and no example in its place
        f"You must {PLAIN[0]}. You must {PLAIN[0]}.",  # the same point twice
        f"You must {PLAIN[0]}. You might {PLAIN[1]}.",  # firm and hedged
        f"You must {PLAIN[0]}. You must {TECHNICAL[1]}.",  # plain and technical
        f"- You must {PLAIN[0]}.\nYou must {PLAIN[1]}.",  # half a list
        f"Checklist:\nYou must {PLAIN[0]}.\nYou must {PLAIN[1]}.",
        "Checklist:",
        f"You must {PLAIN[0]}. You must {PLAIN[1]}. Indeed.",
        f"You must {PLAIN[0]}, and you must {PLAIN[1]}, and you must {PLAIN[2]}.",
    ],
)
def test_what_the_grammar_cannot_have_written_is_not_read(text: str) -> None:
    assert read_facets(SUBJECT.ask, text) is None


def test_by_hand() -> None:
    assert read_facets(SUBJECT.ask, f"You must {PLAIN[2]}. Always {PLAIN[0]}.") == (0, 0, 1, 0, 0)
    assert read_facets(SUBJECT.ask, f"1) You might {TECHNICAL[1]}.\n2) Perhaps {TECHNICAL[0]}.") == (0, 1, 0, 1, 0)
    assert read_facets("What is the meaning of life?", f"You must {PLAIN[2]}. Always {PLAIN[0]}.") is None
