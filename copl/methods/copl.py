"""Method ``copl``: user embeddings from the preference graph gate a mixture of LoRA experts in a reward model.

Choi et al., "CoPL: Collaborative Preference Learning for Personalizing LLMs", EMNLP 2025, arXiv 2503.01658.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from attrs import frozen

from copl.errors import OptionsError, suggest
from copl.experts.options import PAPER_PRESET as MIXTURE_PAPER_PRESET
from copl.experts.options import MixtureOptions
from copl.experts.report import gate_report
from copl.interfaces import OnlineUser, PreferenceModel, Workspace
from copl.methods.parts.annotated_texts import fit_lookalikes, load_lookalikes
from copl.methods.parts.blend import MET, NEW, STAGE, Blend, Weights
from copl.methods.parts.text_regression import TextRegression
from copl.methods.parts.text_reward import TextReward
from copl.methods.parts.user_space import UserSpace
from copl.options import option
from copl.plugins import Component
from copl.records import AdaptedUsers, ComparisonSet, Diagnostics, FloatArray, PreferenceData, ScoreRequests, UserTable
from copl.reward.options import PAPER_PRESET as REWARD_PAPER_PRESET
from copl.reward.options import RewardOptions
from copl.reward.reading.reader import TextReader
from copl.reward.training.user_vectors import UserVectors
from copl.runs.recipe import Stages

if TYPE_CHECKING:
    from torch import Tensor


@final
@frozen
class CoplOptions:
    graph_scores: bool = option(
        True,
        help="add what the graph knows of responses, of new ones by the texts it has met, weighted by fit to the"
        " validation split; false scores by text alone, as published",
    )


PAPER_PRESET = {
    "method": {"graph_scores": False},
    "encoder": {"name": "gcf", "preset": "paper"},
    "gate": {"name": "top1", "preset": "paper"},
    "adapter": {"name": "two-hop", "preset": "paper"},
    "mixture": MIXTURE_PAPER_PRESET,
    "reward": REWARD_PAPER_PRESET,
}
"""The published settings of all parts."""


@final
class CoplMethod(PreferenceModel):
    """A reward model that reads the text and knows the user.

    A user who is neither seen nor adapted is scored with the mean embedding of the seen users. Responses are scored by
    text and graph together (`copl.methods.parts.blend`), unless ``graph_scores`` is off.
    """

    def __init__(self, options: CoplOptions, stages: Stages) -> None:
        self._options = options
        self._stages = stages
        self._fitted: tuple[UserSpace, TextReward] | None = None
        self._blend: Blend | None = None

    @property
    def fitted(self) -> tuple[UserSpace, TextReward]:
        if self._fitted is None:
            raise RuntimeError("fit or load the method first")
        return self._fitted

    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        reader = TextReader.of(self._stages)
        reader.read(data.responses, workspace)
        space = UserSpace.fit(data, self._stages, reader, seed=seed, workspace=workspace)
        groups = space.true_groups(data)
        trained = space.trained
        users = UserVectors(trained.user_ids, trained.users, groups, trainable=trained.trainable_users)
        upstream = {**UserSpace.key(data, self._stages, reader, seed), "groups": list(groups)}
        reward = TextReward.fit(data, users, self._stages, reader, upstream=upstream, seed=seed, workspace=workspace)
        self._fitted = space, reward
        space.match_texts(fit_lookalikes(data, reader, workspace=workspace))
        if self._options.graph_scores:
            self._blend = self._fit_blend(data, upstream, seed, workspace)

    def _fit_blend(self, data: PreferenceData, upstream: Mapping[str, Any], seed: int, workspace: Workspace) -> Blend:
        space, reward = self.fitted

        def compute(directory: Path) -> None:
            pairs = data.split("validation")
            rows = pairs.comparisons
            user, response = np.tile(rows.user, 2), np.concatenate([rows.chosen, rows.rejected])
            requests = ScoreRequests(pairs.users, pairs.responses, user, response)
            text = reward.scores(requests, self._vectors(pairs.users, None)).reshape(2, -1)
            _, met = space.scores(requests, None)
            known = met.reshape(2, -1).all(axis=0)
            regression, others = space.regress_on_texts(pairs)
            judged = reward.new_texts
            new_pairs = ComparisonSet(pairs.users, pairs.responses, rows.take(judged.rows))
            blend = Blend(
                met=Weights.fit((text[0] - text[1])[known], space.margins(pairs)[known], MET),
                new=Weights.fit(judged.margins, space.margins(new_pairs, others, judged.new), NEW),
            )
            for kind, weights, count in (("met", blend.met, known.sum()), ("new", blend.new, len(judged.rows))):
                workspace.progress.log(
                    STAGE, responses=kind, num_comparisons=int(count), text=weights.text, graph=weights.graph
                )
            blend.save(directory)
            regression.save(directory)

        key = TextReward.key(data, self._stages, reward.model.reader, upstream=upstream, seed=seed)
        directory = workspace.stage(STAGE, key=key, compute=compute)
        space.embed_by_texts(TextRegression.load(directory))
        return Blend.load(directory)

    def load(self, directory: Path) -> None:
        reader = TextReader.of(self._stages)
        reader.load(directory)
        space, reward = UserSpace.load(directory, self._stages), TextReward.load(directory, self._stages, reader)
        self._fitted = space, reward
        space.match_texts(load_lookalikes(directory, reader))
        if self._options.graph_scores:
            space.embed_by_texts(TextRegression.load(directory / STAGE))
            self._blend = Blend.load(directory / STAGE)

    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        space, _ = self.fitted
        return space.adapt(support)

    def online(self, user_id: str) -> OnlineUser:
        space, _ = self.fitted
        return space.online(user_id)

    def seen_users(self) -> Collection[str]:
        space, _ = self.fitted
        return space.trained.user_rows.keys()

    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        space, reward = self.fitted
        vectors = self._vectors(requests.users, adapted)
        text = reward.scores(requests, vectors)
        if self._blend is None:
            return text
        return self._blend.scores(text, reward.levels(vectors)[requests.user], *space.scores(requests, adapted))

    def _vectors(self, users: UserTable, adapted: AdaptedUsers | None) -> Tensor:
        """What the reward model is told of users [U, D]: where it has trained them along, what they became there."""
        space, reward = self.fitted
        return space.vectors(users, adapted) if reward.users is None else reward.own_vectors(users)

    def export(
        self, user: str, directory: Path, *, adapted: AdaptedUsers | None = None, merge: bool = False
    ) -> Mapping[str, Any]:
        """Write the text half of one user's reward; what the graph adds for responses it has met stays here."""
        _, reward = self.fitted
        known = [*self.seen_users(), *(adapted.user_ids if adapted else ())]
        if user not in known:
            raise OptionsError(f"user {user!r} is neither trained nor adapted{suggest(user, known)}; adapt them first")
        vector = self._vectors(UserTable.ungrouped([user]), adapted)[0]
        return reward.export(user, vector, self._stages, directory, merge=merge)

    def diagnostics(self) -> Diagnostics:
        space, reward = self.fitted
        trained = space.trained
        vectors = self._vectors(UserTable.ungrouped(trained.user_ids), None)
        weights = reward.model.expert_weights(vectors)
        if weights is None:
            return Diagnostics(trained.user_ids, vectors.double().numpy())
        experts = weights.double().numpy()
        return Diagnostics(trained.user_ids, vectors.double().numpy(), experts, (gate_report(experts).sentence,))


def _build(options: CoplOptions, *, stages: Stages) -> CoplMethod:
    return CoplMethod(options, stages)


COMPONENTS = [
    Component(
        name="copl",
        options=CoplOptions,
        build=_build,
        summary="graph embeddings of users gate a mixture of LoRA experts in a reward model",
        reference="arXiv 2503.01658",
        uses=("encoder", "gate", "adapter", "backbone"),
        sections={"mixture": MixtureOptions, "reward": RewardOptions},
        presets={"paper": PAPER_PRESET},
    )
]
