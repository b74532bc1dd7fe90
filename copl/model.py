"""A trained run as an object: score responses for a user, adapt to newcomers.

from copl import Model

model = Model.open("run")
model.score("user-7", "How do I boil an egg?", ["Eight minutes.", "Place the egg in cold water, then …"])
newcomers = model.adapt([{"user_id": "new", "prompt": "…", "chosen": "…", "rejected": "…"}])
model.score("new", "How do I boil an egg?", ["Eight minutes."], adapted=newcomers)

ann = model.online("ann")                                # comparison after comparison
question = ann.next_question([("Tea or coffee?", "Tea.", "Coffee."), ...])
ann.add(question.prompt, chosen=question.first, rejected=question.second)
model.score("ann", "How do I boil an egg?", ["Eight minutes."], adapted=ann.adapted)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from attrs import evolve, frozen

from copl.adapt.store import load_adapted, save_adapted
from copl.data.canonical import ValueFaultError, canonical_id
from copl.data.reading.rows import read_comparison_rows
from copl.data.requests import Pair, Prompt, question_pairs, score_request
from copl.errors import DataError, RunError, quoted
from copl.interfaces import OnlineUser, PreferenceModel
from copl.plugins import load
from copl.records import AdaptedUsers, ComparisonSet, FloatArray, ScoreRequests, UserTable
from copl.runs.directory import Run, open_run
from copl.runs.recipe import ANY_BACKBONE
from copl.runs.sharing import fetch_portable, publish, save_portable


@final
class UnknownUserWarning(UserWarning):
    """A user that is neither trained nor adapted was scored as the average user."""


def _known_by(user: str | int) -> str:
    """Return the id that rows of a user have.

    Raises:
        DataError: this is neither text nor a whole number.
    """
    try:
        return canonical_id(user)
    except ValueFaultError as fault:
        raise DataError(f"user: {fault}") from None


@final
@frozen
class Question:
    """A pair of responses to ask a user about.

    Attributes:
        index: its place among the candidates.
        prompt: what the responses answer.
        first: one response.
        second: the other one.
        information: how much the answer is expected to tell about the user, in bits: from 0 to 1.
    """

    index: int
    prompt: Prompt
    first: str
    second: str
    information: float


@final
class ModelUser:
    """One user of a `Model`, seen in training or not, whose comparisons come one by one; from `Model.online`."""

    def __init__(self, user_id: str, state: OnlineUser, run: str) -> None:
        self.user_id = user_id
        self._state = state
        self._run = run

    @property
    def adapted(self) -> AdaptedUsers:
        """The user as of now, as `Model.score` takes it."""
        return evolve(self._state.adapted, run=self._run)

    def add(self, prompt: Prompt, *, chosen: str, rejected: str) -> AdaptedUsers:
        """Take one more comparison into account and return the user as of now.

        Raises:
            DataError: the comparison is not a valid one.
        """
        row = {"user_id": self.user_id, "prompt": prompt, "chosen": chosen, "rejected": rejected}
        return self.add_rows([row])

    def add_rows(self, rows: ComparisonSet | Sequence[Mapping[str, Any]]) -> AdaptedUsers:
        """Take several comparisons into account, as rows or as a set.

        Raises:
            DataError: one fault for each row that is wrong, or a comparison is of another user.
        """
        comparisons = rows if isinstance(rows, ComparisonSet) else read_comparison_rows(rows)
        strangers = {comparisons.users.ids[row] for row in comparisons.comparisons.user.tolist()} - {self.user_id}
        if strangers:
            named = ", ".join(map(quoted, sorted(strangers)))
            raise DataError(f"comparisons of {named} cannot be added to {quoted(self.user_id)}")
        return evolve(self._state.add(comparisons), run=self._run)

    def next_question(self, candidates: Sequence[Pair]) -> Question:
        """Return the candidate whose answer is expected to tell most about this user; the first of equals.

        A candidate of which neither response was annotated, nor, with method `copl`, resembles one that was, tells
        nothing.

        Args:
            candidates: prompts with two responses each, at least one.

        Raises:
            DataError: there is no candidate, or one that is no prompt with two different responses.
        """
        return self.questions(candidates)[0]

    def questions(self, candidates: Sequence[Pair]) -> list[Question]:
        """Return all candidates, the one whose answer is expected to tell most first, as `next_question` judges.

        Raises:
            DataError: there is no candidate, or one that is no prompt with two different responses.
        """
        bits = self._state.information(question_pairs(self.user_id, candidates))
        order: list[int] = np.argsort(-bits, kind="stable").tolist()
        return [Question(place, *candidates[place], float(bits[place])) for place in order]


@final
class Model:
    """A fitted preference model read from a run directory."""

    def __init__(self, run: Run, method: PreferenceModel) -> None:
        self.run = run
        self.method = method

    @classmethod
    def open(cls, directory: str | Path) -> Model:
        """Open a finished run.

        Raises:
            RunError: the directory is missing, unfinished, damaged, foreign or from another version.
        """
        return cls.from_pretrained(Path(directory).absolute())

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, backbone: str | None = None) -> Model:
        """Open a finished run: a run directory, what `save_pretrained` wrote, or what `push_to_hub` published.

        Args:
            name: a directory, or ``owner/name`` on the Hugging Face hub.
            revision: branch, tag or commit there.
            backbone: Hugging Face id or path of the backbone, where it lies elsewhere than in training.

        Raises:
            RunError: the run is missing, unfinished, damaged, foreign or from another version.
        """
        changes = {"backbone": {"name": ANY_BACKBONE, "path": backbone}} if backbone else {}
        run = open_run(fetch_portable(name, revision), load(), changes)
        return cls(run, run.load_method())

    def save_pretrained(self, directory: str | Path) -> None:
        """Write what scoring and adapting need into a directory of its own, with a card.

        Raises:
            RunError: the directory holds something.
        """
        save_portable(self.run, Path(directory))

    def push_to_hub(self, repo_id: str, *, private: bool = True, **options: Any) -> str:
        """Upload the model to the Hugging Face hub and return its address (`copl.runs.sharing.publish`)."""
        return publish(self.run, repo_id, private=private, **options)

    def export(
        self, user: str | int, directory: str | Path, *, adapted: AdaptedUsers | None = None, merge: bool = False
    ) -> Mapping[str, Any]:
        """Write one user's reward model as a plain classifier that works without `copl`.

        Args:
            user: id of a trained or adapted user.
            directory: where it goes; must not exist or be empty.
            adapted: newcomers, from `adapt`.
            merge: write a whole model instead of a PEFT adapter.

        Raises:
            RunError: `adapted` belongs to another run.
            OptionsError: the user is unknown, the method cannot be exported, or the directory holds something.
        """
        return self.method.export(_known_by(user), Path(directory), adapted=self._own(adapted), merge=merge)

    def score(
        self, user: str | int, prompt: Prompt, responses: Sequence[str], *, adapted: AdaptedUsers | None = None
    ) -> list[float]:
        """Return the reward of each response for one user; only differences between responses have a meaning.

        Args:
            user: the user's id; one neither trained nor adapted is scored as the average user, with an
                `UnknownUserWarning`. A whole number is the user whose rows have its digits.
            prompt: what the responses answer.
            responses: the texts to score, read in their one spelling as in rows (`copl.data.canonical`).
            adapted: newcomers, from `adapt`.

        Raises:
            DataError: one fault for each argument that is no id, no prompt or no text.
        """
        requests = score_request(user, prompt, responses)
        if not self.known_users(requests.users, adapted):
            name = quoted(requests.users.ids[0])
            message = f"user {name} is neither trained nor adapted: these are the scores of the average user"
            warnings.warn(message, UnknownUserWarning, stacklevel=2)
        return [float(value) for value in self.scores(requests, adapted)]

    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        """Return the reward [N] of each request, as `score`.

        Raises:
            RunError: `adapted` belongs to another run, or a reward is no finite number.
        """
        rewards = self.method.scores(requests, self._own(adapted))
        if not np.isfinite(rewards).all():
            raise RunError(f"{self.run.root}: gives rewards that are no finite numbers; train it again")
        return rewards

    def _own(self, adapted: AdaptedUsers | None) -> AdaptedUsers | None:
        """Return adapted users, unless they were adapted for another run, where their embeddings mean nothing."""
        if adapted is not None and adapted.run not in ("", self.fingerprint):
            raise RunError(f"these users were adapted for another run than {self.run.root}; adapt them for this one")
        return adapted

    @cached_property
    def fingerprint(self) -> str:
        """A text that is equal exactly when two runs hold the same fitted model."""
        return self.run.fingerprint

    def known_users(self, users: UserTable, adapted: AdaptedUsers | None = None) -> frozenset[str]:
        """Return those of `users` that are trained or adapted; all of them where the method knows no users."""
        seen = self.method.seen_users()
        newcomers = frozenset(adapted.user_ids if adapted else ())
        return frozenset(user for user in users.ids if not seen or user in seen or user in newcomers)

    def adapt(self, support: ComparisonSet | Sequence[Mapping[str, Any]]) -> AdaptedUsers:
        """Find embeddings for users who were not there in training.

        Args:
            support: a `ComparisonSet`, or rows with ``user_id``, ``prompt``, ``chosen`` and ``rejected``.

        Raises:
            DataError: one fault for each row that is wrong.
        """
        if not isinstance(support, ComparisonSet):
            support = read_comparison_rows(support)
        return evolve(self.method.adapt(support), run=self.fingerprint)

    def save_adapted(self, adapted: AdaptedUsers, path: str | Path) -> None:
        """Write newcomers, from `adapt` or `online`, to a file that `load_adapted` and `copl score --users` read."""
        save_adapted(evolve(adapted, run=self.fingerprint), Path(path))

    def load_adapted(self, path: str | Path) -> AdaptedUsers:
        """Read what `save_adapted` or `copl adapt` has written.

        Raises:
            RunError: the file is missing, damaged, of another kind, or of another run.
        """
        adapted = load_adapted(Path(path))
        self._own(adapted)
        return adapted

    def online(
        self, user: str | int, comparisons: ComparisonSet | Sequence[Mapping[str, Any]] | None = None
    ) -> ModelUser:
        """Follow one user, comparison by comparison; the trained model stays as it is.

        Args:
            user: the user's id, text or a whole number; a user seen in training starts with the training comparisons.
            comparisons: what the user has said since, if anything, as for `adapt`.

        Raises:
            CoplError: the run's method takes no notice of users.
            DataError: one fault for each row that is wrong.
        """
        name = _known_by(user)
        followed = ModelUser(name, self.method.online(name), self.fingerprint)
        if comparisons is not None and len(comparisons):
            followed.add_rows(comparisons)
        return followed

    def next_question(
        self,
        user: str | int,
        candidates: Sequence[Pair],
        comparisons: ComparisonSet | Sequence[Mapping[str, Any]] | None = None,
    ) -> Question:
        """Return the candidate whose answer is expected to tell most about a user (`ModelUser.next_question`).

        Args:
            user: the user's id, seen in training or not.
            candidates: prompts with two responses each.
            comparisons: what the user has said so far, beside training.

        Raises:
            CoplError: the run's method takes no notice of users.
            DataError: there is no candidate, or a row is wrong.
        """
        return self.online(user, comparisons).next_question(candidates)
