"""What one training step sees: the whole graph, what reaches some comparisons, the graph of some users, or samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import attrs
import torch
from torch import Tensor

from copl.graph.messages.geometric import geometric
from copl.graph.messages.hops import Hop
from copl.graph.messages.message_graph import SIGNS, Drawn, MessageGraph
from copl.graph.messages.options import MessagePassingOptions
from copl.graph.training import ComparisonTensors


@final
@attrs.frozen(eq=False)
class Batch:
    """One step's part of the graph and the comparisons that supervise it.

    Attributes:
        nodes: its nodes before the first layer [n], users first; responses are numbered from U on.
        hops: what each layer passes messages over, without the edges of the supervising comparisons.
        judged: rows of the responses after the last layer.
        comparisons: the supervising comparisons, in rows of the users after the last layer and of `judged`.
    """

    nodes: Tensor
    hops: tuple[Hop, ...]
    judged: Tensor
    comparisons: ComparisonTensors


class Batches(ABC):
    """The batches of one epoch, in which every comparison has its turn; anew each time it is iterated over.

    Args:
        graph: the message graph.
        options: sizes and shares; where `supervision_share` is 0, supervising comparisons stay edges.
    """

    def __init__(self, graph: MessageGraph, options: MessagePassingOptions) -> None:
        self._graph = graph
        self._options = options

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return math.ceil(len(self._graph.comparisons) / self._options.batch_size)

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""

    @contextmanager
    def _hidden(self, rows: Tensor) -> Iterator[None]:
        """Take what supervises a step, and a random share of the other edges, out of the graph."""
        rows = rows if self._options.supervision_share else rows[:0]
        with self._graph.without(rows, self._options.edge_dropout):
            yield

    def _repeated(self, hop: Hop) -> tuple[Hop, ...]:
        return (hop,) * self._options.num_layers

    def _drawn(self, rows: Tensor) -> Tensor:
        """Return the share of the rows that supervises, at least one; all for a share of 0."""
        share = self._options.supervision_share
        if not share:
            return rows
        kept = rows[torch.rand(len(rows)) < share]
        return kept if len(kept) else rows[:1]


@final
class WholeGraph(Batches):
    """The whole graph, a share of the comparisons drawn each time as supervision."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Batch]:
        graph = self._graph
        rows = self._drawn(torch.arange(len(graph.comparisons)))
        with self._hidden(rows):
            hop = graph.whole()
        nodes, responses = torch.arange(graph.num_nodes), torch.arange(graph.num_responses)
        yield Batch(nodes, self._repeated(hop), responses, graph.comparisons.take(rows))


@final
class ReceptiveFields(Batches):
    """Some comparisons at a time and all that reaches them, layer by layer: what the whole graph gives, for less."""

    def __iter__(self) -> Iterator[Batch]:
        num_comparisons = len(self._graph.comparisons)
        for rows in torch.split(torch.randperm(num_comparisons), self._options.batch_size):
            yield self.around(rows)

    def around(self, rows: Tensor) -> Batch:
        """Return the batch of the comparisons at `rows`."""
        graph = self._graph
        batch = graph.comparisons.take(rows)
        users, user = torch.unique(batch.user, return_inverse=True)
        judged, ends = torch.unique(torch.cat([batch.chosen, batch.rejected]), return_inverse=True)
        with self._hidden(rows):
            nodes, hops = graph.reaching(torch.cat([users, judged + graph.num_users]), self._options.num_layers)
        chosen, rejected = torch.split(ends, len(batch))
        supervising = ComparisonTensors(user, chosen, rejected, batch.weight)
        return Batch(nodes, hops, judged, supervising)


