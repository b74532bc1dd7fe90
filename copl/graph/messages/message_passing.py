"""Encoders that pass messages over the preference graph: what they share, so that each is its layers and little else.

An encoder of this kind is an options class that adds to `MessagePassingOptions`, a network that derives from
`MessagePassingNetwork`, and a component that joins the two with `MessagePassingEncoder`; `copl.graph.encoders.lightgcn`
is the shortest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeVar, final

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copl.errors import DataError
from copl.graph.effects import best_scale
from copl.graph.encoders.catalogue import MfOptions
from copl.graph.encoders.mf import Mf
from copl.graph.going_on import GoesOn
from copl.graph.messages.batches import STRATEGIES, Batch
from copl.graph.messages.geometric import require_pyg_lib
from copl.graph.messages.message_graph import MessageGraph
from copl.graph.messages.network import MessagePassingNetwork
from copl.graph.messages.node_table import NodeTable
from copl.graph.messages.options import MessagePassingOptions
from copl.graph.newcomers import normal_prior, plain, response_degrees, with_pass
from copl.graph.recall import Recall
from copl.graph.starts import random_tables, scaled_factors, spectral_tables
from copl.graph.training import (
    ComparisonTensors,
    Curve,
    Judgement,
    learnable,
    node_embeddings,
    train,
    trivial_embeddings,
)
from copl.interfaces import Progress
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.records.memory import Memory
from copl.records.passes import SignedPass
from copl.system.optimizers import eager

STAGE = "graph"

_SHORTER = 20
_PATIENCE = 2
"""Of training that goes on: a part of the epochs, and validations without a lower loss before it stops."""

O = TypeVar("O", bound=MessagePassingOptions)  # noqa: E741  # options


@final
class MessagePassingEncoder(GoesOn):
    """Trains a network by the Bradley-Terry loss (BPR) and keeps the epoch with the best validation loss.

    The comparisons that supervise a step are taken out of the graph they are read from: an edge must not answer for
    itself. Validation and the final embeddings come from the whole graph, without gradients.

    Args:
        name: name of the encoder, for progress and messages.
        options: its options.
        network: makes the layers; called with the options when training begins.
        factors: what the encoder mf has found in the same graph, where it has run already; for ``start = "mf"``.

    Raises:
        OptionsError: the options ask for sampled neighbours and pyg-lib is not here.
    """

    def __init__(
        self,
        name: str,
        options: O,
        network: Callable[[O], MessagePassingNetwork],
        factors: NodeEmbeddings | None = None,
    ) -> None:
        if options.sampling == "neighbours":
            require_pyg_lib(f"encoder.{name}: sampling = neighbours")
        self._name = name
        self._options: MessagePassingOptions = options
        self._network: Callable[[], MessagePassingNetwork] = lambda: network(options)
        self._factors = factors

    @property
    def reads_texts(self) -> bool:
        return self._options.response_features

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the embeddings.

        Raises:
            DataError: the options ask for response features and the graph has none.
            TrainingError: the loss is no finite number; a lower learning rate mends it.
        """
        learned, validation = learnable(graph, seed)
        return self._fit(graph, learned, validation, None, seed=seed, progress=progress)

    def go_on(self, graph: PreferenceGraph, recall: Recall, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Send messages over the graph as it is now by the layers that were learnt, which train on for a few epochs.

        What was kept stays unless a later epoch has a lower validation loss.
        """
        return self._fit(graph, graph.comparisons, graph.validation, recall, seed=seed, progress=progress)

    def _fit(
        self,
        graph: PreferenceGraph,
        learned: Comparisons,
        validation: Comparisons,
        recall: Recall | None,
        *,
        seed: int,
        progress: Progress,
    ) -> NodeEmbeddings:
        options = self._options
        if options.response_features and graph.response_features is None:
            raise DataError(f"encoder.{self._name}: response_features is on, but the graph was built without features")
        learnt = attrs.evolve(graph, comparisons=learned, validation=validation)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self._network()
            if not len(learned):
                return trivial_embeddings(graph, network.dim)
            factors = self._factors_of(learnt, recall, seed, progress) if options.start == "mf" else None
            remembered = {} if factors is None or factors.memory is None else {"factors": factors.memory}
            if recall is not None and "free" not in recall.memory.users:  # factors alone were better
                assert factors is not None
                return attrs.evolve(factors, memory=Memory.joined(remembered, {}))
            training = _Training(learnt, network, options, _start(learnt, options, factors, seed))
            if recall is not None:
                training.take_up(recall)
            users, responses, bias = training.run(self._name, progress)
            # message passing may add nothing to the factors it started from; the held-out comparisons decide
            competes = factors is not None and not options.normalize_users and recall is None
            if factors is not None and competes and training.are_better(factors, users, responses, bias):
                tables = factors.users, factors.responses, factors.response_bias
                chosen = with_pass(node_embeddings(graph, *tables), factors.newcomer_pass)
                return attrs.evolve(chosen, memory=Memory.joined(remembered, {}))
            fitted = node_embeddings(graph, F.normalize(users) if options.normalize_users else users, responses, bias)
            memory = training.memory(remembered)
            return attrs.evolve(with_pass(fitted, training.newcomer_pass()), memory=memory)

    def _factors_of(
        self, graph: PreferenceGraph, recall: Recall | None, seed: int, progress: Progress
    ) -> NodeEmbeddings:
        if self._factors is not None:
            return self._factors
        encoder = Mf(MfOptions(embedding_dim=self._options.embedding_dim))
        if recall is not None:
            return encoder.go_on(graph, recall.part("factors"), seed=seed, progress=progress)
        return encoder.fit(graph, seed=seed, progress=progress)


def _start(
    graph: PreferenceGraph, options: MessagePassingOptions, factors: NodeEmbeddings | None, seed: int
) -> tuple[Tensor, Tensor]:
    """Return users [U, D] and responses [R, D] before training; a response that nobody compared starts at 0."""
    if factors is not None:
        users, responses = scaled_factors(factors)
    elif options.start == "spectral":
        users, responses = spectral_tables(graph, options.embedding_dim, seed, noise=0.02)
    else:
        users, responses = random_tables(graph, options.embedding_dim)
    compared = torch.zeros(graph.num_responses, 1)
    for column in (graph.comparisons.chosen, graph.comparisons.rejected):
        compared[torch.from_numpy(column)] = 1.0
    return users, responses * compared


@final
class _Training:
    """One fit."""

    def __init__(
        self,
        source: PreferenceGraph,
        network: MessagePassingNetwork,
        options: MessagePassingOptions,
        start: tuple[Tensor, Tensor],
    ) -> None:
        self._options = options
        self._source = source
        self._graph = MessageGraph(source.comparisons, source.num_users, source.num_responses)
        self._whole = self._graph.whole()
        self._nodes, self._responses = torch.arange(self._graph.num_nodes), torch.arange(source.num_responses)
        # where nothing could be held out, the training comparisons have to do
        self._held = ComparisonTensors.of(source.validation if len(source.validation) else source.comparisons)
        self._batches = STRATEGIES[options.sampling](self._graph, options)
        self._in_parts = options.sampling in ("users", "neighbours")
        features = source.response_features if options.response_features else None
        table = NodeTable(*start, features, bias=options.response_bias, sparse=self._in_parts)
        self._table, self._network = table, network
        self._parts = nn.ModuleDict({"table": table, "network": network})
        self._optimizers = self._make_optimizers()
        self._schedulers = [torch.optim.lr_scheduler.LambdaLR(o, self._rate) for o in self._optimizers]
        self._scale = 1.0
        self._recall: Recall | None = None

    @torch.no_grad()
    def take_up(self, recall: Recall) -> None:
        """Begin with what was learnt before; a node of which nothing is known stays where it would have started."""
        self._recall, memory, table = recall, recall.memory, self._table
        num_users = self._source.num_users
        for known, nodes, name in (
            (recall.known_users, table.free[:num_users], memory.users["free"]),
            (recall.known_responses, table.free[num_users:], memory.responses["free"]),
            (recall.known_responses, table.bias, memory.responses["bias"]),
        ):
            rows = torch.from_numpy(np.flatnonzero(known))
            nodes[rows] = name[rows]
        shared = {name: tensor for name, tensor in memory.shared.items() if not name.startswith("factors.")}
        self._parts.load_state_dict({**self._parts.state_dict(), **shared})

    def memory(self, parts: Mapping[str, Memory]) -> Memory:
        """Return what there is to go on from, beside that of `parts`."""
        state = {name: plain(tensor) for name, tensor in self._parts.state_dict().items()}
        users, responses = torch.split(state.pop("table.free"), [self._source.num_users, self._source.num_responses])
        inner = Memory.joined(parts, {"scale": self._scale})
        return attrs.evolve(
            inner,
            users={**inner.users, "free": users.clone()},
            responses={**inner.responses, "free": responses.clone(), "bias": state.pop("table.bias")},
            shared={**inner.shared, **state},
        )

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        table, rate, decay = self._table, self._options.learning_rate, self._options.weight_decay
        effects = [table.bias] if table.bias.requires_grad else []
        layers: list[nn.Parameter] = [*self._network.parameters()]
        if table.text is not None:
            layers += table.text.parameters()
        if not self._in_parts:
            groups: list[dict[str, object]] = [
                {"params": [table.free, *layers]},
                {"params": effects, "weight_decay": 0.0},
            ]
            return [eager(torch.optim.AdamW)(groups, lr=rate, weight_decay=decay, fused=True)]
        # rows outside a part of the graph cost nothing with the sparse kind
        optimizers: list[torch.optim.Optimizer] = [eager(torch.optim.SparseAdam)([table.free, *effects], lr=rate)]
        return optimizers + ([eager(torch.optim.AdamW)(layers, lr=rate, weight_decay=decay)] if layers else [])

    def _rate(self, step: int) -> float:
        if self._options.schedule == "constant":
            return 1.0
        total = self._options.num_epochs * len(self._batches)
        warm = max(total // 10, 1)
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))

    def run(self, name: str, progress: Progress) -> tuple[Tensor, Tensor, Tensor]:
        """Train and return the embeddings of users and responses and the response effects of the best epoch.

        Users and effects are scaled so that margins are log odds on the validation comparisons.
        """
        options, goes_on = self._options, self._recall is not None
        num_epochs = -(-options.num_epochs // _SHORTER) if goes_on else options.num_epochs
        if self._recall is not None and not (self._recall.is_changed and len(self._source.validation)):
            num_epochs = 0
        with progress.task(f"graph encoder {name}", total=num_epochs) as task:
            best = train(
                self,
                num_epochs=num_epochs,
                validate_every=options.validate_every,
                patience=_PATIENCE if goes_on else options.patience,
                curve=Curve(STAGE, task, progress),
                start_counts=goes_on,
            )
        self._parts.load_state_dict(dict(best.tensors))
        # the comparisons held out choose the scale; where there are none any more, it is as it was
        self._scale = best.scale if num_epochs or self._recall is None else self._recall.memory.facts["scale"]
        users, responses, bias = self._embeddings()
        return users * best.scale, responses, bias * best.scale

    def epoch(self) -> float:
        losses = [self._step(batch) for batch in self._batches]
        return sum(losses) / len(losses)

    def judge(self) -> Judgement:
        return Judgement.of(self._held, self._held.margins(*self._embeddings()))

    def tensors(self) -> Mapping[str, Tensor]:
        return self._parts.state_dict()

    def are_better(self, factors: NodeEmbeddings, users: Tensor, responses: Tensor, bias: Tensor) -> bool:
        """Return whether factors explain the held-out comparisons better than these embeddings."""
        refined = Judgement.of(self._held, self._held.margins(users, responses, bias))
        tables = factors.users, factors.responses, factors.response_bias
        return Judgement.of(self._held, self._held.margins(*tables)).loss < refined.loss

    @torch.no_grad()
    def newcomer_pass(self) -> SignedPass | None:
        """Return the network's pass, after training.

        Seen users start with an embedding of their own. A newcomer's comes from the same comparisons as the messages,
        by the responses before the first layer, which are scaled so that they go best with the response effects.
        """
        source, normalised = self._source, self._options.normalize_users
        nodes, bias = self._table(self._nodes), self._table.effects(self._responses) * self._scale
        layers = self._network.newcomer_layers(nodes, self._whole)
        if not layers:
            return None
        users, effectless = nodes[: source.num_users], torch.zeros_like(bias)
        personal, shared = (
            self._held.margins(table, layers[0].responses, effects).double().numpy()
            for table, effects in ((users, effectless), (torch.zeros_like(users), bias))
        )
        sharpness, _ = best_scale(personal, shared, self._held.weight.double().numpy())
        mean, factor = normal_prior(users)
        return SignedPass(
            plain(mean),
            plain(factor),
            plain(response_degrees(source.comparisons, source.num_responses)),
            layers,
            start_sharpness=sharpness,
            power=1 / float(source.comparisons.weight.mean()),
            slope=self._network.slope,
            scale=1.0 if normalised else self._scale,
            length=1.0 if normalised else None,
        )

    @torch.no_grad()
    def _embeddings(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the embeddings of all users and responses and the response effects."""
        self._network.eval()
        nodes, bias = self._table(self._nodes), self._table.effects(self._responses)
        embedded = self._network(nodes, (self._whole,) * self._options.num_layers)
        users, responses = embedded.split([self._source.num_users, self._source.num_responses])
        self._network.train()
        return users, responses, bias.detach()  # a view of all effects would ask for gradients all the same

    def _step(self, batch: Batch) -> float:
        nodes, bias = self._table(batch.nodes), self._table.effects(batch.judged)
        embedded = self._network(nodes, batch.hops)
        users, responses = embedded.split([batch.hops[-1].num_users, len(batch.judged)])
        comparisons = batch.comparisons
        loss = comparisons.loss(comparisons.margins(users, responses, bias))
        penalty = self._prior(batch)
        if self._options.l2:
            penalty = penalty + self._options.l2 * comparisons.squared_norms(users, responses)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        (loss + penalty).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for optimizer, scheduler in zip(self._optimizers, self._schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        return float(loss.detach())

    def _prior(self, batch: Batch) -> Tensor | float:
        """Return the negative log density of the Gaussian priors, per comparison; a part stands for the whole."""
        source, options = self._source, self._options
        if not options.precision and not (options.response_bias and options.bias_precision):
            return 0.0
        rows = batch.nodes if self._in_parts else self._nodes
        free, bias = self._table.squares(rows)
        squares: Tensor = options.precision * free + options.bias_precision * bias
        return squares * len(self._nodes) / (2 * len(source.comparisons) * len(rows))
