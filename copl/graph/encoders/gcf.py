"""Encoder ``gcf``: CoPL's graph collaborative filtering on the signed preference graph."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, final

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copl.graph.effects import best_scale
from copl.graph.encoders.mf import Mf, MfOptions
from copl.graph.messages.adjacency import SignedAdjacency, SignedEdges
from copl.graph.messages.layers import NEGATIVE_SLOPE, Formula, SignedLayer, SignedNetwork
from copl.graph.messages.receptive_field import ReceptiveField
from copl.graph.newcomers import normal_prior, plain, response_degrees, with_pass
from copl.graph.starts import signed_incidence, truncated_svd
from copl.graph.training import (
    BestState,
    ComparisonTensors,
    Judgement,
    learnable,
    node_embeddings,
    require_finite,
    trivial_embeddings,
)
from copl.interfaces import GraphEncoder, Progress
from copl.options import option
from copl.passes import SignedPass
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
    embedding_dim: int = option(16, help="embedding dimension D", validator=_at_least_one)
    num_layers: int = option(2, help="number of message-passing layers", validator=_at_least_one)
    formula: Formula = option("released", help="layers as in the paper, or as in the released code")
    weights: Literal["shared", "separate"] = option(
        "shared", help="one set of weights for users and responses, or one each"
    )
    negative_edges: bool = option(True, help="pass messages over rejected edges too")
    hadamard: bool = option(True, help="keep the terms with the elementwise product of message and node")
    start: Literal["mf", "spectral", "xavier"] = option(
        "mf",
        help="before training: embeddings of the encoder mf, which then competes on validation, or singular vectors "
        "of the signed incidence, either with layers that add chosen and subtract rejected neighbours; or everything "
        "random, as published",
    )
    response_bias: bool = option(True, help="learn what all users share about a response")
    supervision_share: float = option(
        0.5,
        help="share of the comparisons drawn each step as supervision and taken out of the message graph; 0 supervises "
        "by all comparisons while they are edges, as published",
        validator=_share,
    )
    edge_dropout: float = option(0.0, help="share of edges dropped at random in training", validator=_share)
    learning_rate: float = option(1e-2, help="learning rate of AdamW", validator=_positive)
    weight_decay: float = option(3.0, help="weight decay of AdamW; response effects have none", validator=_not_negative)
    precision: float = option(
        10.0, help="prior precision of the embeddings before the first layer", validator=_not_negative
    )
    bias_precision: float = option(0.5, help="prior precision of the response effects", validator=_not_negative)
    l2: float = option(
        0.0,
        help="weight of the squared embeddings of each comparison in the loss, as published",
        validator=_not_negative,
    )
    schedule: Literal["constant", "cosine"] = option(
        "constant", help="learning rate over time; cosine is warmed up over the first tenth"
    )
    batch_size: int | None = option(
        None,
        help="comparisons per step, each step with propagation anew; none takes all",
        validator=attrs.validators.optional(_at_least_one),
    )
    whole_graph: bool = option(
        False,
        help="propagate over the whole graph for each batch, as published; the result is the same",
    )
    num_epochs: int = option(200, help="passes over the comparisons at most", validator=_at_least_one)
    validate_every: int = option(5, help="epochs from one validation to the next", validator=_at_least_one)
    patience: int | None = option(
        8,
        help="validations without a lower loss before stopping; none never stops",
        validator=attrs.validators.optional(_at_least_one),
    )
    normalize_users: bool = option(
        False, help="scale each user's embedding to length 1 in the end, as published; needs response_bias = false"
    )

    def __attrs_post_init__(self) -> None:
        if self.normalize_users and self.response_bias:
            raise ValueError("normalize_users needs response_bias = false: the margin would lose its proportions")


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
    "precision": 0.0,
    "l2": 1e-6,
    "schedule": "cosine",
    "batch_size": 1024,
    "num_epochs": 100,
    "validate_every": 1,
    "patience": None,
    "normalize_users": True,
}
"""The published settings."""


@final
class Gcf(GraphEncoder):
    """Trains a `SignedNetwork` by the Bradley-Terry loss (BPR) and keeps the epoch with the best validation loss.

    Propagation is over the whole graph, or over all of it that reaches a batch. Comparisons that supervise a step can
    be taken out of the graph they are read from (`supervision_share`): an edge must not answer for itself.

    Args:
        options: the settings.
        factors: what the encoder mf has found in the same graph, where it has run already; for ``start = "mf"``.
    """

    def __init__(self, options: GcfOptions, factors: NodeEmbeddings | None = None) -> None:
        self._options = options
        self._factors = factors

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the embeddings.

        Raises:
            TrainingError: the loss is no finite number; a lower learning rate mends it.
        """
        options = self._options
        train, validation = learnable(graph, seed)
        if not len(train):
            return trivial_embeddings(graph, options.embedding_dim)
        factors = self._factors
        if options.start == "mf" and factors is None:
            encoder = Mf(MfOptions(embedding_dim=options.embedding_dim))
            factors = encoder.fit(
                attrs.evolve(graph, comparisons=train, validation=validation), seed=seed, progress=progress
            )
        network = self._network(train, graph, factors, seed)
        trainer = _Trainer(network, train, validation, options, seed)
        users, responses, bias, scale = trainer.run(progress)
        if factors is not None and not options.normalize_users:
            # message passing may add nothing to the factors it started from; the held-out comparisons decide
            held = ComparisonTensors.of(validation if len(validation) else train)
            refined = Judgement.of(held, held.margins(users, responses, bias))
            unrefined = Judgement.of(held, held.margins(factors.users, factors.responses, factors.response_bias))
            if unrefined.loss < refined.loss:
                tables = factors.users, factors.responses, factors.response_bias
                return attrs.evolve(node_embeddings(graph, *tables), newcomer_pass=factors.newcomer_pass)
        if options.normalize_users:
            users = F.normalize(users)
        newcomer_pass = trainer.newcomer_pass(scale, plain(response_degrees(train, graph.num_responses)))
        newcomer_pass = attrs.evolve(newcomer_pass, power=1 / float(train.weight.mean()))
        return with_pass(node_embeddings(graph, users, responses, bias), newcomer_pass)

    def _network(
        self, train: Comparisons, graph: PreferenceGraph, factors: NodeEmbeddings | None, seed: int
    ) -> SignedNetwork:
        options = self._options
        generator = torch.Generator().manual_seed(seed)
        sizes = graph.num_users, graph.num_responses
        if factors is not None:
            users, responses = _of_equal_size(factors)
        elif options.start == "spectral":
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
            layer.start(generator if options.start == "xavier" else None)
        return SignedNetwork(users, responses, layers, bias=options.response_bias)


