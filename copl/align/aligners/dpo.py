"""Aligner ``dpo``: what a language model trained for this one user says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias, final

from copl.align.choosing import UNKNOWN, first_choice
from copl.align.policies.options import DpoOptions, PolicyOptions
from copl.align.seeds import stream
from copl.plugins import Component
from copl.records.answers import Answer, AnswerRequests

if TYPE_CHECKING:
    from pathlib import Path

    from copl.align.policies.rows import PreferenceRow
    from copl.align.policies.writer import Writer
    from copl.interfaces import AlignerContext, Progress


Questions: TypeAlias = Sequence[tuple[str, Sequence[int]]]
"""Prompts, and each as tokens."""


@final
class DpoAligner:
    """Trains a plain LoRA for each user, by DPO on the user's own rows, keeps it, and lets it answer.

    What the user has said and candidates of the generator to training prompts, ranked by the user's reward, are the
    rows (`copl.align.policies.rows`). Policies lie where the context keeps things, one directory a user, and load in
    stock PEFT. A user nobody knows is answered by the language model as it is.
    """

    def __init__(self, options: DpoOptions) -> None:
        self._options = options

    def answers(self, requests: AnswerRequests, context: AlignerContext) -> list[Answer]:
        """Answer by the users' policies, which are trained where they are not there yet.

        Raises:
            CoplError: TRL is not installed, or there is nothing to train a policy on.
        """
        if not len(requests):
            return []
        from copl.align.policies.single import speaking

        places = {user: self._ensure(user, context) for user in filter(context.knows, requests.user_ids)}
        questions = questions_of(self._writer, requests.prompts, self._options, context.progress)
        plain = written(self._writer, questions, self._options, context.seed)
        texts: dict[str, list[str]] = {}
        for user in requests.user_ids:
            texts[user] = plain
            if user in places:
                with speaking(self._writer, places[user]) as speaker:
                    texts[user] = written(speaker, questions, self._options, context.seed)
        return own_answers(requests, texts, plain, context)

    @cached_property
    def _writer(self) -> Writer:
        from copl.align.policies.writer import Writer

        return Writer.open(self._options.model)

    def _ensure(self, user: str, context: AlignerContext) -> Path:
        """Train the policy of a user, where it is not there yet; a killed training goes on. Return where it lies."""
        directory = self._place(user, context)
        from copl.align.policies.keeping import is_kept

        if is_kept(directory):
            return directory
        from copl.align.policies.extra import trl
        from copl.align.policies.material import ranked_rows, training_prompts
        from copl.align.policies.single import train_policy
        from copl.system.files import locked

        options = self._options
        with locked(directory.with_name(f"{directory.name}.lock")):
            if is_kept(directory):  # another process was faster
                return directory
            trl()  # an error now, rather than after candidates were written
            own = training_prompts([user], options.num_prompts, context)
            others = sorted(context.method.seen_users())
            more = training_prompts(others, options.num_prompts, context.without_newcomers())
            prompts = list(dict.fromkeys((*own, *more)))[: options.num_prompts]
            ranked = ranked_rows([user], prompts, context, options)
            rows = [*self._said(user, context), *ranked]
            train_policy(rows, directory, options, seed=context.seed, progress=context.progress)
        return directory

    def _said(self, user: str, context: AlignerContext) -> list[PreferenceRow]:
        """Return the rows that are a user's own words, none where those do not count."""
        from copl.align.policies.material import said_rows

        return said_rows(user, context.comparisons(user)) if self._options.said else []

    def _place(self, user: str, context: AlignerContext) -> Path:
        """Where the policy of a user lies: another one for another embedding, generator or seed, or other words."""
        digest = hashlib.sha256(f"{user}\x00{context.seed}\x00{context.generator.fingerprint()}".encode())
        adapted = context.adapted
        if adapted is not None and user in adapted.user_rows:
            digest.update(adapted.embeddings[adapted.user_rows[user]].float().cpu().numpy().tobytes())
            if self._options.said:  # the same embedding may come of a file of users, without what they have said
                digest.update(repr(self._said(user, context)).encode("utf-8", "surrogatepass"))
        return context.directory / digest.hexdigest()[:24]


def questions_of(writer: Writer, prompts: Sequence[str], options: PolicyOptions, progress: Progress) -> Questions:
    """Return the prompts with their tokens; it is said how many were too long."""
    return list(zip(prompts, writer.questions(prompts, options.max_new_tokens, progress), strict=True))


def written(writer: Writer, questions: Questions, options: PolicyOptions, seed: int) -> list[str]:
    """Return what a language model says to each prompt.

    Raises:
        BackboneError: one was broken off before the answer began.
    """
    from copl.align.sampling import SamplingOptions

    how = SamplingOptions(options.temperature, top_p=1.0, max_tokens=options.max_new_tokens)
    texts = []
    for prompt, question in questions:
        (text,) = writer.write(question, [stream(seed, prompt, 0)], how)
        if not isinstance(text, str):
            raise text
        texts.append(text)
    return texts


def own_answers(
    requests: AnswerRequests, texts: dict[str, list[str]], plain: Sequence[str], context: AlignerContext
) -> list[Answer]:
    """Return what policies wrote as answers, beside what the language model says to anybody.

    Args:
        requests: who asked what.
        texts: what each user's policy wrote to each prompt.
        plain: what the language model wrote without one.
        context: gives the rewards of both.
    """
    answers: list[Answer] = []
    known = {user: context.knows(user) for user in requests.user_ids}
    worth = {
        user: context.rewards(
            AnswerRequests([user], requests.prompts, list(zip(texts[user], plain, strict=True)))
        ).personal
        for user in requests.user_ids
    }
    for place, (prompt, general) in enumerate(zip(requests.prompts, plain, strict=True)):
        for user in requests.user_ids:
            rewards = worth[user][place][0]
            answers.append(
                Answer(
                    user,
                    prompt,
                    (texts[user][place], general),
                    0,
                    general,
                    tuple(rewards.tolist()),
                    float(first_choice(rewards)[0]),
                    user_known=known[user],
                    note="" if known[user] else UNKNOWN,
                )
            )
    return answers


COMPONENTS = [
    Component(
        name="dpo",
        options=DpoOptions,
        build=DpoAligner,
        summary="a plain LoRA trained for this one user by DPO on the user's own ranked candidates",
        reference="Rafailov et al. 2023, arXiv 2305.18290",
    )
]
