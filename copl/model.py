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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from attrs import frozen

from copl.data.chat import encode_prompt
from copl.data.reading.rows import read_comparison_rows
from copl.errors import DataError
from copl.interfaces import OnlineUser, PreferenceModel
from copl.plugins import load
from copl.records import AdaptedUsers, Comparisons, ComparisonSet, ResponseTable, ScoreRequests, UserTable
from copl.runs.directory import Run, open_run
from copl.runs.recipe import ANY_BACKBONE
from copl.runs.sharing import fetch_portable, publish, save_portable

Prompt = str | Sequence[Mapping[str, str]]
"""A prompt: text, or chat messages with ``role`` and ``content``."""

Pair = tuple[Prompt, str, str]
"""A question to a user: a prompt and two responses to it."""


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

    def __init__(self, user_id: str, state: OnlineUser) -> None:
        self.user_id = user_id
        self._state = state

    @property
    def adapted(self) -> AdaptedUsers:
        """The user as of now, as `Model.score` takes it."""
        return self._state.adapted

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
            raise DataError(f"comparisons of {', '.join(sorted(strangers))} cannot be added to {self.user_id!r}")
        return self._state.add(comparisons)

    def next_question(self, candidates: Sequence[Pair]) -> Question:
        """Return the candidate whose answer is expected to tell most about this user; the first of equals.

        A candidate of which neither response was annotated, nor, with method `copl`, resembles one that was, tells
        nothing.

        Args:
            candidates: prompts with two responses each, at least one.

        Raises:
            DataError: there is no candidate.
        """
        return self.questions(candidates)[0]

    def questions(self, candidates: Sequence[Pair]) -> list[Question]:
        """Return all candidates, the one whose answer is expected to tell most first, as `next_question` judges.

        Raises:
            DataError: there is no candidate.
        """
        if not candidates:
            raise DataError("no candidates to choose a question from; give prompts with two responses each")
        prompts = [encode_prompt(prompt) for prompt, _, _ in candidates for _ in range(2)]
        texts = [text for _, first, second in candidates for text in (first, second)]
        rows = np.arange(len(candidates))
        pairs = Comparisons(np.zeros_like(rows), 2 * rows, 2 * rows + 1)
        users = UserTable.ungrouped([self.user_id])
        bits = self._state.information(ComparisonSet(users, ResponseTable(prompts, texts), pairs))
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
        self, user: str, directory: str | Path, *, adapted: AdaptedUsers | None = None, merge: bool = False
    ) -> Mapping[str, Any]:
        """Write one user's reward model as a plain classifier that works without `copl`.

        Args:
            user: id of a trained or adapted user.
            directory: where it goes; must not exist or be empty.
            adapted: newcomers, from `adapt`.
            merge: write a whole model instead of a PEFT adapter.

        Raises:
            OptionsError: the user is unknown, the method cannot be exported, or the directory holds something.
        """
        return self.method.export(user, Path(directory), adapted=adapted, merge=merge)

    def score(
        self, user: str, prompt: Prompt, responses: Sequence[str], *, adapted: AdaptedUsers | None = None
    ) -> list[float]:
        """Return the reward of each response for one user; only differences between responses have a meaning.

        Args:
            user: the user's id; one neither trained nor adapted is scored as the average user.
            prompt: what the responses answer.
            responses: the texts to score.
            adapted: newcomers, from `adapt`.
        """
        table = ResponseTable([encode_prompt(prompt)] * len(responses), responses)
        rows = np.arange(len(responses))
        requests = ScoreRequests(UserTable.ungrouped([user]), table, np.zeros_like(rows), rows)
        return [float(value) for value in self.method.scores(requests, adapted)]

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
        return self.method.adapt(support)

    def online(self, user: str, comparisons: ComparisonSet | Sequence[Mapping[str, Any]] | None = None) -> ModelUser:
        """Follow one user, comparison by comparison; the trained model stays as it is.

        Args:
            user: the user's id; a user seen in training starts with the training comparisons.
            comparisons: what the user has said since, if anything, as for `adapt`.

        Raises:
            CoplError: the run's method takes no notice of users.
            DataError: one fault for each row that is wrong.
        """
        found = ModelUser(user, self.method.online(user))
        if comparisons is not None and len(comparisons):
            found.add_rows(comparisons)
        return found

    def next_question(
        self,
        user: str,
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
