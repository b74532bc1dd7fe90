"""Checks of aligners."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import attrs

from copl.records.answers import Answer, AnswerRequests
from copl.testing.alignment import PROMPTS, STRANGER, EchoGenerator, PlantedContext
from copl.testing.check import Check, CheckResult, global_randomness_untouched, require, run_checks
from copl.testing.common import Described

_USERS = ("user-1", STRANGER, "user-0")


def _requests(user_ids: Sequence[str], prompts: Sequence[str]) -> AnswerRequests:
    context = PlantedContext(Path())
    candidates = EchoGenerator().candidates(prompts, num=5, seed=0, progress=context.progress)
    return AnswerRequests(user_ids, prompts, candidates)


@final
@attrs.frozen(eq=False)
class _Subject:
    described: Described

    def answer(self, user_ids: Sequence[str] = _USERS, prompts: Sequence[str] = PROMPTS) -> list[Answer]:
        """Return the answers of a new aligner that has nothing kept, after a look at each."""
        aligner = self.described.component.build(self.described.options())
        with tempfile.TemporaryDirectory() as directory:
            answers = list(aligner.answers(_requests(user_ids, prompts), PlantedContext(Path(directory) / "kept")))
        _require_valid(answers, user_ids, prompts)
        return answers


def _require_valid(answers: Sequence[Any], user_ids: Sequence[str], prompts: Sequence[str]) -> None:
    for answer in answers:
        require(isinstance(answer, Answer), f"returned {type(answer).__name__}, not Answer")
        numbers = (*answer.rewards, answer.confidence)
        require(all(math.isfinite(number) for number in numbers), f"a reward or confidence is not finite: {numbers}")
        require(0 <= answer.confidence <= 1, f"a confidence of {answer.confidence}; it lies between 0 and 1")
        empty = [text for text in (answer.shown, answer.unpersonalised) if not text.strip()]
        require(not empty, f"an answer to {answer.prompt!r} is empty")
    order = [(answer.prompt, answer.user_id) for answer in answers]
    wanted = [(prompt, user) for prompt in prompts for user in user_ids]
    require(order == wanted, "answers must come prompt by prompt, one for each user in the order of the requests")


def answers_all(subject: _Subject) -> None:
    """answers gives each user an answer to each prompt, in order, and touches no global random state"""
    with global_randomness_untouched():
        answers = subject.answer()
    require(len(answers) == len(_USERS) * len(PROMPTS), "an answer is missing")


def knows_whom_it_does_not_know(subject: _Subject) -> None:
    """a user nobody knows gets the unpersonalised answer, which says so; the others are known"""
    for answer in subject.answer():
        if answer.user_id != STRANGER:
            require(answer.user_known, f"{answer.user_id} is known; ask context.knows")
            continue
        require(not answer.user_known, "user_known is True for a user nobody knows; ask context.knows")
        require(answer.shown == answer.unpersonalised, "a user nobody knows is shown something else than anybody")
        require(bool(answer.note.strip()), "the note of an unpersonalised answer has to say that it is one")


def depends_on_user_and_prompt_alone(subject: _Subject) -> None:
    """what a user sees depends neither on the other users nor on the other prompts"""
    together = {(answer.prompt, answer.user_id): answer for answer in subject.answer()}
    for user in _USERS:
        (alone,) = subject.answer([user], PROMPTS[1:2])
        require(alone.shown == together[PROMPTS[1], user].shown, f"{user} sees something else when asked alone")


def repeats_itself(subject: _Subject) -> None:
    """the same seed gives the same answers"""
    require(subject.answer() == subject.answer(), "two calls with the same seed differ")


def nothing_asked(subject: _Subject) -> None:
    """no prompts, or nobody who asks, are no problem"""
    require(subject.answer(_USERS, []) == [], "no prompts, but answers")
    require(subject.answer([], PROMPTS) == [], "no users, but answers")


_CHECKS: list[Check[_Subject]] = [
    answers_all,
    knows_whom_it_does_not_know,
    depends_on_user_and_prompt_alone,
    repeats_itself,
    nothing_asked,
]


def check_aligner(described: Described) -> list[CheckResult]:
    """Check an aligner on planted rewards; one that asks for a fitted method is skipped where it does."""
    return run_checks(_CHECKS, _Subject(described))
