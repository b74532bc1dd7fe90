"""The table of users and responses: embeddings of both, by comparisons and by texts, and of newcomers by adaptation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np
import torch
from torch import Tensor

from copl.adapt.explain import explain
from copl.adapt.online import RunningEstimate
from copl.adapt.strategies.population import Population
from copl.adapt.support import match, nothing_said
from copl.graph.build import build_graph, with_levels
from copl.graph.parts import compared_responses
from copl.graph.store import MEMORY_FILE, load_embeddings, load_memory, save_embeddings
from copl.graph.texts import WIDTH, TextCodes, with_texts
from copl.graph.training import ComparisonTensors, Judgement
from copl.interfaces import AdaptationStrategy, FormerRun, OnlineUser, Workspace
from copl.methods.parts.gate_view import GateView
from copl.methods.parts.vectors import vectors_of
from copl.options import NoOptions
from copl.records import (
    AdaptedUsers,
    Comparisons,
    ComparisonSet,
    FloatArray,
    NodeEmbeddings,
    PreferenceData,
    PreferenceGraph,
    ResponseTable,
    ScoreRequests,
    UserTable,
)
from copl.records.evidence import LEVEL_KEYS
from copl.records.explanation import Explanation
from copl.runs.recipe import Stages

if TYPE_CHECKING:
    from copl.adapt.support import MatchedSupport
    from copl.reward.reading.reader import TextReader

STAGE = "graph"


@final
class UserSpace:
    """Embeddings of seen users and of responses, and the strategy that places newcomers among them.

    Every response has an embedding: of what comparisons say where it was compared, of its text where somebody reads
    texts, and of both where it was compared seldom. The score of a response for a user is e_u . e_r + b_r.

    Args:
        trained: the embeddings.
        strategy: places newcomers.
        view: what gates and heads see of users.
        reader: reads texts that are not among the trained; None for a method without texts.
    """

    def __init__(
        self, trained: NodeEmbeddings, strategy: AdaptationStrategy, view: GateView, reader: TextReader | None
    ) -> None:
        self.trained = trained
        self.view = view
        self._strategy = strategy if trained.places_newcomers else Population(NoOptions())
        self._reader = reader

    @classmethod
    def key(
        cls,
        data: PreferenceData,
        stages: Stages,
        reader: TextReader | None,
        seed: int,
        former: FormerRun | None = None,
    ) -> Mapping[str, Any]:
        """Return what the embeddings depend on; `former`: the run whose embeddings were gone on from."""
        key = {"data": data.digest("train", "validation"), "seed": seed, **stages.key("encoder")}
        if former is not None:
            key["former"] = former.key
        return key if reader is None else {**key, "features": reader.key}

    @classmethod
    def fit(
        cls,
        data: PreferenceData,
        stages: Stages,
        reader: TextReader | None,
        *,
        seed: int,
        workspace: Workspace,
        former: FormerRun | None = None,
    ) -> UserSpace:
        """Learn the embeddings, or take them from the workspace.

        Args:
            data: splits ``train`` and ``validation`` are used, and the texts of all.
            stages: the recipe's parts; ``encoder`` and ``adapter`` are used.
            reader: gives the features of texts; None for a method without texts.
            seed: the same seed gives the same embeddings.
            workspace: where the result is kept.
            former: a run to go on from, if its encoder can (`remembered`).
        """
        place = None if former is None else remembered(former, stages)

        def compute(directory: Path) -> None:
            before = None if place is None else load_memory(place, load_embeddings(place))
            graph, embeddings = encoded(data, stages, reader, seed, workspace, before)
            if reader is not None and embeddings.text_map is None:
                embeddings = _carried_over(embeddings, data, reader, graph.validation)
            save_embeddings(embeddings, directory)
            (GateView.of(embeddings) if place is None else GateView.load(place)).save(directory)

        key = cls.key(data, stages, reader, seed, former if place is not None else None)
        return cls._open(workspace.stage(STAGE, key=key, compute=compute), stages, reader)

    @classmethod
    def load(cls, directory: Path, stages: Stages, reader: TextReader | None) -> UserSpace:
        """Read the embeddings of a run directory.

        Raises:
            RunError: a file is missing or damaged.
        """
        return cls._open(directory / STAGE, stages, reader)

    @classmethod
    def _open(cls, directory: Path, stages: Stages, reader: TextReader | None) -> UserSpace:
        return cls(load_embeddings(directory), stages.adapter(), GateView.load(directory), reader)

    def true_groups(self, data: PreferenceData) -> tuple[str | None, ...]:
        """Return the true group of each seen user, None where the data does not say."""
        rows = data.users.rows
        return tuple(data.users.groups[rows[user]] if user in rows else None for user in self.trained.user_ids)

    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        """Find embeddings for the users of `support`; a seen user's training comparisons count as well."""
        return self._strategy.adapt(self._read(support), self.trained)

    def read_ahead(self, responses: ResponseTable) -> None:
        """Read texts that are new all at once; as many as are remembered, the first ones."""
        if self._reader is not None and self.trained.text_map is not None:
            self._reader.features(responses, np.arange(min(len(responses), self._reader.texts_at_once)))

    def online(self, user_id: str, weigh: Callable[[ComparisonSet], ComparisonSet]) -> OnlineUser:
        """Follow a user, seen or not, who says one thing after another.

        Args:
            user_id: the user's id.
            weigh: returns what was said with the weight that each part has by now.
        """
        return RunningEstimate(user_id, self.trained, self._strategy, self._read, weigh)

    def heard(self, user: str, support: ComparisonSet | None) -> tuple[MatchedSupport, AdaptedUsers | None]:
        """Return what a user has said, in training and since, and the user adapted to it, where that is needed.

        Args:
            user: the user's id.
            support: what users have said since training; what others say is left aside.
        """
        own = None if support is None else support.of_user(user)
        if own is None or own.says_nothing:
            return match(nothing_said(UserTable.ungrouped([user])), self.trained), None
        said = self._read(own)
        return match(said, self.trained), self._strategy.adapt(said, self.trained)

    def explain(
        self, user: str, responses: ResponseTable, heard: MatchedSupport, adapted: AdaptedUsers | None
    ) -> Explanation:
        """Say why a user prefers the first of two responses, or why the one there is scores as it does.

        Args:
            user: the user's id.
            responses: one or two responses.
            heard: what the user has said, see `heard`.
            adapted: the user adapted to it; None where nothing was said since training.
        """
        users, rows = UserTable.ungrouped([user]), np.arange(len(responses))
        table = self._responses(ScoreRequests(users, responses, np.zeros_like(rows), rows), rows)
        difference = table[0] - table[1] if len(responses) > 1 else table[0]
        return explain(user, heard, self.trained, self.vectors(users, adapted)[0], difference)

    def vectors(self, users: UserTable, adapted: AdaptedUsers | None) -> Tensor:
        """Return the embedding of each user [U, D]: adapted, else trained, else the mean of the trained ones."""
        trained = self.trained
        mean = trained.users.mean(dim=0) if len(trained.users) else torch.zeros(trained.dim)
        since = () if adapted is None else ((adapted.user_rows, adapted.embeddings),)
        return vectors_of(users, mean, (trained.user_rows, trained.users), *since)

    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None) -> FloatArray:
        """Return the score of each request [N], less that of the average response of the training comparisons.

        A response of which nothing is known, neither comparisons nor text, is that average one.
        """
        used, place = np.unique(requests.response, return_inverse=True)
        responses = self._responses(requests, used)
        users = self.vectors(requests.users, adapted).double()
        user, response = torch.from_numpy(requests.user), torch.from_numpy(place)
        scores = torch.empty(len(user), dtype=torch.float64)
        for start in range(0, len(user), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            rows = responses[response[part]]
            scores[part] = (users[user[part]] * rows[:, :-1]).sum(dim=1) + rows[:, -1]
        return scores.numpy()

    def _responses(self, requests: ScoreRequests, used: np.ndarray[Any, Any]) -> Tensor:
        """Return embeddings and biases [n, D + 1] of the responses at rows `used`, less those of the average one."""
        trained, keys = self.trained, requests.responses.keys
        rows = np.array([trained.response_rows.get(keys[row], -1) for row in used.tolist()], dtype=np.int64)
        table = self._average.repeat(len(used), 1)
        known = torch.from_numpy(np.flatnonzero(rows >= 0))
        own = torch.from_numpy(rows[rows >= 0])
        table[known, :-1] = trained.responses[own].double()
        table[known, -1] = trained.response_bias[own].double()
        if self._reader is not None and trained.text_map is not None and (rows < 0).any():
            features = self._reader.features(requests.responses, used[rows < 0])
            table[torch.from_numpy(rows < 0)] = trained.text_map(features).double()
        return table - self._average

    def _read(self, comparisons: ComparisonSet) -> ComparisonSet:
        """Return comparisons with the features of the texts that are not among the trained ones."""
        if self._reader is None or self.trained.text_map is None:
            return comparisons
        rows = comparisons.comparisons
        judged = comparisons.judgements
        ends = np.concatenate([rows.chosen, rows.rejected])[np.tile(rows.weight > 0, 2)]
        used = np.unique(np.concatenate([ends, judged.response, judged.other[judged.is_of_two]]))
        keys = comparisons.responses.keys
        unknown = np.array([row for row in used.tolist() if keys[row] not in self.trained.response_rows], np.int64)
        features = torch.zeros(len(comparisons.responses), self.trained.text_map.num_features)
        if len(unknown):
            features[torch.from_numpy(unknown)] = self._reader.features(comparisons.responses, unknown)
        return attrs.evolve(comparisons, features=features)

    @cached_property
    def _average(self) -> Tensor:
        """Embedding and bias of the average response, each counted as often as it was compared [D + 1]."""
        trained = self.trained
        compared = np.concatenate([trained.comparisons.chosen, trained.comparisons.rejected])
        counts = torch.from_numpy(np.bincount(compared, minlength=len(trained.response_keys))).float()
        share = counts / counts.sum().clamp_min(1.0)
        return torch.cat([share @ trained.responses, (share @ trained.response_bias)[None]]).double()


_AT_ONCE = 65_536


def remembered(former: FormerRun, stages: Stages) -> Path | None:
    """Return where a former run keeps embeddings that its encoder can go on from; None, and why is told, if nowhere."""
    encoder = stages.encoder()
    place = former.stage(STAGE)
    name = stages.parts["encoder"].name
    if not encoder.continues:
        former.tell(STAGE, f"encoder {name!r} does not go on from what it has learnt")
    elif place is None or not (place / MEMORY_FILE).is_file():
        former.tell(STAGE, f"encoder {name!r} has left nothing to go on from in the former run")
    else:
        former.tell(STAGE, "continued")
        return place
    return None


def encoded(
    data: PreferenceData,
    stages: Stages,
    reader: TextReader | None,
    seed: int,
    workspace: Workspace,
    former: NodeEmbeddings | None = None,
) -> tuple[PreferenceGraph, NodeEmbeddings]:
    """Return the graph of a data set and what the encoder learns from it, from former embeddings on where given."""
    encoder = stages.encoder()
    features = None
    if reader is not None and encoder.reads_texts:
        features = reader.features(data.responses, np.arange(len(data.responses)))
    graph, progress = build_graph(data, response_features=features), workspace.progress
    if former is None:
        return graph, encoder.fit(graph, seed=seed, progress=progress)
    return graph, encoder.fit_from(graph, former, seed=seed, progress=progress)


def _carried_over(
    embeddings: NodeEmbeddings, data: PreferenceData, reader: TextReader, validation: Comparisons
) -> NodeEmbeddings:
    """Return the embeddings of an encoder that has not read texts, carried over to any text."""
    keys = [key for key in embeddings.response_keys if key not in LEVEL_KEYS]
    rows = np.array([data.responses.rows[key] for key in keys], dtype=np.int64)
    features = with_levels(reader.features(data.responses, rows), len(embeddings.response_keys) - len(keys))
    compared = torch.from_numpy(compared_responses(embeddings.comparisons))
    codes = TextCodes.fit(features, compared, WIDTH)
    judge = ComparisonTensors.of(validation)

    def loss(candidate: NodeEmbeddings) -> float:
        return Judgement.of_embeddings(judge, candidate).loss

    return with_texts(embeddings, codes, loss if len(validation) else None)
