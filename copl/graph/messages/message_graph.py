"""The graph that messages pass over: all of it, or a part, with or without the comparisons that supervise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from copl.graph.messages.adjacency import EdgePattern
from copl.graph.messages.geometric import geometric
from copl.graph.training import ComparisonTensors

if TYPE_CHECKING:
    from copl.records import Comparisons

SIGNS = ("chosen", "rejected")
_NOTHING = 1e-9  # comparisons weigh 1 on average; less than this is what rounding leaves of none


@final
@attrs.frozen(eq=False)
class SignedEdgeIndex:
    """Directed edges of both signs over n users and responses together: first the users, then the responses.

    Attributes:
        num_users: the first so many nodes are users.
        chosen: source and target of each chosen edge, both directions, sorted by target [2, E+]; a
            `torch_geometric.EdgeIndex`, which keeps its transpose.
        rejected: the same for rejected edges [2, E-].
        chosen_norm: value of each chosen edge [E+]; 1/sqrt(deg_source deg_target) with the degrees of this sign where
            the whole graph is here. Edges taken out have 0.
        rejected_norm: the same for rejected edges [E-].
    """

    num_users: int
    chosen: Any
    rejected: Any
    chosen_norm: Tensor
    rejected_norm: Tensor

    def present(self) -> tuple[Tensor, Tensor]:
        """Return the chosen and the rejected edges without those taken out, for layers that know no edge values."""
        chosen, rejected = self.chosen.as_tensor(), self.rejected.as_tensor()
        return chosen[:, self.chosen_norm > 0], rejected[:, self.rejected_norm > 0]


@final
@attrs.frozen(eq=False)
class Drawn:
    """Directed edges of one sign of a part of the graph.

    Attributes:
        source: row of the source among the part's nodes [e].
        target: row of the target [e].
        edge: number of the undirected edge in the whole graph [e].
    """

    source: Tensor
    target: Tensor
    edge: Tensor


@final
class _Sign:
    """The edges of one sign, with weights and degrees that comparisons can be taken out of for a while."""

    def __init__(self, pattern: EdgePattern, weight: Tensor) -> None:
        self.pattern = pattern
        self.weight = pattern.sum_weights(weight)
        users, responses = pattern.index
        self.degree_of_user = torch.zeros(pattern.size[0], dtype=weight.dtype).index_add_(0, users, self.weight)
        self.degree_of_response = torch.zeros(pattern.size[1], dtype=weight.dtype).index_add_(0, responses, self.weight)
        # whole graph, sorted by target: first what users receive, then what responses receive
        by_response = torch.argsort(responses, stable=True)
        nodes = responses + pattern.size[0]
        self.whole = Drawn(
            torch.cat([nodes, users[by_response]]),
            torch.cat([users, nodes[by_response]]),
            torch.cat([torch.arange(len(users)), by_response]),
        )
        self.index = _edge_index(self.whole.source, self.whole.target, sum(pattern.size))

    def buffers(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return what the comparisons at `rows` add to, with the place each of them adds to."""
        edge = self.pattern.edge[rows]
        users, responses = self.pattern.index[:, edge]
        return [(self.weight, edge), (self.degree_of_user, users), (self.degree_of_response, responses)]

    def norm(self, drawn: Drawn, degrees: Tensor) -> Tensor:
        """Return w / sqrt(deg_source deg_target), times deg_target over what was drawn of it.

        A drawn neighbour so stands for those left out; where all are drawn, the factor is 1.
        """
        weight = self.weight[drawn.edge]
        present = weight > _NOTHING
        received = torch.zeros(len(degrees), dtype=weight.dtype).index_add_(0, drawn.target, weight * present)
        divisor = received[drawn.target] * (degrees[drawn.source] / degrees[drawn.target].clamp_min(_NOTHING)).sqrt()
        return torch.where(present, weight / divisor.clamp_min(_NOTHING), 0.0).float()


def _edge_index(source: Tensor, target: Tensor, num_nodes: int) -> Any:
    index = torch.stack([source, target])
    return geometric().EdgeIndex(index, sparse_size=(num_nodes, num_nodes), sort_order="col")


