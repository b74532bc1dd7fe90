"""From prompts to a file of answers: candidates, choices and lines, a few prompts at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from attrs import frozen

from copl.align.choosing import candidates_of
from copl.align.journal import Journal
from copl.data.chat import decode_prompt
from copl.errors import PluginError
from copl.interfaces import Aligner, AlignerContext, ChecksPrompts
from copl.records.answers import Answer, AnswerRequests

PROMPTS_AT_ONCE = 4
"""So many prompts are answered at a time: what a kill may lose."""


@final
@frozen(eq=False)
class Assignment:
    """What is to be answered for whom.

    Attributes:
        user_ids: the users [U].
        prompts: the prompts, each answered for each user [P].
        num_candidates: candidates to write for each prompt.
        key: everything else that the answers depend on, as plain JSON values: run, components, users' embeddings.
    """

    user_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    num_candidates: int
    key: Mapping[str, Any]


@final
@frozen
class Summary:
    """What was written.

    Attributes:
        num_answers: answers in the file.
        num_kept: answers that an earlier try had left.
        num_own: answers of this call that differ from the unpersonalised one.
        num_unknown: answers of this call to users nobody knows.
        num_short: prompts of this call that the generator had fewer candidates to than were asked for.
    """

    num_answers: int
    num_kept: int
    num_own: int
    num_unknown: int
    num_short: int


def write_answers(aligner: Aligner, assignment: Assignment, context: AlignerContext, out: Path) -> Summary:
    """Answer all prompts for all users into a file of JSON lines, prompt by prompt; goes on where a kill has ended it.

    Args:
        aligner: makes the answers.
        assignment: what is to be answered.
        context: what the aligner may use; its generator writes the candidates.
        out: the file.

    Raises:
        CoplError: generator or aligner cannot work with these prompts, or another process writes the same file.
    """
    users, prompts, num, generator = (
        assignment.user_ids,
        assignment.prompts,
        assignment.num_candidates,
        context.generator,
    )
    if isinstance(generator, ChecksPrompts):
        generator.check(prompts)
    key = {
        "users": list(users),
        "prompts": list(prompts),
        "num": num,
        "seed": context.seed,
        "at_once": PROMPTS_AT_ONCE,
        **assignment.key,
    }
    num_own = num_unknown = num_short = 0
    with Journal.open(out, key, piece=PROMPTS_AT_ONCE * len(users)) as journal:
        begun = journal.num_kept // len(users)
        if journal.num_dropped:
            begun_for = "by another run, or for other prompts, users or settings; they are dropped, and it begins anew"
            context.progress.log("align", finding=f"{out}: {journal.num_dropped} answers were begun there {begun_for}")
        with context.progress.task("answer prompts", total=len(prompts)) as task:
            task.advance(begun)
            for start in range(begun, len(prompts), PROMPTS_AT_ONCE):
                part = prompts[start : start + PROMPTS_AT_ONCE]
                candidates = candidates_of(generator, part, num=num, seed=context.seed, progress=context.progress)
                answers = answers_to(aligner, AnswerRequests(users, part, candidates), context)
                journal.add(json.dumps(as_row(answer), ensure_ascii=False) for answer in answers)
                num_own += sum(answer.shown != answer.unpersonalised for answer in answers)
                num_unknown += sum(not answer.user_known for answer in answers)
                num_short += sum(len(texts) < num for texts in candidates)
                task.advance(len(part))
        journal.finish()
        return Summary(len(users) * len(prompts), journal.num_kept, num_own, num_unknown, num_short)


def answers_to(aligner: Aligner, requests: AnswerRequests, context: AlignerContext) -> list[Answer]:
    """Return an answer for each prompt and user.

    Raises:
        PluginError: the aligner gave something else.
    """
    answers = list(aligner.answers(requests, context))
    asked = [(prompt, user) for prompt in requests.prompts for user in requests.user_ids]
    if [(answer.prompt, answer.user_id) for answer in answers] != asked:
        raise PluginError(f"the aligner gave {len(answers)} answers that are not those to {len(asked)} requests")
    return answers


def as_row(answer: Answer) -> dict[str, object]:
    """Return an answer as plain JSON values; rewards to six decimals, which is what they are good for."""
    row: dict[str, object] = {
        "user_id": answer.user_id,
        "prompt": decode_prompt(answer.prompt),
        "response": answer.shown,
        "unpersonalised": answer.unpersonalised,
        "user_known": answer.user_known,
        "confidence": round(answer.confidence, 6),
        "choice": answer.choice,
        "candidates": list(answer.candidates),
        "rewards": [round(reward, 6) for reward in answer.rewards],
    }
    return row | ({"note": answer.note} if answer.note else {})
