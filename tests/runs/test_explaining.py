"""Answers as they were given: what they were learnt from is put together again, and the numbers still add up."""

from __future__ import annotations

import pytest

from copl.records import ResponseTable
from copl.records.evidence import LEVEL_KEYS
from copl.records.explanation import Explanation, Part
from copl.runs.explaining import Reasons, as_said

LOW, MIDDLE, HIGH = LEVEL_KEYS[1], LEVEL_KEYS[4], LEVEL_KEYS[7]


def own(amount: float, chosen: str, rejected: str, kind: str = "comparison") -> Part:
    return Part("own answer", amount, "", chosen, rejected, kind)


PARTS = (
    Part("everybody", 1.0),
    own(0.5, "a", MIDDLE),
    own(-0.25, "b", "c"),
    own(0.125, "c", "b"),
    own(0.5, LOW, "d"),
    own(0.25, "e", LOW),
    own(0.125, HIGH, "e"),
    own(-1.0, "a", "b"),
    own(0.5, "a", "d"),
    own(0.25, "a", "d"),
    own(0.125, "", ""),
    own(0.25, "", ""),
    Part("like-minded user", 0.5, "ben", MIDDLE, "a"),
    Part("rest", 0.25),
)


def test_an_answer_is_one_part_whatever_it_was_learnt_from() -> None:
    said = as_said(PARTS)
    assert sum(part.amount for part in said) == pytest.approx(sum(part.amount for part in PARTS))
    assert said[0] == PARTS[0]
    assert said[-2:] == [Part("like-minded user", 0.5, "ben", "a", "", "bad"), PARTS[-1]]
    answers = said[1:-2]
    assert [abs(part.amount) for part in answers] == sorted((abs(part.amount) for part in answers), reverse=True)
    assert {(part.chosen, part.rejected, part.kind, part.amount) for part in answers} == {
        ("a", "", "good", 0.5),
        ("b", "c", "tie", -0.125),
        ("d", "", "bad", 0.5),
        ("e", "", "between", 0.375),
        ("a", "b", "comparison", -1.0),
        ("a", "d", "comparison", 0.5),  # said twice, such as in two rankings
        ("a", "d", "comparison", 0.25),
        ("", "", "comparison", 0.125),  # nobody knows whether these are the same
        ("", "", "comparison", 0.25),
    }


def test_answers_of_every_kind_in_words() -> None:
    explained = Explanation("ann", sum(part.amount for part in PARTS[:7]), PARTS[:7], 0.1, 0.7, 6)
    texts = {key: f"text {key}" for key in "abcde"}
    reasons = Reasons.of(explained, ResponseTable(["p"], ["x"]), texts)
    assert reasons.num_answers == 4
    assert [line.words for line in reasons.lines() if line.is_detail] == [
        "“text a” is good",
        "“text d” is not good",
        "“text e” is neither good nor bad",
        "“text b” as good as “text c”",
    ]
