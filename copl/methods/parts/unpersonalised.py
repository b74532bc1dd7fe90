"""What methods share that know no users: the references every personal method is held against."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection

import numpy as np
import torch

from copl.interfaces import PreferenceModel
from copl.records import AdaptedUsers, ComparisonSet, FloatArray, IntArray, ResponseTable, ScoreRequests


class Unpersonalised(PreferenceModel):
    """A method whose reward of a response is the same for everybody."""

    @abstractmethod
    def rewards(self, responses: ResponseTable, rows: IntArray) -> FloatArray:
        """Return the reward [N] of the responses at `rows` [N]."""

    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        """Return empty embeddings: there is nothing to adapt."""
        present = np.unique(support.comparisons.user)
        num_users = len(present)
        return AdaptedUsers(
            user_ids=tuple(support.users.ids[row] for row in present),
            embeddings=torch.zeros(num_users, 0),
            how=("unpersonalised",) * num_users,
            num_neighbours=np.zeros(num_users, dtype=np.int64),
            confidence=np.zeros(num_users),
        )

    def seen_users(self) -> Collection[str]:
        """Return nobody."""
        return ()

    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        """Return the reward [N] of each request; each distinct response is rewarded once."""
        rows, place = np.unique(requests.response, return_inverse=True)
        rewards: FloatArray = self.rewards(requests.responses, rows)[place]
        return rewards
