"""The graph half of a method: user embeddings from the preference graph, and those of newcomers by adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from copl.adapt.lookalikes import Lookalikes, by_similar_texts
from copl.adapt.online import RunningEstimate
from copl.graph.build import build_graph
from copl.graph.store import load_embeddings, save_embeddings
from copl.interfaces import AdaptationStrategy, GraphEncoder, OnlineUser, Workspace
from copl.methods.response_features import response_features, response_features_key, wants_response_features
from copl.recipe import Stages
from copl.records import (
    AdaptedUsers,
    BoolArray,
    ComparisonSet,
    FloatArray,
    NodeEmbeddings,
    PreferenceData,
    ScoreRequests,
    UserTable,
)

STAGE = "graph"


@final
class UserSpace:
    """Embeddings of seen users and the strategy that places newcomers among them."""

    def __init__(self, trained: NodeEmbeddings, strategy: AdaptationStrategy) -> None:
        self.trained = trained
        self._strategy = strategy
        self._lookalikes: Lookalikes | None = None

    @classmethod
    def key(cls, data: PreferenceData, stages: Stages, seed: int) -> Mapping[str, Any]:
        """Return what the embeddings depend on."""
        key = {"data": data.digest("train", "validation"), "seed": seed, **stages.key("encoder")}
        return {**key, "features": response_features_key(stages)} if wants_response_features(stages) else key

    @classmethod
    def fit(cls, data: PreferenceData, stages: Stages, *, seed: int, workspace: Workspace) -> UserSpace:
        """Learn the embeddings, or take them from the workspace."""
        features = response_features(data, stages, workspace=workspace) if wants_response_features(stages) else None

        def compute(directory: Path) -> None:
            encoder: GraphEncoder = stages.build("encoder")
            graph = build_graph(data, response_features=features)
            save_embeddings(encoder.fit(graph, seed=seed, progress=workspace.progress), directory)

        directory = workspace.stage(STAGE, key=cls.key(data, stages, seed), compute=compute)
        return cls(load_embeddings(directory), stages.build("adapter"))

    @classmethod
    def load(cls, directory: Path, stages: Stages) -> UserSpace:
        """Read the embeddings of a run directory."""
        return cls(load_embeddings(directory / STAGE), stages.build("adapter"))

    def true_groups(self, data: PreferenceData) -> tuple[str | None, ...]:
        """Return the true group of each seen user, None where the data does not say."""
        rows = data.users.rows
        return tuple(data.users.groups[rows[user]] if user in rows else None for user in self.trained.user_ids)

    def match_texts(self, lookalikes: Lookalikes) -> None:
        """From now on, take responses that were not trained for the annotated ones with the most similar texts."""
        self._lookalikes = lookalikes

    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        """Find embeddings for the users of `support`."""
        if self._lookalikes is None:
            return self._strategy.adapt(support, self.trained)
        support, changed = self._lookalikes.translate(support, self.trained)
        adapted = self._strategy.adapt(support, self.trained)
        translated = {support.users.ids[row] for row in support.comparisons.user[changed].tolist()}
        return by_similar_texts(adapted, np.array([user in translated for user in adapted.user_ids], dtype=np.bool_))

    def online(self, user_id: str) -> OnlineUser:
        """Follow a user, seen or not, who answers one comparison after another."""
        return RunningEstimate(user_id, self.trained, self._strategy, self._lookalikes)

    def vectors(self, users: UserTable, adapted: AdaptedUsers | None) -> Tensor:
        """Return the embedding of each user [U, D]: adapted, else trained, else the mean of the trained ones."""
        trained = self.trained
        newcomers = {user: row for row, user in enumerate(adapted.user_ids)} if adapted is not None else {}
        known = trained.user_rows
        mean = trained.users.mean(dim=0) if len(trained.users) else torch.zeros(trained.dim)
        vectors = mean.expand(len(users), -1).clone()
        rows = [(i, known[user]) for i, user in enumerate(users.ids) if user in known and user not in newcomers]
        if rows:
            here, there = torch.tensor(rows).T
            vectors[here] = trained.users[there]
        if adapted is not None:
            rows = [(i, newcomers[user]) for i, user in enumerate(users.ids) if user in newcomers]
            if rows:
                here, there = torch.tensor(rows).T
                vectors[here] = adapted.embeddings[there].to(vectors.dtype)
        return vectors

    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None) -> tuple[FloatArray, BoolArray]:
        """Return what the graph alone says of each request [N], and which of the responses it has met [N].

        The score e_u . e_r + b_r is centred on the responses of the training comparisons, each counted as often as it
        was compared; a response never met scores 0, which is then the average one.
        """
        trained = self.trained
        scores = torch.zeros(len(requests), dtype=torch.float64)
        rows = np.array([trained.response_rows.get(key, -1) for key in requests.responses.keys], dtype=np.int64)
        row = rows[requests.response]
        met: BoolArray = row >= 0
        if met.any():
            users = self.vectors(requests.users, adapted)[torch.from_numpy(requests.user)].double()
            responses, bias = self._centred
            at = torch.from_numpy(np.maximum(row, 0))
            values = (users * responses[at]).sum(dim=-1) + bias[at]
            scores = torch.where(torch.from_numpy(met), values, scores)
        return scores.numpy(), met

    @cached_property
    def _centred(self) -> tuple[Tensor, Tensor]:
        trained = self.trained
        compared = np.concatenate([trained.comparisons.chosen, trained.comparisons.rejected])
        count = torch.from_numpy(np.bincount(compared, minlength=len(trained.response_keys))).double()
        share = count / count.sum().clamp_min(1.0)
        responses, bias = trained.responses.double(), trained.response_bias.double()
        return responses - share @ responses, bias - share @ bias
