"""What follows from what a user said: by hand for each kind, and properties of any sequence of votes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from copl.data.events.evidence import MAX_RATINGS, Event, in_force, judgements, pair_subject, rating_subject


def log(*said: tuple[str, str, dict[str, Any]]) -> list[Event]:
    return [Event(n, "u", f"k{n}", 0, kind, subject, body, 0.0) for n, (kind, subject, body) in enumerate(said, 1)]


def vote(chosen: str, rejected: str, **more: Any) -> tuple[str, str, dict[str, Any]]:
    body = {"prompt": "p", "chosen": chosen, "rejected": rejected, **more}
    return "comparison", pair_subject("p", chosen, rejected), body


def rating(response: str, number: float) -> tuple[str, str, dict[str, Any]]:
    return "rating", rating_subject("p", response), {"prompt": "p", "response": response, "rating": number}


SHOWN = ("completion", "c", {"prompt": "p", "candidates": ["a", "b", "c"], "shown": 0})


def pairs(events: Sequence[Event]) -> list[tuple[str, str, float]]:
    return [(one.chosen, one.rejected, one.weight) for one in judgements(events)]


def test_a_comparison_counts_once_as_it_was_decided_last() -> None:
    assert pairs(log(vote("a", "b"), vote("a", "b"))) == [("a", "b", 1.0)]
    assert pairs(log(vote("a", "b"), vote("b", "a"))) == [("b", "a", 1.0)]
    assert pairs(log(vote("a", "b"), vote("a", "b", tie=True))) == []
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


def test_ratings_of_one_prompt_are_compared() -> None:
    assert pairs(log(rating("a", 1), rating("b", 3), rating("c", 3))) == [("b", "a", 1.0), ("c", "a", 1.0)]
    assert pairs(log(rating("a", 1), rating("b", 3), rating("a", 5))) == [("a", "b", 1.0)]
    assert pairs(log(rating("a", 1))) == []


def test_of_very_many_ratings_the_latest_are_compared() -> None:
    events = log(*(rating(str(number), number) for number in range(200)))
    assert len(pairs(events)) == MAX_RATINGS * (MAX_RATINGS - 1) / 2
    assert min(int(low) for _, low, _ in pairs(events)) == 200 - MAX_RATINGS


def test_feedback_on_what_is_not_there_says_nothing() -> None:
    assert pairs(log(("choice", "gone", {"chosen": 1}), ("thumb", "gone", {"thumb": 1}))) == []


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
    left: dict[frozenset[str], tuple[str, str] | None] = {}
    for one, other, how in votes:
        left[frozenset((one, other))] = (one, other) if how == "vote" else None
    assert {(one, other) for one, other, _ in pairs(log(*said))} == {pair for pair in left.values() if pair}
