"""Method ``copl``: user embeddings from the preference graph gate a mixture of LoRA experts in a reward model.

Choi et al., "CoPL: Collaborative Preference Learning for Personalizing LLMs", EMNLP 2025, arXiv 2503.01658.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import final

from attrs import frozen

from copl.experts.options import MixtureOptions
from copl.interfaces import PreferenceModel, Workspace
from copl.methods.text_reward import TextReward
from copl.methods.user_space import UserSpace
from copl.plugins import Component
from copl.recipe import Stages
from copl.records import AdaptedUsers, ComparisonSet, Diagnostics, FloatArray, PreferenceData, ScoreRequests
from copl.reward.options import PAPER_PRESET, RewardOptions
from copl.reward.training import UserVectors


@final
@frozen
class CoplOptions:
    """The method has no options of its own; each part has."""


@final
class CoplMethod(PreferenceModel):
    """A reward model that reads the text and knows the user.

    A user who is neither seen nor adapted is scored with the mean embedding of the seen users.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._fitted: tuple[UserSpace, TextReward] | None = None

    @property
    def fitted(self) -> tuple[UserSpace, TextReward]:
        if self._fitted is None:
            raise RuntimeError("fit or load the method first")
        return self._fitted

    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        space = UserSpace.fit(data, self._stages, seed=seed, workspace=workspace)
        users = UserVectors(space.trained.user_ids, space.trained.users)
        upstream = UserSpace.key(data, self._stages, seed)
        reward = TextReward.fit(data, users, self._stages, upstream=upstream, seed=seed, workspace=workspace)
        self._fitted = space, reward

    def load(self, directory: Path) -> None:
        self._fitted = UserSpace.load(directory, self._stages), TextReward.load(directory, self._stages)

    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        space, _ = self.fitted
        return space.adapt(support)

    def seen_users(self) -> Collection[str]:
        space, _ = self.fitted
        return space.trained.user_rows.keys()

    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        space, reward = self.fitted
        return reward.scores(requests, space.vectors(requests.users, adapted))

    def diagnostics(self) -> Diagnostics:
        space, reward = self.fitted
        trained = space.trained
        weights = reward.model.expert_weights(trained.users)
        return Diagnostics(
            user_ids=trained.user_ids,
            user_embeddings=trained.users.double().numpy(),
            expert_weights=None if weights is None else weights.double().numpy(),
        )


def _build(options: CoplOptions, *, stages: Stages) -> CoplMethod:
    return CoplMethod(stages)


COMPONENTS = [
    Component(
        name="copl",
        options=CoplOptions,
        build=_build,
        summary="graph embeddings of users gate a mixture of LoRA experts in a reward model",
        reference="arXiv 2503.01658",
        uses=("encoder", "gate", "adapter", "backbone"),
        sections={"mixture": MixtureOptions, "reward": RewardOptions},
        presets={"paper": {"reward": PAPER_PRESET}},
    )
]