@final
class MessageGraph:
    """The message graph of some comparisons.

    A comparison is a chosen edge and a rejected edge, both carrying messages in both directions; edges that repeat add
    up.

    Attributes:
        comparisons: the comparisons as tensors.
        num_users: number of users U.
        num_responses: number of responses R.
    """

    def __init__(self, comparisons: Comparisons, num_users: int, num_responses: int) -> None:
        self.comparisons = ComparisonTensors.of(comparisons)
        self.num_users = num_users
        self.num_responses = num_responses
        self._weight = self.comparisons.weight.double()
        ends = {"chosen": comparisons.chosen, "rejected": comparisons.rejected}
        self._signs = {
            sign: _Sign(EdgePattern(comparisons.user, ends[sign], num_users, num_responses), self._weight)
            for sign in SIGNS
        }

    def pattern(self, sign: str) -> EdgePattern:
        """Return where the edges of a sign lie."""
        return self._signs[sign].pattern

    @contextmanager
    def without(self, rows: Tensor) -> Iterator[None]:
        """Take the comparisons at `rows` out of the graph while the context is open."""
        kept = [buffer for sign in self._signs.values() for buffer in sign.buffers(rows)]
        before = [buffer[places] for buffer, places in kept]
        for buffer, places in kept:
            buffer.index_add_(0, places, -self._weight[rows])
        try:
            yield
        finally:  # put back rather than added again, which would not be exact
            for (buffer, places), values in zip(kept, before, strict=True):
                buffer[places] = values

    def whole(self) -> SignedEdgeIndex:
        """Return the whole graph."""
        signs = self._signs.values()
        norms = [sign.norm(sign.whole, torch.cat([sign.degree_of_user, sign.degree_of_response])) for sign in signs]
        indices = [sign.index for sign in signs]
        return SignedEdgeIndex(self.num_users, *indices, *norms)

    def part(self, users: Tensor, responses: Tensor, drawn: Mapping[str, Drawn]) -> SignedEdgeIndex:
        """Return a part of the graph.

        Args:
            users: rows of its users [u]; they become the nodes 0 to u - 1.
            responses: rows of its responses [r]; they become the nodes from u on.
            drawn: its edges by sign.
        """
        indices, norms = [], []
        for name, sign in self._signs.items():
            order = torch.argsort(drawn[name].target, stable=True)
            edges = Drawn(*(column[order] for column in attrs.astuple(drawn[name], recurse=False)))
            degrees = torch.cat([sign.degree_of_user[users], sign.degree_of_response[responses]])
            indices.append(_edge_index(edges.source, edges.target, len(degrees)))
            norms.append(sign.norm(edges, degrees))
        return SignedEdgeIndex(len(users), *indices, *norms)

    def of_users(self, users: Tensor) -> tuple[Tensor, SignedEdgeIndex]:
        """Return the part with all edges of some users (rows, sorted) and the rows of the responses it touches."""
        edges = {name: _edges_of(users, sign.pattern) for name, sign in self._signs.items()}
        ends = {name: self._signs[name].pattern.index[:, edge] for name, edge in edges.items()}
        responses = torch.unique(torch.cat([end[1] for end in ends.values()]))
        drawn = {}
        for name, (user, response) in ends.items():
            here = torch.searchsorted(users, user)
            there = torch.searchsorted(responses, response) + len(users)
            both = torch.cat([edges[name], edges[name]])
            drawn[name] = Drawn(torch.cat([there, here]), torch.cat([here, there]), both)
        return responses, self.part(users, responses, drawn)


def _edges_of(users: Tensor, pattern: EdgePattern) -> Tensor:
    """Return the edges of some users; a pattern's edges are sorted by user."""
    first = torch.searchsorted(pattern.index[0].contiguous(), torch.stack([users, users + 1]))
    counts = first[1] - first[0]
    offsets = torch.repeat_interleave(first[0] - F.pad(counts.cumsum(0), (1, 0))[:-1], counts)
    return torch.arange(int(counts.sum())) + offsets
