"""Encoder ``gcf``: CoPL's graph collaborative filtering on the signed preference graph."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, final

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copl.graph.adjacency import SignedAdjacency, SignedEdges
from copl.graph.layers import Formula, SignedLayer, SignedNetwork
from copl.graph.spectral import signed_incidence, truncated_svd
from copl.graph.training import (
    BestState,
    ComparisonTensors,
    learnable,
    node_embeddings,
    require_finite,
    trivial_embeddings,
)
from copl.interfaces import GraphEncoder, Progress
from copl.options import option
from copl.plugins import Component
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph

STAGE = "graph"

_positive = attrs.validators.gt(0)
_at_least_one = attrs.validators.ge(1)
_not_negative = attrs.validators.ge(0)
_share = attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.lt(1.0))


@final
@attrs.frozen
class GcfOptions:
    embedding_dim: int = option(32, help="embedding dimension D", validator=_at_least_one)
    num_layers: int = option(2, help="number of message-passing layers", validator=_at_least_one)
    formula: Formula = option("released", help="layers as in the paper, or as in the released code")
    weights: Literal["shared", "separate"] = option(
        "shared", help="one set of weights for users and responses, or one each"
    )
    negative_edges: bool = option(True, help="pass messages over rejected edges too")
    hadamard: bool = option(True, help="keep the terms with the elementwise product of message and node")
    start: Literal["spectral", "xavier"] = option(
        "spectral", help="embeddings before training: leading singular vectors of the signed incidence, or random"
    )
    start_rank: int = option(4, help="number of singular vectors of the spectral start", validator=_at_least_one)
    response_bias: bool = option(True, help="learn what all users share about a response")
    supervision_share: float = option(
        0.3,
        help="share of the comparisons drawn each step as supervision and taken out of the message graph; 0 supervises "
        "by all comparisons while they are edges, as published",
        validator=_share,
    )
    edge_dropout: float = option(0.0, help="share of edges dropped at random in training", validator=_share)
    learning_rate: float = option(1e-2, help="learning rate of AdamW", validator=_positive)
    weight_decay: float = option(1e-2, help="weight decay of AdamW", validator=_not_negative)
    l2: float = option(
        1e-6, help="weight of the squared embeddings of each comparison in the loss", validator=_not_negative
    )
    schedule: Literal["constant", "cosine"] = option(
        "constant", help="learning rate over time; cosine is warmed up over the first tenth"
    )
    batch_size: int | None = option(
        None,
        help="comparisons per step, each with full propagation; none takes all",
        validator=attrs.validators.optional(_at_least_one),
    )
    num_epochs: int = option(200, help="passes over the comparisons at most", validator=_at_least_one)
    patience: int | None = option(
        30,
        help="epochs without a better validation loss before stopping; none never stops",
        validator=attrs.validators.optional(_at_least_one),
    )
    normalize_users: bool = option(False, help="scale each user's embedding to length 1 in the end, as published")


PAPER = {
    "embedding_dim": 512,
    "num_layers": 4,
    "formula": "released",
    "weights": "shared",
    "start": "xavier",
    "response_bias": False,
    "supervision_share": 0.0,
    "edge_dropout": 0.1,
    "learning_rate": 1e-4,
    "weight_decay": 1e-2,
    "l2": 1e-6,
    "schedule": "cosine",
    "batch_size": 1024,
    "num_epochs": 100,
    "patience": None,
    "normalize_users": True,
}
"""The published settings."""


@final
class Gcf(GraphEncoder):
    """Trains a `SignedNetwork` by the Bradley-Terry loss (BPR) and keeps the epoch with the best validation loss.

    Propagation is always over the whole graph. Comparisons that supervise a step can be taken out of the graph they are
    read from (`supervision_share`): an edge must not answer for itself.
    """

    def __init__(self, options: GcfOptions) -> None:
        self._options = options

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the embeddings.

        Raises:
            TrainingError: the loss is no finite number; a lower learning rate mends it.
        """
        options = self._options
        train, validation = learnable(graph, seed)
        if not len(train):
            return trivial_embeddings(graph, options.embedding_dim)
        network = self._network(train, graph, seed)
        users, responses = _Trainer(network, train, validation, options, seed).run(progress)
        if options.normalize_users:
            users = F.normalize(users)
        return node_embeddings(graph, users, responses, network.response_bias)

    def _network(self, train: Comparisons, graph: PreferenceGraph, seed: int) -> SignedNetwork:
        options = self._options
        generator = torch.Generator().manual_seed(seed)
        sizes = graph.num_users, graph.num_responses
        if options.start == "spectral":
            users, responses = _spectral_start(train, *sizes, options, seed)
        else:
            users, responses = (
                nn.init.xavier_uniform_(torch.empty(size, options.embedding_dim), generator=generator) for size in sizes
            )
        with torch.random.fork_rng(devices=[]):  # layers draw from the global state when they are made
            layers = [
                SignedLayer(
                    options.embedding_dim,
                    formula=options.formula,
                    weights=options.weights,
                    hadamard=options.hadamard,
                    negative_edges=options.negative_edges,
                )
                for _ in range(options.num_layers)
            ]
        for layer in layers:
            for module in layer.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight, generator=generator)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        return SignedNetwork(users, responses, layers, bias=options.response_bias)