def _of_equal_size(factors: NodeEmbeddings) -> tuple[Tensor, Tensor]:
    """Return the factors with users and responses scaled to a mean length of 1.2."""
    users, responses = (
        table * 1.2 / table.square().sum(dim=1).mean().sqrt().clamp_min(1e-6)
        for table in (factors.users, factors.responses)
    )
    return users, responses


def _spectral_start(
    train: Comparisons, num_users: int, num_responses: int, options: GcfOptions, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the leading singular vectors, scaled by the roots of their values, with a little noise."""
    rng = np.random.default_rng(seed)
    left, values, right = truncated_svd(signed_incidence(train, num_users, num_responses), options.embedding_dim, rng)
    users, responses = (
        torch.from_numpy(vectors * np.sqrt(values * len(vectors)) * 0.3 + 0.02 * rng.normal(size=vectors.shape)).float()
        for vectors in (left, right)
    )
    return users, responses


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
        # where nothing could be held out, the training comparisons have to do
        self._validation = ComparisonTensors.of(validation if len(validation) else train)
        self._edges = SignedEdges(train, len(network.users), len(network.responses))
        self._full = self._edges.adjacency(self._train.weight)
        bias = network.response_bias
        decayed = [p for p in network.parameters() if p is not bias]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": [bias], "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay)
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

    def run(self, progress: Progress) -> tuple[Tensor, Tensor, Tensor, float]:
        """Train and return the embeddings of users and responses and the response effects of the best epoch.

        Users and effects are scaled so that margins are log odds on the validation comparisons; the last value returned
        is that scale.
        """
        options = self._options
        best = BestState(options.patience)
        with progress.task("graph encoder gcf", total=options.num_epochs) as task:
            for epoch in range(1, options.num_epochs + 1):
                loss = sum(self._step(rows, adjacency) for rows, adjacency in self._batches()) / self._steps_per_epoch
                require_finite([torch.tensor(loss)], "the loss")
                task.advance(loss=loss)
                if epoch % options.validate_every and epoch < options.num_epochs:
                    continue
                judgement = self._validate()
                task.advance(0, validation_accuracy=judgement.accuracy)
                progress.log(
                    STAGE,
                    epoch=epoch,
                    loss=loss,
                    validation_loss=judgement.loss,
                    validation_accuracy=judgement.accuracy,
                )
                if not best.offer(judgement, self._network.state_dict()):
                    break
        self._network.load_state_dict(dict(best.tensors))
        with torch.no_grad():
            users, responses = self._network(self._full)
            return users * best.scale, responses, self._network.response_bias * best.scale, best.scale

    @torch.no_grad()
    def newcomer_pass(self, scale: float, degrees: Tensor) -> SignedPass:
        """Return the pass of the layers, after training.

        Seen users start with an embedding of their own. A newcomer's comes from the same comparisons as the messages,
        by the responses before the first layer, which are scaled so that they go best with the response effects.

        Args:
            scale: the scale of the margins.
            degrees: degrees of the responses [2, R].
        """
        network, held = self._network, self._validation
        bias = network.response_bias * scale
        personal, shared = (
            held.margins(users, network.responses, effects).double().numpy()
            for users, effects in ((network.users, 0 * bias), (0 * network.users, bias))
        )
        sharpness, _ = best_scale(personal, shared, held.weight.double().numpy())
        start, factor = normal_prior(network.users)
        normalised = self._options.normalize_users
        return SignedPass(
            plain(start),
            plain(factor),
            degrees,
            network.newcomer(self._full),
            start_sharpness=sharpness,
            slope=NEGATIVE_SLOPE,
            scale=1.0 if normalised else scale,
            length=1.0 if normalised else None,
        )

    def _batches(self) -> Iterator[tuple[Tensor, SignedAdjacency]]:
        """Yield the rows that supervise each step of an epoch, with the adjacency they are read from."""
        order = torch.randperm(len(self._train), generator=self._generator)
        for rows in torch.split(order, self._options.batch_size or len(order)):
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
        batch = self._train.take(rows)
        bias: Tensor = self._network.response_bias
        if self._options.batch_size is None or self._options.whole_graph:
            users, responses = self._network(adjacency)
        else:
            field = ReceptiveField.of(batch, adjacency, len(self._network.layers))
            users, responses = self._network.within(field)
            batch, bias = field.batch, bias.index_select(0, field.responses_seen)
        loss = batch.loss(batch.margins(users, responses, bias))
        penalty = self._options.l2 * batch.squared_norms(users, responses) + self._prior()
        self._optimizer.zero_grad()
        (loss + penalty).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._optimizer.step()
        self._scheduler.step()
        return float(loss.detach())

    def _prior(self) -> Tensor:
        """Return the negative log density of the Gaussian priors, per comparison."""
        network, options = self._network, self._options
        tables = network.users.square().sum() + network.responses.square().sum()
        bias = network.response_bias.square().sum()
        return (options.precision * tables + options.bias_precision * bias) / (2 * len(self._train))

    def _validate(self) -> Judgement:
        with torch.no_grad():
            users, responses = self._network(self._full)
            margins = self._validation.margins(users, responses, self._network.response_bias)
            return Judgement.of(self._validation, margins)


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
