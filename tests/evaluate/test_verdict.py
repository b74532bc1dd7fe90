"""The verdict, by cases made by hand: what is said, and what is not."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.evaluate.verdict import AVERAGE_USER, CONSENSUS, TrainingFacts, judge
from copl.records import Measurement

PLENTY = TrainingFacts(num_users=1000, num_comparisons=20_000, median_comparisons=20.0)
FULL = ("test", "cold", "heldout")


def accuracy(split: str, value: float, reach: float = 0.02, count: int = 2000) -> Measurement:
    return Measurement(split, "all", "accuracy", value, value - reach, value + reach, count)


def ahead(split: str, value: float, reach: float = 0.02, versus: str = AVERAGE_USER) -> Measurement:
    return Measurement(split, f"versus:{versus}", "accuracy_difference", value, value - reach, value + reach, 2000)


def kinds(measurements: list[Measurement], facts: TrainingFacts = PLENTY) -> list[str]:
    return [judgement.kind for judgement in judge(measurements, facts).judgements]


def test_a_personal_model_is_called_so_and_nothing_else_is_said() -> None:
    gains = zip(FULL, (0.07, 0.08, 0.09), strict=True)
    measured = [m for s, c in gains for m in (accuracy(s, 0.8), ahead(s, 0.12), ahead(s, c, versus=CONSENSUS))]
    assert judge(measured, PLENTY).text == (
        "Personal for seen users, new prompts and unseen users. When it knows the user, it gets 12.0 more of 100 "
        "comparisons right for seen users (10.0 to 14.0), 12.0 more for new prompts (10.0 to 14.0) and 12.0 more for "
        "unseen users (10.0 to 14.0). It beats the consensus of all users by 7.0 of 100 for seen users, 8.0 for new "
        "prompts and 9.0 for unseen users."
    )
    assert (
        judge(measured[:3], PLENTY).text.splitlines()[0].endswith("It beats the consensus of all users by 7.0 of 100.")
    )


def test_without_the_consensus_that_is_said() -> None:
    measured = [m for split in FULL for m in (accuracy(split, 0.8), ahead(split, 0.12))]
    verdict = judge(measured, PLENTY)
    assert [judgement.kind for judgement in verdict.judgements] == ["personal", "no-reference"]
    assert verdict.text.endswith("(10.0 to 14.0).\nIt was not compared with the consensus of all users.")
    some = [*measured, ahead("test", 0.07, versus=CONSENSUS), ahead("cold", 0.07, versus=CONSENSUS)]
    assert judge(some, PLENTY).text.endswith("compared with the consensus of all users for unseen users.")


def test_without_its_average_user_nobody_knows() -> None:
    verdict = judge([accuracy(split, 0.8) for split in FULL], PLENTY)
    assert verdict.text == (
        "Whether it is personal for seen users, new prompts and unseen users is not known: it was not measured without "
        "the user."
    )


def test_to_tell_users_apart_is_not_enough_where_the_consensus_is_as_good() -> None:
    measured = [accuracy("test", 0.8), ahead("test", 0.12), ahead("test", 0.01, versus=CONSENSUS)]
    measured += [accuracy("cold", 0.8), ahead("cold", 0.12), ahead("cold", 0.07, versus=CONSENSUS)]
    assert kinds(measured) == ["personal", "no-gain", "unmeasured", "remedy"]
    assert (
        "No clear gain for seen users: it tells users apart, but one answer for everybody may be as good. Against the "
        "consensus of all users it gets 1.0 more of 100 comparisons right (1.0 fewer to 3.0 more)."
        in judge(measured, PLENTY).text
    )


def test_what_lies_below_the_consensus_is_never_personal() -> None:
    measured = [accuracy("test", 0.8), ahead("test", 0.12), ahead("test", -0.05, versus=CONSENSUS)]
    said = judge(measured, PLENTY)
    assert [judgement.kind for judgement in said.judgements] == ["below-consensus", "unmeasured", "remedy"]
    assert said.judgements[0].line == (
        "Worse than the consensus of all users for seen users. It gets 5.0 fewer of 100 comparisons right (3.0 to 7.0)."
    )


def test_the_splits_it_is_not_personal_on_are_named_with_what_would_help() -> None:
    measured = [accuracy("test", 0.8), ahead("test", 0.1), accuracy("cold", 0.6), ahead("cold", 0.01)]
    measured += [accuracy("heldout", 0.7), ahead("heldout", -0.05)]
    facts = TrainingFacts(num_users=40, num_comparisons=120, median_comparisons=3.0, outside=0.5)
    verdict = judge(measured, facts)
    text = verdict.text
    assert text.splitlines() == [
        "Personal for seen users. When it knows the user, it gets 10.0 more of 100 comparisons right (8.0 to 12.0).",
        "Not personal for new prompts, as far as can be told. When it knows the user, it gets 1.0 more of 100 "
        "comparisons right (1.0 fewer to 3.0 more).",
        "Knowing the user does harm for unseen users. When it knows the user, it gets 5.0 fewer of 100 comparisons "
        "right (3.0 to 7.0).",
        "It was not compared with the consensus of all users.",
        "There are few users to learn from: 40.",
        "Users have said little: half of them have 3 training comparisons or fewer.",
        "Users are in islands: 50% of the users judged no response that the largest island of users judged, so only "
        "texts connect them.",
        "What would help: more users, more comparisons of each user and questions that users have in common.",
    ]
    assert "so nothing connects them" in judge(measured, attrs.evolve(facts, reads_texts=False)).text


def test_below_chance_is_said_first_and_is_never_personal() -> None:
    verdict = judge([accuracy("cold", 0.429), ahead("cold", 0.1)], TrainingFacts(100, 1137, 11.0))
    assert verdict.judgements[0].kind == "below-chance"
    assert verdict.text.startswith(
        "Worse than chance for new prompts: it prefers what users reject. It is right 42.9 times in 100 (40.9 to 44.9)."
    )
    assert "personal" not in [judgement.kind for judgement in verdict.judgements]


def test_chance_is_told_from_a_difference() -> None:
    assert kinds([accuracy("test", 0.51), ahead("test", 0.0)])[:2] == ["at-chance", "not-personal"]


def test_a_method_without_an_answer_is_not_called_chance() -> None:
    silent = Measurement("cold", "all", "accuracy", 0.5, 0.5, 0.5, 400)
    level = Measurement("cold", f"versus:{AVERAGE_USER}", "accuracy_difference", 0.0, 0.0, 0.0, 400)
    measured = [
        accuracy("test", 0.8),
        ahead("test", 0.1),
        silent,
        level,
        accuracy("heldout", 0.7),
        ahead("heldout", 0.1),
    ]
    assert kinds(measured) == ["no-answer", "personal", "no-reference"]
    assert "No answer for new prompts: it gives both responses the same score." in judge(measured, PLENTY).text


def test_a_method_that_takes_no_notice_of_users_is_said_to_be_none() -> None:
    level = [attrs.evolve(ahead(split, 0.0), low=0.0, high=0.0) for split in FULL]
    said = judge([*(accuracy(split, 0.7) for split in FULL), *level], PLENTY)
    assert [judgement.kind for judgement in said.judgements] == ["no-users"]
    assert said.text == "Not personal: it gives everybody the same scores, whoever asks."
    lost = judge([*(accuracy(split, 0.5) for split in FULL), *level], PLENTY)
    assert lost.text.endswith("whoever asks.\nWhat would help: a method that knows users, such as copl.")


def test_empty_splits_are_said_to_be_empty() -> None:
    said = judge([accuracy("test", 0.8), ahead("test", 0.1)], PLENTY)
    assert said.judgements[-1].line == (
        "Nothing was measured for new prompts and unseen users: the data set has no such comparisons held out."
    )
    assert kinds([]) == ["unmeasured"]
    assert "seen users, new prompts and unseen users" in judge([], PLENTY).text


def test_a_gate_that_tells_nobody_apart_is_told_either_way() -> None:
    facts = attrs.evolve(PLENTY, gate="the gate does not tell users apart: all 9 have the same weights on 4 experts")
    good = judge([m for split in FULL for m in (accuracy(split, 0.8), ahead(split, 0.1))], facts)
    assert good.text.endswith(
        "Its experts have no part in that. The gate does not tell users apart: all 9 have the same weights on 4 "
        "experts."
    )
    bad = judge([m for split in FULL for m in (accuracy(split, 0.6), ahead(split, 0.0))], facts)
    assert "The gate does not tell users apart" in bad.text
    assert bad.text.endswith("What would help: another gate, or fewer experts.")


def test_few_measured_comparisons_are_a_cause_of_their_own() -> None:
    said = judge([accuracy("test", 0.55, 0.1, count=60), ahead("test", 0.02, 0.1)], PLENTY).text
    assert "Few comparisons were held out to judge it by: 60 for seen users." in said
    assert said.endswith("What would help: more comparisons to judge it by.")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(FULL),
            st.floats(0, 1),
            st.floats(0, 0.2),
            st.floats(-0.5, 0.5),
            st.floats(0, 0.3),
            st.floats(-0.5, 0.5),
        ),
        unique_by=lambda row: row[0],
    ),
    st.integers(0, 5000),
    st.floats(0, 50),
    st.floats(0, 1),
)
def test_whatever_was_measured_there_is_a_verdict_without_contradiction(
    rows: list[tuple[str, float, float, float, float, float]], num_users: int, median: float, outside: float
) -> None:
    measured = [
        m
        for split, a, ra, d, rd, c in rows
        for m in (accuracy(split, a, ra), ahead(split, d, rd), ahead(split, c, rd, CONSENSUS))
    ]
    verdict = judge(measured, TrainingFacts(num_users, 10, median, outside))
    said = [judgement.kind for judgement in verdict.judgements]
    assert verdict.text.endswith(".")
    assert said.count("remedy") <= 1
    doubts = {"no-gain", "not-personal", "worse", "below-consensus", "at-chance", "below-chance"}
    assert ("remedy" in said) == bool(doubts & {*said})
    for split, value, reach, _, width, consensus in rows:
        if value + reach < 0.5:
            assert "below-chance" in said, split
        if consensus + width < 0 and "no-users" not in said:
            assert "below-consensus" in said, split


@pytest.mark.parametrize("kind", ["personal", "worse"])
def test_validation_alone_can_be_judged(kind: str) -> None:
    difference = 0.1 if kind == "personal" else -0.1
    said = judge([accuracy("validation", 0.8), ahead("validation", difference)], PLENTY, splits=("validation",))
    assert said.judgements[0].kind == kind
    assert "unmeasured" not in [judgement.kind for judgement in said.judgements]
    assert said.judgements[0].claim == {"personal": "Personal.", "worse": "Knowing the user does harm."}[kind]
    nothing = judge([], PLENTY, splits=("validation",)).text
    assert nothing == "Nothing was measured: the data set has no such comparisons held out."