@final
class UserParts(Batches):
    """The graph of some users at a time.

    The idea of Cluster-GCN (Chiang et al. 2019, arXiv 1905.07953) with random parts: messages pass among the users of a
    part and the responses they compared, and no further. About `batch_size` comparisons supervise a step.
    """

    def __init__(self, graph: MessageGraph, options: MessagePassingOptions) -> None:
        super().__init__(graph, options)
        user = graph.comparisons.user
        self._by_user = torch.argsort(user, stable=True)
        self._first = torch.searchsorted(user[self._by_user], torch.arange(graph.num_users + 1))
        self._active = torch.unique(user)
        share = options.supervision_share or 1.0
        self._per_part = max(round(options.batch_size / share * len(self._active) / len(user)), 1)

    def __len__(self) -> int:
        return math.ceil(len(self._active) / self._per_part)

    def __iter__(self) -> Iterator[Batch]:
        for drawn in torch.split(self._active[torch.randperm(len(self._active))], self._per_part):
            users = drawn.sort().values
            rows = torch.cat([self._by_user[self._first[user] : self._first[user + 1]] for user in users.tolist()])
            rows = self._drawn(rows)
            with self._hidden(rows):
                responses, hop = self._graph.of_users(users)
            batch = self._graph.comparisons.take(rows)
            supervising = ComparisonTensors(
                torch.searchsorted(users, batch.user),
                torch.searchsorted(responses, batch.chosen),
                torch.searchsorted(responses, batch.rejected),
                batch.weight,
            )
            nodes = torch.cat([users, responses + self._graph.num_users])
            yield Batch(nodes, self._repeated(hop), responses, supervising)


@final
class _PairsTogether(torch.utils.data.Sampler[int]):
    """Places of the two links of each comparison, one after the other, comparisons in random order."""

    def __init__(self, num_comparisons: int) -> None:
        self._num = num_comparisons

    def __len__(self) -> int:
        return 2 * self._num

    def __iter__(self) -> Iterator[int]:
        for row in torch.randperm(self._num).tolist():
            yield 2 * row
            yield 2 * row + 1


@final
class Neighbourhoods(Batches):
    """The sampled neighbourhoods of some comparisons at a time (GraphSAGE, arXiv 1706.02216); needs pyg-lib."""

    def __init__(self, graph: MessageGraph, options: MessagePassingOptions) -> None:
        super().__init__(graph, options)
        rows = graph.comparisons
        ends = torch.stack([rows.chosen, rows.rejected], dim=1).reshape(-1)
        data = geometric().data.HeteroData()
        data["user"].num_nodes, data["response"].num_nodes = graph.num_users, graph.num_responses
        for sign in SIGNS:
            index = graph.signs[sign].ends
            data["user", sign, "response"].edge_index = index
            data["response", f"{sign}_by", "user"].edge_index = index.flip(0)
        self._loader = geometric().loader.LinkNeighborLoader(
            data,
            num_neighbors=[options.num_neighbours] * options.num_layers,
            edge_label_index=(("user", "chosen", "response"), torch.stack([rows.user.repeat_interleave(2), ends])),
            batch_size=2 * options.batch_size,
            sampler=_PairsTogether(len(rows)),
        )

    def __iter__(self) -> Iterator[Batch]:
        parts = iter(self._loader)
        for _ in range(len(self._loader)):
            with _one_thread():
                part = next(parts)
            yield self._batch(part)

    def _batch(self, part: Any) -> Batch:
        users, responses = part["user"].n_id, part["response"].n_id
        seeds = part["user", "chosen", "response"]
        rows = seeds.input_id[::2] // 2
        drawn = {}
        for sign in SIGNS:
            to_responses, to_users = part["user", sign, "response"], part["response", f"{sign}_by", "user"]
            from_users, into_responses = to_responses.edge_index
            from_responses, into_users = to_users.edge_index
            drawn[sign] = Drawn(
                torch.cat([from_users, from_responses + len(users)]),
                torch.cat([into_responses + len(users), into_users]),
                torch.cat([to_responses.e_id, to_users.e_id]),
            )
        with self._hidden(rows):
            hop = self._graph.part(users, responses, drawn)
        user, response = seeds.edge_label_index
        supervising = ComparisonTensors(user[::2], response[::2], response[1::2], self._graph.comparisons.weight[rows])
        nodes = torch.cat([users, responses + self._graph.num_users])
        return Batch(nodes, self._repeated(hop), responses, supervising)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: several would draw neighbours from the one generator in whatever order they come."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


STRATEGIES: dict[str, type[Batches]] = {
    "full": WholeGraph,
    "field": ReceptiveFields,
    "users": UserParts,
    "neighbours": Neighbourhoods,
}
"""The batches by the option `sampling`."""
