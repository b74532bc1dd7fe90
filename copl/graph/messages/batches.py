"""What one training step sees: the whole graph, the graph of some users, or sampled neighbourhoods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import attrs
import torch
from torch import Tensor

from copl.graph.messages.geometric import geometric
from copl.graph.messages.message_graph import SIGNS, Drawn, MessageGraph, SignedEdgeIndex
from copl.graph.training import ComparisonTensors


@final
@attrs.frozen(eq=False)
class Batch:
    """One step's part of the graph and the comparisons that supervise it.

    Attributes:
        users: rows of its users [u]; nodes 0 to u - 1 of `edges`.
        responses: rows of its responses [r]; the nodes from u on.
        edges: its edges, without those of the supervising comparisons.
        comparisons: the supervising comparisons, in rows of `users` and `responses`.
    """

    users: Tensor
    responses: Tensor
    edges: SignedEdgeIndex
    comparisons: ComparisonTensors


def _drawn(rows: Tensor, share: float) -> Tensor:
    """Return a share of the rows, at least one; all for a share of 0, which takes no edges out."""
    if not share:
        return rows
    kept = rows[torch.rand(len(rows)) < share]
    return kept if len(kept) else rows[:1]


def _none() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


def whole_graph(graph: MessageGraph, share: float) -> Iterator[Batch]:
    """Yield the whole graph again and again, a share of the comparisons drawn each time as supervision.

    Args:
        graph: the message graph.
        share: share of the comparisons that supervise and are taken out of the edges; with 0 all supervise and stay.
    """
    users, responses = torch.arange(graph.num_users), torch.arange(graph.num_responses)
    everything = torch.arange(len(graph.comparisons))
    while True:
        rows = _drawn(everything, share)
        with graph.without(rows if share else _none()):
            edges = graph.whole()
        yield Batch(users, responses, edges, graph.comparisons.take(rows))


def user_parts(graph: MessageGraph, share: float, batch_size: int) -> Iterator[Batch]:
    """Yield the graph of some users at a time, all of them in random order before any comes again.

    The idea of Cluster-GCN (Chiang et al. 2019, arXiv 1905.07953) with random parts: messages pass among the users of a
    part and the responses they compared, and no further.

    Args:
        graph: the message graph.
        share: as in `whole_graph`.
        batch_size: about how many comparisons supervise a step.
    """
    comparisons = graph.comparisons
    by_user = torch.argsort(comparisons.user, stable=True)
    first = torch.searchsorted(comparisons.user[by_user], torch.arange(graph.num_users + 1))
    active = torch.unique(comparisons.user)
    per_part = max(round(batch_size / (share or 1.0) * len(active) / len(comparisons)), 1)
    while True:
        for drawn in torch.split(active[torch.randperm(len(active))], per_part):
            users = drawn.sort().values
            rows = torch.cat([by_user[first[user] : first[user + 1]] for user in users.tolist()])
            rows = _drawn(rows, share)
            with graph.without(rows if share else _none()):
                responses, edges = graph.of_users(users)
            yield Batch(users, responses, edges, _renumbered(comparisons.take(rows), users, responses))


def _renumbered(rows: ComparisonTensors, users: Tensor, responses: Tensor) -> ComparisonTensors:
    """Return comparisons in rows of the sorted `users` and `responses`."""
    return ComparisonTensors(
        torch.searchsorted(users, rows.user),
        torch.searchsorted(responses, rows.chosen),
        torch.searchsorted(responses, rows.rejected),
        rows.weight,
    )


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


def neighbourhoods(graph: MessageGraph, share: float, batch_size: int, num_neighbours: list[int]) -> Iterator[Batch]:
    """Yield the sampled neighbourhoods of some comparisons at a time (GraphSAGE, arXiv 1706.02216); needs pyg-lib.

    Args:
        graph: the message graph.
        share: with 0 the supervising comparisons stay in the edges; else they are taken out.
        batch_size: comparisons of a step.
        num_neighbours: neighbours drawn for each node and edge type, one number a layer; -1 takes all.
    """
    rows = graph.comparisons
    links = torch.stack([rows.user.repeat_interleave(2), torch.stack([rows.chosen, rows.rejected], dim=1).reshape(-1)])
    data = geometric().data.HeteroData()
    data["user"].num_nodes, data["response"].num_nodes = graph.num_users, graph.num_responses
    for sign in SIGNS:
        index = graph.pattern(sign).index
        data["user", sign, "response"].edge_index = index
        data["response", f"{sign}_by", "user"].edge_index = index.flip(0)
    loader = geometric().loader.LinkNeighborLoader(
        data,
        num_neighbors=num_neighbours,
        edge_label_index=(("user", "chosen", "response"), links),
        batch_size=2 * batch_size,
        sampler=_PairsTogether(len(rows)),
    )
    while True:
        parts = iter(loader)
        for _ in range(len(loader)):
            with _one_thread():
                part = next(parts)
            yield _sampled(graph, part, bool(share))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: several would draw neighbours from the one generator in whatever order they come."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sampled(graph: MessageGraph, part: Any, without: bool) -> Batch:
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
    with graph.without(rows if without else _none()):
        edges = graph.part(users, responses, drawn)
    user, response = seeds.edge_label_index
    supervising = ComparisonTensors(user[::2], response[::2], response[1::2], graph.comparisons.weight[rows])
    return Batch(users, responses, edges, supervising)
