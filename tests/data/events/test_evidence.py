"""What follows from what a user said: by hand for each kind, and properties of any sequence of votes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from copl.data.events.evidence import Event, in_force, pair_subject, rating_subject, words
from copl.data.reading.rows import read_comparison_rows


def log(*said: tuple[str, str, dict[str, Any]]) -> list[Event]:
    return [Event(n, "u", f"k{n}", 0, kind, subject, body, 0.0) for n, (kind, subject, body) in enumerate(said, 1)]


def vote(chosen: str, rejected: str, **more: Any) -> tuple[str, str, dict[str, Any]]:
    body = {"prompt": "p", "chosen": chosen, "rejected": rejected, **more}
    return "comparison", pair_subject("p", chosen, rejected), body


def rating(response: str, number: float) -> tuple[str, str, dict[str, Any]]:
    return "rating", rating_subject("p", response), {"prompt": "p", "response": response, "rating": number}


SHOWN = ("completion", "c", {"prompt": "p", "candidates": ["a", "b", "c"], "shown": 0})


def pairs(events: Sequence[Event]) -> list[tuple[str, str, float]]:
    return [(*word.texts, word.weight) for word in words(events) if word.kind == "comparison"]  # type: ignore[misc]  # of two texts


def test_a_comparison_counts_once_as_it_was_decided_last() -> None:
    assert pairs(log(vote("a", "b"), vote("a", "b"))) == [("a", "b", 1.0)]
    assert pairs(log(vote("a", "b"), vote("b", "a"))) == [("b", "a", 1.0)]
    (tie,) = words(log(vote("a", "b"), vote("a", "b", tie=True)))
    assert (tie.kind, tie.texts, tie.weight) == ("tie", ("a", "b"), 1.0)
    assert pairs(log(vote("a", "b", tie=True), vote("b", "a"))) == [("b", "a", 1.0)]
    assert pairs(log(vote("a", "b"), ("withdrawal", pair_subject("p", "b", "a"), {}))) == []


def test_a_choice_among_n_is_n_less_one_comparisons() -> None:
    assert pairs(log(SHOWN, ("choice", "c", {"chosen": 1}))) == [("b", "a", 2 / 3), ("b", "c", 2 / 3)]
    changed = log(SHOWN, ("choice", "c", {"chosen": 1}), ("choice", "c", {"chosen": 2}))
    assert pairs(changed) == [("c", "a", 2 / 3), ("c", "b", 2 / 3)]
    assert pairs(log(SHOWN, ("choice", "c", {"chosen": 1}), ("withdrawal", "c", {}))) == []


def test_equal_candidates_say_nothing_of_each_other() -> None:
    shown = ("completion", "c", {"prompt": "p", "candidates": ["a", "a", "b"], "shown": 0})
    assert pairs(log(shown, ("choice", "c", {"chosen": 0}))) == [("a", "b", 1.0)]


def test_an_edit_beats_what_it_edits_beside_a_choice() -> None:
    events = log(SHOWN, ("edit", "c", {"edit": "d"}), ("choice", "c", {"chosen": 0}))
    assert sorted(pairs(events)) == [("a", "b", 2 / 3), ("a", "c", 2 / 3), ("d", "a", 1.0)]
    assert pairs(log(SHOWN, ("edit", "c", {"edit": "a"}))) == []


def test_a_thumb_weighs_half_a_comparison_in_all_and_gives_way_to_a_choice() -> None:
    assert pairs(log(SHOWN, ("thumb", "c", {"thumb": 1}))) == [("a", "b", 0.25), ("a", "c", 0.25)]
    assert pairs(log(SHOWN, ("thumb", "c", {"thumb": -0.5}))) == [("b", "a", 0.125), ("c", "a", 0.125)]
    assert pairs(log(SHOWN, ("thumb", "c", {"thumb": 0}))) == []
    assert len(pairs(log(SHOWN, ("thumb", "c", {"thumb": 1}), ("choice", "c", {"chosen": 1})))) == 2


def test_a_thumb_for_an_answer_without_others_is_a_thumb() -> None:
    alone = ("completion", "c", {"prompt": "p", "candidates": ["a", "a"], "shown": 0})
    (up,) = words(log(alone, ("thumb", "c", {"thumb": 1})))
    assert (up.kind, up.texts, up.value, up.weight) == ("thumb", ("a",), 1.0, 1.0)
    (down,) = words(log(alone, ("thumb", "c", {"thumb": 1}), ("thumb", "c", {"thumb": -0.5})))
    assert (down.value, down.weight) == (-1.0, 0.5)
    assert words(log(alone, ("thumb", "c", {"thumb": 0}))) == []


def test_a_rating_counts_once_as_it_was_given_last() -> None:
    said = words(log(rating("a", 1), rating("b", 3), rating("a", 5)))
    assert [(word.kind, word.texts, word.value) for word in said] == [("rating", ("b",), 3.0), ("rating", ("a",), 5.0)]
    assert words(log(rating("a", 1), ("withdrawal", rating_subject("p", "a"), {}))) == []


def test_every_word_is_a_row_of_its_kind_and_reads_as_what_was_said() -> None:
    alone = ("completion", "c", {"prompt": "p", "candidates": ["a"], "shown": 0})
    events = log(vote("a", "b"), vote("a", "c", tie=True), rating("d", 2.5), alone, ("thumb", "c", {"thumb": -1}))
    said = read_comparison_rows([word.row("u") for word in words(events)])
    texts, given, judged = said.responses.texts, said.given, said.judgements
    assert [(texts[given.chosen[0]], texts[given.rejected[0]])] == [("a", "b")]
    assert judged.counts() == {"tie": 1, "thumb": 1, "rating": 1}
    assert sorted(judged.value.tolist()) == [-1.0, 0.0, 2.5]


def test_equal_words_are_equal_claims_whichever_of_a_tie_came_first() -> None:
    def claim_of(*event: Any) -> tuple[str, ...]:
        (word,) = words(log(*event))
        return word.claim

    assert claim_of(vote("a", "b", tie=True)) == claim_of(vote("b", "a", tie=True))
    assert claim_of(vote("a", "b")) != claim_of(vote("b", "a"))
    assert claim_of(rating("a", 1)) == claim_of(rating("a", 1.0))
    assert claim_of(rating("a", 1)) != claim_of(rating("a", 2))


def test_feedback_on_what_is_not_there_says_nothing() -> None:
    assert words(log(("choice", "gone", {"chosen": 1}), ("thumb", "gone", {"thumb": 1}))) == []


def test_only_the_kind_that_is_withdrawn_goes() -> None:
    events = log(
        SHOWN, ("edit", "c", {"edit": "d"}), ("choice", "c", {"chosen": 1}), ("withdrawal", "c", {"kind": "edit"})
    )
    assert [event.kind for event in in_force(events)] == ["choice"]


VOTES = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.sampled_from(["vote", "tie", "back"])), max_size=12
)


@given(VOTES)
def test_every_pair_stands_as_it_was_left(votes: list[tuple[str, str, str]]) -> None:
    votes = [vote for vote in votes if vote[0] != vote[1]]
    said = [
        ("withdrawal", pair_subject("p", one, other), {}) if how == "back" else vote(one, other, tie=how == "tie")
        for one, other, how in votes
    ]
    left: dict[frozenset[str], tuple[str, ...] | None] = {}
    for one, other, how in votes:
        end = {"vote": ("comparison", one, other), "tie": ("tie", *sorted((one, other))), "back": None}[how]
        left[frozenset((one, other))] = end
    standing = {(word.kind, *(sorted(word.texts) if word.kind == "tie" else word.texts)) for word in words(log(*said))}
    assert standing == {end for end in left.values() if end}
