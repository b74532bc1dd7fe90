"""The aligners that choose among given candidates, on rewards made by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from copl.align.aligners.best_of_n import BestOfN
from copl.align.aligners.none import NoAligner
from copl.align.aligners.oracle import Oracle
from copl.align.choosing import UNKNOWN
from copl.options import NoOptions
from copl.records.answers import Answer, AnswerRequests
from copl.testing.alignment import PlantedContext

# user-0 likes short texts, user-1 long ones, most people short ones: by .05, .05 and .1 a character
TEXTS = ("x" * 20, "x" * 60, "x" * 10)


def answers(aligner: Any, *users: str) -> list[Answer]:
    found: list[Answer] = aligner(NoOptions()).answers(AnswerRequests(users, ["?"], [TEXTS]), PlantedContext(Path()))
    return found


@pytest.mark.parametrize("aligner", [BestOfN, Oracle])
def test_each_user_sees_the_own_favourite_and_a_stranger_that_of_most(aligner: Any) -> None:
    found = answers(aligner, "user-0", "user-1", "nobody")
    assert [answer.choice for answer in found] == [2, 1, 2]
    assert {answer.unpersonalised for answer in found} == {TEXTS[2]}
    assert [(answer.user_known, answer.note) for answer in found] == [(True, ""), (True, ""), (False, UNKNOWN)]
    assert found[1].rewards == pytest.approx((1.0, 3.0, 0.5))


def test_the_confidence_is_the_share_of_first_choices() -> None:
    (answer,) = answers(BestOfN, "user-1")
    assert answer.confidence == pytest.approx(math.exp(3) / (math.exp(1) + math.exp(3) + math.exp(0.5)))
    assert answers(Oracle, "user-1")[0].confidence == 1


def test_nobody_aligned_sees_the_first_candidate() -> None:
    found = answers(NoAligner, "user-1", "nobody")
    assert [(answer.shown, answer.unpersonalised, answer.rewards) for answer in found] == [(TEXTS[0], TEXTS[0], ())] * 2
    assert [answer.user_known for answer in found] == [True, False]
    assert found[0].confidence == pytest.approx(1 / 3)


def test_the_first_of_equals_is_shown() -> None:
    requests = AnswerRequests(["user-1"], ["?"], [["ab", "cd"]])
    (answer,) = BestOfN(NoOptions()).answers(requests, PlantedContext(Path()))
    assert answer.choice == 0
