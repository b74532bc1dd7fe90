"""A run's personal reward as the reward function of a trainer.

TRL 1.x calls ``reward_funcs`` of GRPO, RLOO and online DPO with ``prompts`` and ``completions`` (text, or lists of chat
messages), and every other column of the data set under its own name, one value a completion; so a column ``user_id``
says whose reward is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, final

import numpy as np

from copl.data.completions import UnknownUsers, read_completions, read_users
from copl.data.reading.faults import Faults
from copl.errors import quoted
from copl.records import NOBODY, FloatArray, ResponseTable, ScoreRequests, UserTable

Scores = Callable[[ScoreRequests], FloatArray]
"""Gives the reward [N] of each request."""


class RewardFunction(Protocol):
    """What trainers call: a reward for each completion."""

    __name__: str

    def __call__(self, prompts: Sequence[object], completions: Sequence[object], **columns: object) -> list[float]:
        """Return the reward of each completion; `columns` may hold anything, the users' ids among it."""
        ...


@final
class PersonalRewards:
    """Rewards of completions, each for the user of its row.

    An empty completion is scored as it stands, and so is one whose user nobody knows: as the average user would, which
    is said once. What a completion gets does not depend on the others of the call, so groups and batches of any size
    give the same rewards, from any thread.

    Args:
        scores: gives rewards.
        knows: says whether anything is known of a user.
        user: the user of all rows; None: each row says its own.
        user_column: the column that says it.
    """

    def __init__(
        self, scores: Scores, knows: Callable[[str], bool], *, user: str | None = None, user_column: str = "user_id"
    ) -> None:
        self.__name__ = "personal_reward"
        self._scores = scores
        self._knows = knows
        self._user = user
        self._column = user_column
        self._unknown = UnknownUsers()

    def __call__(self, prompts: Sequence[object], completions: Sequence[object], **columns: object) -> list[float]:
        """Return the reward of each completion.

        Args:
            prompts: text, or chat messages, of each completion.
            completions: text, or chat messages of which the last is the response; those before it, such as calls of
                tools, count as part of the prompt.
            columns: the user's id of each completion, or one for all, under the name of the column; others are not
                looked at.

        Raises:
            DataError: one fault for each argument that is none of this.
        """
        faults = Faults("reward function")
        texts = read_completions(prompts, completions, faults)
        users = self._users(columns, len(completions), faults)
        faults.raise_any()
        if not texts:
            return []
        ids, rows = list(dict.fromkeys(users)), list(dict.fromkeys(texts))
        self._unknown.tell([name for name in ids if not self._knows(name)])
        user, row = {name: place for place, name in enumerate(ids)}, {text: place for place, text in enumerate(rows)}
        requests = ScoreRequests(
            UserTable.ungrouped(ids),
            ResponseTable([prompt for prompt, _ in rows], [text for _, text in rows]),
            np.array([user[name] for name in users], dtype=np.int64),
            np.array([row[text] for text in texts], dtype=np.int64),
        )
        return list(map(float, self._scores(requests)))

    def _users(self, columns: Mapping[str, object], count: int, faults: Faults) -> list[str]:
        if self._user is not None:
            return [self._user] * count
        if self._column in columns:
            return read_users(columns[self._column], count, self._column, faults)
        faults.add(
            f"no column {quoted(self._column)}: the data set has to say whose reward each row wants, or name one "
            "user for all by reward_function(user=...)"
        )
        return [NOBODY] * count
