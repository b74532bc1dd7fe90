"""A trained run as an object: score responses for a user, adapt to newcomers.

from copl import Model

model = Model.open("run")
model.score("user-7", "How do I boil an egg?", ["Eight minutes.", "Place the egg in cold water, then …"])
newcomers = model.adapt([{"user_id": "new", "prompt": "…", "chosen": "…", "rejected": "…"}])
model.score("new", "How do I boil an egg?", ["Eight minutes."], adapted=newcomers)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from copl.data.chat import encode_prompt
from copl.data.tables import read_comparison_rows
from copl.interfaces import PreferenceModel
from copl.plugins import load
from copl.records import AdaptedUsers, ComparisonSet, ResponseTable, ScoreRequests, UserTable
from copl.run import Run, open_run

Prompt = str | Sequence[Mapping[str, str]]
"""A prompt: text, or chat messages with ``role`` and ``content``."""


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
        run = open_run(Path(directory), load())
        return cls(run, run.load_method())

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
