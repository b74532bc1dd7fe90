"""Aligner ``mixture-dpo``: one language model that speaks as each user would have it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

from copl.align.aligners.dpo import own_answers, questions_of, written
from copl.align.policies.options import MixtureDpoOptions
from copl.errors import CoplError
from copl.plugins import Component
from copl.records import NOBODY, AdaptedUsers, UserTable
from copl.records.answers import Answer, AnswerRequests

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from copl.align.policies.mixture import MixturePolicy
    from copl.align.policies.rows import PreferenceRow
    from copl.interfaces import AlignerContext


@runtime_checkable
class EmbedsUsers(Protocol):
    """A method whose users have embeddings."""

    def user_vectors(self, users: UserTable, adapted: AdaptedUsers | None) -> Tensor:
        """Return the embedding of each user [U, D]; that of the average user where nothing is known."""
        ...


def embeds_users(method: object) -> EmbedsUsers:
    """Return a method as one whose users have embeddings.

    Raises:
        CoplError: they have none.
    """
    if not isinstance(method, EmbedsUsers):
        raise CoplError("mixture-dpo needs embeddings of users: take a run of method copl or graph")
    return method


@final
class MixtureDpoAligner:
    """Trains one mixture of LoRA experts in the language model for all users, keeps it, and lets it answer each.

    What users have said and candidates of the generator to training prompts, ranked by each user's reward, are the
    rows. Newcomers are not trained for: the gate turns an adapted embedding into a voice. A user nobody knows is
    answered as the average user.
    """

    def __init__(self, options: MixtureDpoOptions) -> None:
        self._options = options
        self._opened: dict[Path, MixturePolicy] = {}  # the last one, which a long file asks again and again

    def answers(self, requests: AnswerRequests, context: AlignerContext) -> list[Answer]:
        """Answer by the policy, which is trained where it is not there yet.

        Raises:
            CoplError: the run's method has no embeddings of users, or there is nothing to train a policy on.
        """
        method = embeds_users(context.method)
        if not len(requests):
            return []
        policy = self.policy(context)
        ids = [user if context.knows(user) else NOBODY for user in (*requests.user_ids, NOBODY)]
        distinct = list(dict.fromkeys(ids))
        vectors = method.user_vectors(UserTable.ungrouped(distinct), context.adapted)
        questions = questions_of(policy.writer, requests.prompts, self._options, context.progress)
        texts: dict[str, list[str]] = {}
        voices: dict[bytes, list[str]] = {}  # whom the gate gives the same experts, they are told the same
        for name, vector in zip(distinct, vectors, strict=True):
            voice = policy.voice(vector)
            if voice not in voices:
                with policy.speaking(vector) as speaker:
                    voices[voice] = written(speaker, questions, self._options, context.seed)
            texts[name] = voices[voice]
        own = {user: texts[name] for user, name in zip(requests.user_ids, ids, strict=False)}
        return own_answers(requests, own, texts[NOBODY], context)

    def policy(self, context: AlignerContext) -> MixturePolicy:
        """Return the policy of a run, trained where it is not there yet; a killed training goes on."""
        from copl.align.policies.keeping import is_kept
        from copl.align.policies.mixture import MixturePolicy
        from copl.system.files import locked

        place = self._place(context)
        if place in self._opened:
            return self._opened[place]
        if not is_kept(place):
            with locked(place.with_name(f"{place.name}.lock")):
                if not is_kept(place):  # else another process was faster
                    self._train(place, context)
        self._opened = {place: MixturePolicy.load(place)}
        return self._opened[place]

    def _train(self, place: Path, context: AlignerContext) -> None:
        from attrs import asdict

        from copl.align.policies.keeping import close_policy
        from copl.align.policies.mixture import MixturePolicy
        from copl.align.policies.mixture_training import MixtureTraining
        from copl.align.policies.writer import Writer
        from copl.system.files import new_directory

        rows = self.rows(context)
        users = sorted(context.method.seen_users())
        vectors = embeds_users(context.method).user_vectors(UserTable.ungrouped(users), None).float()
        writer = Writer.open(self._options.model)
        writer.tell_cut(rows, self._options.max_length, context.progress)
        policy = MixturePolicy.start(writer, vectors, self._options, seed=context.seed)
        scratch = place.with_name(f"{place.name}.partial")
        of_each = dict(zip(users, vectors, strict=True))
        training = MixtureTraining(policy, rows, of_each, seed=context.seed, scratch=scratch)
        facts = training.run(context.progress)
        with new_directory(place) as fresh:
            policy.save(fresh, asdict(facts))
            close_policy(fresh, place)
        training.clear()
        context.progress.log("policy", **asdict(facts))

    def rows(self, context: AlignerContext) -> list[PreferenceRow]:
        """Return what the policy is trained on: rows of the seen users, whoever asks and whatever they say now."""
        from copl.align.policies.material import ranked_rows, said_rows, training_prompts

        context = context.without_newcomers()
        options, users = self._options, sorted(context.method.seen_users())
        rows = [row for user in users for row in said_rows(user, context.comparisons(user))] if options.said else []
        prompts = training_prompts(users, options.num_prompts, context)
        return [*rows, *ranked_rows(_spread_out(users, options.num_users), prompts, context, options)]

    def _place(self, context: AlignerContext) -> Path:
        digest = hashlib.sha256(f"{context.seed}\x00{context.generator.fingerprint()}".encode()).hexdigest()
        return context.directory / digest[:24]


def _spread_out(users: Sequence[str], count: int) -> list[str]:
    """Some of the users, from all over the list."""
    if len(users) <= count:
        return list(users)
    return [users[place * len(users) // count] for place in range(count)]


COMPONENTS = [
    Component(
        name="mixture-dpo",
        options=MixtureDpoOptions,
        build=MixtureDpoAligner,
        summary="one policy for everybody: a mixture of LoRA experts gated by the user embedding, trained by DPO",
        reference="CoPL, arXiv 2503.01658; Rafailov et al. 2023, arXiv 2305.18290",
    )
]
