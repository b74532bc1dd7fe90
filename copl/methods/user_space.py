"""The graph half of a method: user embeddings from the preference graph, and those of newcomers by adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from copl.graph.build import build_graph
from copl.graph.store import load_embeddings, save_embeddings
from copl.interfaces import AdaptationStrategy, GraphEncoder, Workspace
from copl.recipe import Stages
from copl.records import AdaptedUsers, ComparisonSet, NodeEmbeddings, PreferenceData, UserTable

STAGE = "graph"


@final
class UserSpace:
    """Embeddings of seen users and the strategy that places newcomers among them."""

    def __init__(self, trained: NodeEmbeddings, strategy: AdaptationStrategy) -> None:
        self.trained = trained
        self._strategy = strategy

    @classmethod
    def key(cls, data: PreferenceData, stages: Stages, seed: int) -> Mapping[str, Any]:
        """Return what the embeddings depend on."""
        return {"data": data.digest("train", "validation"), "seed": seed, **stages.key("encoder")}

    @classmethod
    def fit(cls, data: PreferenceData, stages: Stages, *, seed: int, workspace: Workspace) -> UserSpace:
        """Learn the embeddings, or take them from the workspace."""

        def compute(directory: Path) -> None:
            encoder: GraphEncoder = stages.build("encoder")
            save_embeddings(encoder.fit(build_graph(data), seed=seed, progress=workspace.progress), directory)

        directory = workspace.stage(STAGE, key=cls.key(data, stages, seed), compute=compute)
        return cls(load_embeddings(directory), stages.build("adapter"))

    @classmethod
    def load(cls, directory: Path, stages: Stages) -> UserSpace:
        """Read the embeddings of a run directory."""
        return cls(load_embeddings(directory / STAGE), stages.build("adapter"))

    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        """Find embeddings for the users of `support`."""
        return self._strategy.adapt(support, self.trained)

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
