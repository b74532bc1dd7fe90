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
from copl.graph.training import ComparisonTensors, Judgement
from copl.interfaces import AdaptationStrategy, GraphEncoder, OnlineUser, Workspace
from copl.methods.parts.response_features import wants_response_features
from copl.methods.parts.text_regression import TextRegression
from copl.records import (
    AdaptedUsers,
    BoolArray,
    ComparisonSet,
    FloatArray,
    IntArray,
    NodeEmbeddings,
    PreferenceData,
    ResponseTable,
    ScoreRequests,
    UserTable,
)
from copl.reward.reading.reader import TextReader
from copl.runs.recipe import Stages

STAGE = "graph"


@final
class UserSpace:
    """Embeddings of seen users and the strategy that places newcomers among them."""

    def __init__(self, trained: NodeEmbeddings, strategy: AdaptationStrategy) -> None:
        self.trained = trained
        self._strategy = strategy
        self._lookalikes: Lookalikes | None = None
        self._regression: TextRegression | None = None

    @classmethod
    def key(cls, data: PreferenceData, stages: Stages, reader: TextReader | None, seed: int) -> Mapping[str, Any]:
        """Return what the embeddings depend on."""
        key = {"data": data.digest("train", "validation"), "seed": seed, **stages.key("encoder")}
        wanted = wants_response_features(stages)
        return {**key, "features": reader.key} if reader is not None and wanted else key

    @classmethod
    def fit(
        cls, data: PreferenceData, stages: Stages, reader: TextReader | None, *, seed: int, workspace: Workspace
    ) -> UserSpace:
        """Learn the embeddings, or take them from the workspace.

        Args:
            data: splits ``train`` and ``validation`` are used.
            stages: the recipe's parts; ``encoder`` and ``adapter`` are used.
            reader: gives the features of responses to an encoder that wants them; None for a method without text.
            seed: the same seed gives the same embeddings.
            workspace: where the result is kept.
        """
        wanted = wants_response_features(stages)

        def compute(directory: Path) -> None:
            encoder: GraphEncoder = stages.build("encoder")
            rows = np.arange(len(data.responses))
            features = reader.features(data.responses, rows) if reader is not None and wanted else None
            graph = build_graph(data, response_features=features)
            save_embeddings(encoder.fit(graph, seed=seed, progress=workspace.progress), directory)

        directory = workspace.stage(STAGE, key=cls.key(data, stages, reader, seed), compute=compute)
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
        was compared. A response never met is embedded by its text after `embed_by_texts`; before, it scores 0, which
        is then the average one.
        """
        rows = self._rows(requests.responses)[requests.response]
        met: BoolArray = rows >= 0
        table = torch.zeros(len(requests), self.trained.dim + 1, dtype=torch.float64)
        table[torch.from_numpy(met)] = self._centred[torch.from_numpy(rows[met])]
        if self._regression is not None and not met.all():
            new, place = np.unique(requests.response[~met], return_inverse=True)
            predicted = self._regression.predict(self._features(requests.responses, new))
            table[torch.from_numpy(~met)] = predicted[torch.from_numpy(place)]
        users = self.vectors(requests.users, adapted)[torch.from_numpy(requests.user)].double()
        scores: FloatArray = _utility(users, table).numpy()
        return scores, met

    def regress_on_texts(self, pairs: ComparisonSet) -> tuple[TextRegression, Tensor]:
        """Fit the regression of the embeddings of responses on their texts.

        Args:
            pairs: comparisons that choose how smooth it is; those of responses that were not trained say nothing.

        Returns:
            the regression, and what the texts of the other responses say of each trained one [R, D + 1]: embedding and
            bias, centred.
        """
        assert self._lookalikes is not None
        rows = self._rows(self._lookalikes.responses)
        here, there = torch.from_numpy(np.flatnonzero(rows >= 0)), torch.from_numpy(rows[rows >= 0])
        others = torch.zeros_like(self._centred)
        row = self._rows(pairs.responses)
        known: BoolArray = (row[pairs.comparisons.chosen] >= 0) & (row[pairs.comparisons.rejected] >= 0)
        judging = ComparisonSet(pairs.users, pairs.responses, pairs.comparisons.take(known))

        def judge(alone: Tensor) -> float:
            margins = torch.from_numpy(self.margins(judging, others.index_copy(0, there, alone)))
            return float(Judgement.of(ComparisonTensors.of(judging.comparisons), margins.float()).loss)

        regression, alone = TextRegression.fit(
            self._lookalikes.features[here],
            self._centred[there],
            self._counts[there],
            judge if len(judging.comparisons) else None,
        )
        return regression, others.index_copy(0, there, alone)

    def embed_by_texts(self, regression: TextRegression) -> None:
        """From now on, score responses that were not trained by their texts."""
        self._regression = regression

    def margins(self, pairs: ComparisonSet, others: Tensor | None = None, new: BoolArray | None = None) -> FloatArray:
        """Return the margins [N] of comparisons of trained responses; others count as average.

        Args:
            pairs: the comparisons.
            others: what the texts of the other responses say of each trained one [R, D + 1].
            new: of which responses to believe that, chosen and rejected [N, 2]; None believes it of all.
        """
        rows = self._rows(pairs.responses)
        users = self.vectors(pairs.users, None)[torch.from_numpy(pairs.comparisons.user)].double()
        sides = []
        for side, response in enumerate((pairs.comparisons.chosen, pairs.comparisons.rejected)):
            row = torch.from_numpy(rows[response])
            values = self._centred[row.clamp_min(0)]
            if others is not None:
                believed = torch.ones(len(row), dtype=torch.bool) if new is None else torch.from_numpy(new[:, side])
                values = torch.where(believed[:, None], others[row.clamp_min(0)], values)
            sides.append(_utility(users, values * (row >= 0)[:, None]))
        margins: FloatArray = (sides[0] - sides[1]).numpy()
        return margins

    def _rows(self, responses: ResponseTable) -> IntArray:
        """The row of each response among the trained ones, -1 where it is not [R]."""
        return np.array([self.trained.response_rows.get(key, -1) for key in responses.keys], dtype=np.int64)

    def _features(self, responses: ResponseTable, rows: IntArray) -> Tensor:
        """Features of the texts at `rows` [n, F]."""
        assert self._lookalikes is not None
        return self._lookalikes.read(responses.take(rows))

    @cached_property
    def _counts(self) -> Tensor:
        """How many training comparisons each trained response is in [R]."""
        compared = np.concatenate([self.trained.comparisons.chosen, self.trained.comparisons.rejected])
        return torch.from_numpy(np.bincount(compared, minlength=len(self.trained.response_keys))).double()

    @cached_property
    def _centred(self) -> Tensor:
        """Embeddings and biases of the trained responses less their mean over the training comparisons [R, D + 1]."""
        trained = self.trained
        table = torch.cat([trained.responses, trained.response_bias[:, None]], dim=1).double()
        share = self._counts / self._counts.sum().clamp_min(1.0)
        return table - share @ table


def _utility(users: Tensor, responses: Tensor) -> Tensor:
    """Return e_u . e_r + b_r [N] from users [N, D] and responses with their biases [N, D + 1]."""
    return (users * responses[:, :-1]).sum(dim=-1) + responses[:, -1]
