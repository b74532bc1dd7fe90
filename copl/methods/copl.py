"""Method ``copl``: user embeddings from the preference graph gate a mixture of LoRA experts in a reward model.

Choi et al., "CoPL: Collaborative Preference Learning for Personalizing LLMs", EMNLP 2025, arXiv 2503.01658.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import evolve

from copl.errors import OptionsError, suggest
from copl.experts.report import gate_report
from copl.interfaces import FormerRun, OnlineUser, Workspace
from copl.methods.catalogue import CoplOptions
from copl.methods.parts.blend import STAGE, Blend
from copl.methods.parts.going_on import GoesOn
from copl.methods.parts.recency import Recency
from copl.methods.parts.text_reward import STAGE as REWARD
from copl.methods.parts.text_reward import TextReward, former_reward
from copl.methods.parts.user_space import UserSpace, remembered
from copl.records import (
    AdaptedUsers,
    ComparisonSet,
    Diagnostics,
    FloatArray,
    PreferenceData,
    ResponseTable,
    ScoreRequests,
    UserTable,
)
from copl.records.explanation import Explanation, Part
from copl.reward.reading.reader import TextReader
from copl.reward.training.user_vectors import UserVectors
from copl.runs.recipe import Stages

if TYPE_CHECKING:
    from torch import Tensor


@final
class CoplMethod(GoesOn):
    """A reward model that reads the text and knows the user.

    A user who is neither seen nor adapted is scored with the mean embedding of the seen users. Responses are scored by
    the table of users and responses and the reward model together (`copl.methods.parts.blend`), unless
    ``graph_scores`` is off.
    """

    def __init__(self, options: CoplOptions, stages: Stages) -> None:
        self._options = options
        self._stages = stages
        self._fitted: tuple[UserSpace, TextReward] | None = None
        self._blend: Blend | None = None
        self._recency = Recency(None)

    @property
    def fitted(self) -> tuple[UserSpace, TextReward]:
        if self._fitted is None:
            raise RuntimeError("fit or load the method first")
        return self._fitted

    def _fit(self, data: PreferenceData, former: FormerRun | None, seed: int, workspace: Workspace) -> None:
        stages = self._stages
        reader = TextReader.of(stages)
        reader.read(data.responses, workspace)
        by_text = self._readers_of_table(reader)
        self._recency = Recency.fit(self._options, data, stages, by_text, seed=seed, workspace=workspace, former=former)
        given, data = data, self._recency.of_data(data)
        space = UserSpace.fit(data, stages, by_text, seed=seed, workspace=workspace, former=former)
        known = former if former is not None and remembered(former, stages) is not None else None
        before = None
        if known is not None:
            before = former_reward(known, given, stages)
        elif former is not None:
            former.tell(REWARD, "what it is told of users was learnt anew")
        groups = space.true_groups(data)
        trained = space.trained
        users = UserVectors(trained.user_ids, space.view(trained.users), groups, trainable=trained.trainable_users)
        upstream = {**UserSpace.key(data, stages, by_text, seed, known), "groups": list(groups)}
        if known is not None:
            upstream["continued"] = before is not None
        reward = TextReward.fit(
            data, users, stages, reader, upstream=upstream, seed=seed, workspace=workspace, former=before
        )
        self._fitted = space, reward
        if self._options.graph_scores:
            self._blend = self._fit_blend(data, reader, upstream, seed, workspace)

    def _readers_of_table(self, reader: TextReader) -> TextReader | None:
        """Who reads texts for the table of users and responses: nobody, where scores are by the reward model alone."""
        return reader if self._options.graph_scores or self._stages.encoder().reads_texts else None

    def _fit_blend(
        self, data: PreferenceData, reader: TextReader, upstream: Mapping[str, object], seed: int, workspace: Workspace
    ) -> Blend:
        space, reward = self.fitted

        def compute(directory: Path) -> None:
            pairs = data.split("validation")
            rows = pairs.comparisons
            user, response = np.tile(rows.user, 2), np.concatenate([rows.chosen, rows.rejected])
            requests = ScoreRequests(pairs.users, pairs.responses, user, response)
            table = space.scores(requests, None).reshape(2, -1)
            text = reward.scores(requests, self.user_vectors(pairs.users, None)).reshape(2, -1)
            blend = Blend.fit(table[0] - table[1], text[0] - text[1])
            workspace.progress.log(STAGE, num_comparisons=len(rows), table=blend.table, text=blend.text)
            blend.save(directory)

        key = TextReward.key(data, self._stages, reader, upstream=upstream, seed=seed)
        return Blend.load(workspace.stage(STAGE, key=key, compute=compute))

    def load(self, directory: Path) -> None:
        reader = TextReader.of(self._stages)
        reader.load(directory)
        self._recency = Recency.load(self._options, directory)
        space = UserSpace.load(directory, self._stages, self._readers_of_table(reader))
        self._fitted = space, TextReward.load(directory, self._stages, reader)
        if self._options.graph_scores:
            self._blend = Blend.load(directory / STAGE)

    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        space, _ = self.fitted
        return space.adapt(self._recency.of_support(support))

    def read_ahead(self, responses: ResponseTable) -> None:
        space, _ = self.fitted
        space.read_ahead(responses)

    def online(self, user_id: str) -> OnlineUser:
        space, _ = self.fitted
        return space.online(user_id, self._recency.of_support)

    def explain(self, user: str, responses: ResponseTable, support: ComparisonSet | None) -> Explanation:
        """Explain by the table of users and responses; what the reward model adds to it is one part."""
        space, _ = self.fitted
        if self._blend is None:
            raise OptionsError("this run scores by its reward model alone (graph_scores), which cannot be taken apart")
        rows = np.arange(len(responses))
        requests = ScoreRequests(UserTable.ungrouped([user]), responses, np.zeros_like(rows), rows)
        heard, adapted = space.heard(user, None if support is None else self._recency.of_support(support))
        by_table = space.explain(user, responses, heard, adapted)
        scores = self.scores(requests, adapted)
        score = scores[0] - scores[1] if len(responses) > 1 else scores[0]
        by_text = Part("reward model", float(score) - self._blend.table * by_table.score)
        return by_table.scaled(self._blend.table, (by_text,))

    def seen_users(self) -> Collection[str]:
        space, _ = self.fitted
        return space.trained.user_rows.keys()

    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        space, reward = self.fitted
        vectors = self.user_vectors(requests.users, adapted)
        if self._blend is None:
            return reward.scores(requests, vectors)
        text, table = np.empty(len(requests)), np.empty(len(requests))
        for part in reward.model.reader.parts(requests.responses, requests.response):
            some = evolve(requests, user=requests.user[part], response=requests.response[part])
            table[part] = space.scores(some, adapted)  # reads all layers, and keeps the states that adapters go on from
            text[part] = reward.scores(some, vectors)
        return self._blend.scores(table, text, reward.levels(vectors)[requests.user])

    def user_vectors(self, users: UserTable, adapted: AdaptedUsers | None) -> Tensor:
        """What the reward model is told of users [U, K]: where it has trained them along, what they became there."""
        space, reward = self.fitted
        return space.view(space.vectors(users, adapted)) if reward.users is None else reward.own_vectors(users)

    def export(
        self, user: str, directory: Path, *, adapted: AdaptedUsers | None = None, merge: bool = False
    ) -> Mapping[str, object]:
        """Write one user's reward model; what the table of users and responses adds stays here."""
        _, reward = self.fitted
        known = [*self.seen_users(), *(adapted.user_ids if adapted else ())]
        if user not in known:
            raise OptionsError(f"user {user!r} is neither trained nor adapted{suggest(user, known)}; adapt them first")
        vector = self.user_vectors(UserTable.ungrouped([user]), adapted)[0]
        return reward.export(user, vector, self._stages, directory, merge=merge)

    def diagnostics(self) -> Diagnostics:
        space, reward = self.fitted
        trained = space.trained
        vectors = self.user_vectors(UserTable.ungrouped(trained.user_ids), None)
        weights = reward.model.expert_weights(vectors)
        if weights is None:
            return Diagnostics(trained.user_ids, vectors.double().numpy())
        experts = weights.double().numpy()
        return Diagnostics(trained.user_ids, vectors.double().numpy(), experts, (gate_report(experts).sentence,))


def build(options: CoplOptions, *, stages: Stages) -> CoplMethod:
    return CoplMethod(options, stages)
