"""Aligners: the kit passes a good toy and catches a deliberately broken one of each fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, final

import pytest
from attrs import evolve

from copl.align.aligners.best_of_n import BestOfN
from copl.options import NoOptions
from copl.records.answers import Answer, AnswerRequests

Change = Callable[[list[Answer], AnswerRequests], Any]
COUNTER = itertools.count()


@final
class Toy:
    """Best of n, changed by what is given."""

    def __init__(self, change: Change) -> None:
        self._change = change

    def answers(self, requests: AnswerRequests, context: Any) -> Any:
        return self._change(BestOfN(NoOptions()).answers(requests, context), requests)


def each(change: Callable[[Answer], Any]) -> Change:
    return lambda answers, requests: [change(answer) for answer in answers]


def _first_of_all(answers: list[Answer], requests: AnswerRequests) -> list[Answer]:
    """Everybody but strangers sees what the first user of the requests sees."""
    return [evolve(a, choice=answers[0].choice) if a.user_known else a for a in answers]


def test_a_good_aligner_passes(kit: Any) -> None:
    assert kit.not_passed(kit.check("aligner", lambda options: Toy(lambda answers, requests: answers))) == set()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (each(lambda a: a.shown), "returned str, not Answer"),
        (each(lambda a: evolve(a, confidence=1.5)), "it lies between 0 and 1"),
        (each(lambda a: evolve(a, rewards=[float("nan")] * len(a.candidates))), "not finite"),
        (each(lambda a: evolve(a, candidates=[" "] * len(a.candidates))), "is empty"),
        (lambda answers, requests: answers[::-1], "prompt by prompt"),
        (lambda answers, requests: answers[:-1], "prompt by prompt"),
        (each(lambda a: evolve(a, user_known=True)), "user_known is True for a user nobody knows"),
        (each(lambda a: evolve(a, user_known=False, note="x")), "is known; ask context.knows"),
        (each(lambda a: evolve(a, note="")), "has to say that it is one"),
        (each(lambda a: evolve(a, unpersonalised="else")), "is shown something else than anybody"),
        (_first_of_all, "sees something else when asked alone"),
        (each(lambda a: evolve(a, note=f"{next(COUNTER)}")), "two calls with the same seed differ"),
    ],
)
def test_a_broken_aligner_is_caught(change: Change, finding: str, kit: Any) -> None:
    assert finding in kit.caught(kit.check("aligner", lambda options: Toy(change)))
