"""Method ``btl``: one Bradley-Terry reward model for everybody, the baseline every personal method has to beat.

The same backbone, LoRA rank of the shared expert, warm start and training as `copl`, without users.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from copl.interfaces import PreferenceModel, Workspace
from copl.methods.parts.text_reward import TextReward
from copl.options import NoOptions
from copl.records import AdaptedUsers, ComparisonSet, FloatArray, PreferenceData, ScoreRequests
from copl.reward.reading.reader import TextReader
from copl.runs.recipe import Stages


@final
class UniformMethod(PreferenceModel):
    """A reward model that reads the text and takes no notice of the user."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._fitted: TextReward | None = None

    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        reader = TextReader.of(self._stages)
        reader.read(data.responses, workspace)
        self._fitted = TextReward.fit(data, None, self._stages, reader, upstream={}, seed=seed, workspace=workspace)

    def load(self, directory: Path) -> None:
        reader = TextReader.of(self._stages)
        reader.load(directory)
        self._fitted = TextReward.load(directory, self._stages, reader)

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
        return ()

    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        if self._fitted is None:
            raise RuntimeError("fit or load the method first")
        return self._fitted.scores(requests, None)

    def export(
        self, user: str, directory: Path, *, adapted: AdaptedUsers | None = None, merge: bool = False
    ) -> Mapping[str, Any]:
        if self._fitted is None:
            raise RuntimeError("fit or load the method first")
        return self._fitted.export("everybody", None, self._stages, directory, merge=merge)


def build(options: NoOptions, *, stages: Stages) -> UniformMethod:
    return UniformMethod(stages)
