"""Encoders that pass messages over the preference graph: what they share, so that each is its layers and little else.

An encoder of this kind is an options class that adds to `MessagePassingOptions`, a network that derives from
`MessagePassingNetwork`, and a component that joins the two with `MessagePassingEncoder`; `copl.graph.encoders.lightgcn`
is the shortest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar, final

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from copl.errors import DataError
from copl.graph.messages.batches import Batch, neighbourhoods, user_parts, whole_graph
from copl.graph.messages.geometric import require_pyg_lib
from copl.graph.messages.message_graph import MessageGraph, SignedEdgeIndex
from copl.graph.messages.node_table import NodeTable
from copl.graph.newcomers import plain, response_degrees, with_pass
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
from copl.passes import LayerPass, SignedPass
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph

STAGE = "graph"

_positive = attrs.validators.gt(0)
_at_least_one = attrs.validators.ge(1)
_not_negative = attrs.validators.ge(0)
_share = attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.lt(1.0))


@attrs.frozen
class MessagePassingOptions:
    """Options of every encoder that passes messages."""

    embedding_dim: int = option(16, help="embedding dimension D before the first layer", validator=_at_least_one)
    num_layers: int = option(2, help="number of message-passing layers", validator=_at_least_one)
    start: Literal["spectral", "random"] = option(
        "spectral", help="embeddings before training: singular vectors of the signed incidence, or random"
    )
    response_bias: bool = option(True, help="learn what all users share about a response")
    response_features: bool = option(
        False, help="add a learned linear map of the responses' text embeddings to their free embeddings"
    )
    supervision_share: float = option(
        0.5,
        help="share of the comparisons drawn each step as supervision and taken out of the message graph; 0 supervises "
        "by all comparisons while they are edges",
        validator=_share,
    )
    learning_rate: float = option(1e-2, help="learning rate of Adam", validator=_positive)
    weight_decay: float = option(0.01, help="decoupled weight decay of the layers", validator=_not_negative)
    precision: float = option(
        1.0, help="prior precision of the embeddings before the first layer", validator=_not_negative
    )
    bias_precision: float = option(0.5, help="prior precision of the response effects", validator=_not_negative)
    num_steps: int = option(300, help="training steps at most", validator=_at_least_one)
    validate_every: int = option(5, help="steps from one validation to the next", validator=_at_least_one)
    patience: int = option(10, help="validations without a lower loss before stopping", validator=_at_least_one)
    sampling: Literal["full", "users", "neighbours"] = option(
        "full",
        help="what a step sees: the whole graph; the graph of some users; or, with pyg-lib installed, sampled "
        "neighbours of some comparisons",
    )
    batch_size: int = option(
        4096, help="comparisons that supervise a step, where it does not see the whole graph", validator=_at_least_one
    )
    num_neighbours: int = option(
        15,
        help="neighbours drawn for each node, sign and layer with sampling = neighbours; -1 takes all",
        validator=attrs.validators.and_(attrs.validators.ge(-1), attrs.validators.not_(attrs.validators.in_([0]))),
    )


O = TypeVar("O", bound=MessagePassingOptions)  # noqa: E741  # options


class MessagePassingNetwork(nn.Module, ABC):
    """The layers of an encoder.

    Attributes:
        dim: width of what `forward` returns.
        slope: slope of the LeakyReLU after each of the layers that `newcomer` returns.
    """

    dim: int
    slope: float = 0.2

    @abstractmethod
    def forward(self, nodes: Tensor, edges: SignedEdgeIndex) -> Tensor:
        """Return the embeddings [n, dim] of users and responses.

        Args:
            nodes: the embeddings before the first layer, users first [n, D].
            edges: the edges among these nodes.
        """

    def newcomer(self, nodes: Tensor, edges: SignedEdgeIndex) -> tuple[LayerPass, ...]:
        """Return what the layers make of a newcomer; nothing where that is no `copl.passes.SignedPass`.

        Args:
            nodes: all nodes before the first layer, users first [U + R, D].
            edges: the edges of the whole graph.
        """
        return ()


@final
class MessagePassingEncoder(GraphEncoder):
    """Trains a network by the Bradley-Terry loss (BPR) and keeps the step with the best validation loss.

    The comparisons that supervise a step are taken out of the graph they are read from: an edge must not answer for
    itself. Validation and the final embeddings come from the whole graph, without gradients.

    Args:
        name: name of the encoder, for progress and messages.
        options: its options.
        network: makes the layers; called with the options when training begins.

    Raises:
        OptionsError: the options ask for sampled neighbours and pyg-lib is not here.
    """

    def __init__(self, name: str, options: O, network: Callable[[O], MessagePassingNetwork]) -> None:
        if options.sampling == "neighbours":
            require_pyg_lib(f"encoder.{name}: sampling = neighbours")
        self._name = name
        self._options: MessagePassingOptions = options
        self._network: Callable[[], MessagePassingNetwork] = lambda: network(options)

    @property
    def reads_texts(self) -> bool:
        return self._options.response_features

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the embeddings.

        Raises:
            DataError: the options ask for response features and the graph has none.
            TrainingError: the loss is no finite number; a lower learning rate mends it.
        """
        if self._options.response_features and graph.response_features is None:
            raise DataError(f"encoder.{self._name}: response_features is on, but the graph was built without features")
        train, validation = learnable(graph, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self._network()
            if not len(train):
                return trivial_embeddings(graph, network.dim)
            learnt = attrs.evolve(graph, comparisons=train, validation=validation)
            training = _Training(learnt, network, self._options, seed)
            *tables, scale = training.run(self._name, progress)
            newcomer_pass = training.newcomer_pass(scale)
        return with_pass(node_embeddings(graph, *tables), newcomer_pass)


@final
class _Training:
    """One fit."""

    def __init__(
        self, source: PreferenceGraph, network: MessagePassingNetwork, options: MessagePassingOptions, seed: int
    ) -> None:
        self._options = options
        self._network = network
        self._graph = MessageGraph(source.comparisons, source.num_users, source.num_responses)
        self._whole = self._graph.whole()
        self._degrees = response_degrees(source.comparisons, source.num_responses)
        # where nothing could be held out, the training comparisons have to do
        held = source.validation if len(source.validation) else source.comparisons
        self._validation = ComparisonTensors.of(held)
        self._batches = self._make_batches()
        features = source.response_features if options.response_features else None
        self._table = NodeTable(
            *_start(source, options, seed),
            features,
            bias=options.response_bias,
            sparse=options.sampling != "full",
        )
        self._optimizers = self._make_optimizers()

    def _make_batches(self) -> Iterator[Batch]:
        options = self._options
        if options.sampling == "full":
            return whole_graph(self._graph, options.supervision_share)
        if options.sampling == "users":
            return user_parts(self._graph, options.supervision_share, options.batch_size)
        num_neighbours = [options.num_neighbours] * options.num_layers
        return neighbourhoods(self._graph, options.supervision_share, options.batch_size, num_neighbours)

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        rate, tables = self._options.learning_rate, [*self._table.tables(), self._table.bias]
        layers: list[nn.Parameter] = [*self._network.parameters()]
        if self._table.text is not None:
            layers += self._table.text.parameters()
        trained = [table for table in tables if table.requires_grad]
        # rows outside a part of the graph cost nothing with the sparse kind
        adam: type[Any] = torch.optim.Adam if self._options.sampling == "full" else torch.optim.SparseAdam
        optimizers: list[torch.optim.Optimizer] = [adam(trained, lr=rate)]
        if layers:
            optimizers.append(torch.optim.AdamW(layers, lr=rate, weight_decay=self._options.weight_decay))
        return optimizers

    def run(self, name: str, progress: Progress) -> tuple[Tensor, Tensor, Tensor, float]:
        """Train and return the embeddings of users and responses and the response effects of the best step.

        Users and effects are scaled so that margins are log odds on the validation comparisons; the last value returned
        is that scale.
        """
        options = self._options
        best = BestState(options.patience)
        parts = nn.ModuleDict({"table": self._table, "network": self._network})
        with progress.task(f"graph encoder {name}", total=options.num_steps) as task:
            for step in range(1, options.num_steps + 1):
                loss = self._step(next(self._batches))
                require_finite([torch.tensor(loss)], "the loss")
                task.advance(loss=loss)
                if step % options.validate_every and step < options.num_steps:
                    continue
                judgement = Judgement.of(self._validation, self._validation.margins(*self._embeddings()))
                values = {"validation_loss": judgement.loss, "validation_accuracy": judgement.accuracy}
                progress.log(STAGE, step=step, loss=loss, **values)
                if not best.offer(judgement, parts.state_dict()):
                    break
        parts.load_state_dict(dict(best.tensors))
        users, responses, bias = self._embeddings()
        return users * best.scale, responses, bias * best.scale, best.scale

    @torch.no_grad()
    def newcomer_pass(self, scale: float) -> SignedPass | None:
        """Return the network's pass, after training; a newcomer starts as the mean user."""
        graph = self._graph
        nodes, _ = self._table(torch.arange(graph.num_users), torch.arange(graph.num_responses))
        layers = self._network.newcomer(nodes, self._whole)
        if not layers:
            return None
        start = plain(nodes[: graph.num_users].mean(dim=0))
        nowhere = start.new_zeros(len(start), 0)
        return SignedPass(start, nowhere, plain(self._degrees), layers, slope=self._network.slope, scale=scale)

    @torch.no_grad()
    def _embeddings(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the embeddings of all users and responses and the response effects."""
        graph = self._graph
        self._network.eval()
        nodes, bias = self._table(torch.arange(graph.num_users), torch.arange(graph.num_responses))
        users, responses = self._network(nodes, self._whole).split([graph.num_users, graph.num_responses])
        self._network.train()
        return users, responses, bias

    def _step(self, batch: Batch) -> float:
        sizes = [len(batch.users), len(batch.responses)]
        nodes, bias = self._table(batch.users, batch.responses)
        users, responses = self._network(nodes, batch.edges).split(sizes)
        loss = batch.comparisons.loss(batch.comparisons.margins(users, responses, bias))
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        (loss + self._prior(batch)).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for optimizer in self._optimizers:
            optimizer.step()
        return float(loss.detach())

    def _prior(self, batch: Batch) -> Tensor:
        """Return the negative log density of the Gaussian priors, per comparison; a part stands for the whole."""
        graph, options = self._graph, self._options
        tables, bias = self._table.squares(batch.users, batch.responses)
        part = (len(batch.users) + len(batch.responses)) / (graph.num_users + graph.num_responses)
        squares: Tensor = options.precision * tables + options.bias_precision * bias
        return squares / (2 * len(graph.comparisons) * part)


def _start(graph: PreferenceGraph, options: MessagePassingOptions, seed: int) -> tuple[Tensor, Tensor]:
    """Return the tables before training; a response without comparisons starts, and so stays, at 0."""
    sizes, dim, train = (graph.num_users, graph.num_responses), options.embedding_dim, graph.comparisons
    rng = np.random.default_rng(seed)
    if options.start == "spectral":
        left, values, right = truncated_svd(signed_incidence(train, *sizes), dim, rng)
        tables = [
            side * np.sqrt(values * len(side)) * 0.3 + 0.02 * rng.normal(size=side.shape) for side in (left, right)
        ]
    else:
        tables = [0.1 * rng.normal(size=(size, dim)) for size in sizes]
    users, responses = (torch.from_numpy(table).float() for table in tables)
    responses[torch.from_numpy(_never_compared(train, graph.num_responses))] = 0
    return users, responses


def _never_compared(train: Comparisons, num_responses: int) -> Any:
    return np.bincount(np.concatenate([train.chosen, train.rejected]), minlength=num_responses) == 0