def _spectral_start(
    train: Comparisons, num_users: int, num_responses: int, options: GcfOptions, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the leading singular vectors, scaled by their values to unit size, with small noise in all columns."""
    rng = np.random.default_rng(seed)
    rank = min(options.start_rank, options.embedding_dim)
    left, values, right = truncated_svd(signed_incidence(train, num_users, num_responses), rank, rng)
    scale = 0.3 * values / max(values.max(initial=0.0), 1e-12)
    tables = []
    for vectors in (left, right):
        size = max(float(np.sqrt(np.mean(vectors**2))), 1e-12)
        table = 0.02 * rng.normal(size=(len(vectors), options.embedding_dim))
        table[:, :rank] += vectors / size * scale
        tables.append(torch.from_numpy(table).float())
    return tables[0], tables[1]


@final
class _Trainer:
    """One fit of a network."""

    def __init__(
        self, network: SignedNetwork, train: Comparisons, validation: Comparisons, options: GcfOptions, seed: int
    ) -> None:
        self._network = network
        self._options = options
        self._generator = torch.Generator().manual_seed(seed + 1)
        self._train = ComparisonTensors.of(train)
        self._validation = ComparisonTensors.of(validation)
        self._edges = SignedEdges(train, len(network.users), len(network.responses))
        self._full = self._edges.adjacency(self._train.weight)
        parameters = [p for p in network.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate)

    @property
    def _steps_per_epoch(self) -> int:
        size = self._options.batch_size or len(self._train)
        return math.ceil(len(self._train) / size)

    def _rate(self, step: int) -> float:
        if self._options.schedule == "constant":
            return 1.0
        total = self._options.num_epochs * self._steps_per_epoch
        warm = max(total // 10, 1)
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))

    def run(self, progress: Progress) -> tuple[Tensor, Tensor]:
        """Train and return the embeddings of users and responses of the best epoch; leaves the network there."""
        best = BestState(self._options.patience)
        with progress.task("graph encoder gcf", total=self._options.num_epochs) as task:
            for epoch in range(self._options.num_epochs):
                loss = sum(self._step(rows, adjacency) for rows, adjacency in self._batches()) / self._steps_per_epoch
                require_finite([torch.tensor(loss)], "the loss")
                stop_by, accuracy = self._validate()
                stop_by = loss if stop_by is None else stop_by
                task.advance(loss=loss, validation_accuracy=accuracy)
                progress.log(STAGE, epoch=epoch + 1, loss=loss, validation_loss=stop_by, validation_accuracy=accuracy)
                if not best.offer(stop_by, self._network.state_dict()):
                    break
        self._network.load_state_dict(dict(best.tensors))
        with torch.no_grad():
            users, responses = self._network(self._full)
        return users, responses

    def _batches(self) -> Iterator[tuple[Tensor, SignedAdjacency]]:
        """Yield the rows that supervise each step of an epoch, with the adjacency they are read from."""
        order = torch.randperm(len(self._train), generator=self._generator)
        for rows in order.split(self._options.batch_size or len(order)):
            if not self._options.supervision_share:
                yield rows, self._dropped(self._train.weight)
                continue
            if self._options.batch_size is None:
                drawn = torch.rand(len(rows), generator=self._generator) < self._options.supervision_share
                rows = rows[drawn] if drawn.any() else rows[:1]
            weight = self._train.weight.clone()
            weight[rows] = 0
            yield rows, self._dropped(weight)

    def _dropped(self, weight: Tensor) -> SignedAdjacency:
        """Return the adjacency for these comparison weights, with edges dropped after normalising and scaled up."""
        share = self._options.edge_dropout
        if not share:
            return self._full if weight is self._train.weight else self._edges.adjacency(weight)
        matrices = []
        for pattern in (self._edges.chosen, self._edges.rejected):
            values = pattern.normalise(pattern.sum_weights(weight))
            keep = torch.rand(len(values), generator=self._generator) >= share
            matrices.append(pattern.matrix(values * keep / (1 - share)))
        return SignedAdjacency(*matrices)

    def _step(self, rows: Tensor, adjacency: SignedAdjacency) -> float:
        users, responses = self._network(adjacency)
        batch = self._train.take(rows)
        loss = batch.loss(batch.margins(users, responses, self._network.response_bias))
        penalty = self._options.l2 * batch.squared_norms(users, responses)
        self._optimizer.zero_grad()
        (loss + penalty).backward()
        self._optimizer.step()
        self._scheduler.step()
        return float(loss.detach())

    def _validate(self) -> tuple[float | None, float]:
        """Return loss and accuracy on the validation comparisons; without any, None and 0.5."""
        if not len(self._validation):
            return None, 0.5
        with torch.no_grad():
            margins = self._validation.margins(*self._network(self._full), self._network.response_bias)
            return float(self._validation.loss(margins)), float((margins > 0).float().mean())


COMPONENTS = [
    Component(
        name="gcf",
        options=GcfOptions,
        build=Gcf,
        summary="CoPL's graph collaborative filtering: signed message passing between users and responses",
        reference="CoPL, arXiv 2503.01658",
        presets={"paper": PAPER},
    )
]
