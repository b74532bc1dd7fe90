"""The graph that messages pass over, users and responses numbered together: all of it, a part, or what reaches a batch.

A comparison is a chosen edge and a rejected edge, both carrying messages in both directions; edges that repeat add up.
Each sign is normalised by itself, 1/sqrt(deg_u deg_r) with the degrees of that sign. (CoPL, arXiv 2503.01658.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

import attrs
import numpy as np
import torch
from torch import Tensor

from copl.graph.messages.hops import Hop, SignEdges
from copl.graph.messages.sparse import SparseMatrix, compressed_rows, row_pointers
from copl.graph.training import ComparisonTensors

if TYPE_CHECKING:
    from copl.records import Comparisons, IntArray

SIGNS = ("chosen", "rejected")
_NOTHING = 1e-9  # comparisons weigh 1 on average; less than this is what rounding leaves of none


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

    def by_target(self) -> Drawn:
        order = torch.argsort(self.target, stable=True)
        return Drawn(self.source[order], self.target[order], self.edge[order])


@final
class SignGraph:
    """The edges of one sign, with weights and degrees that comparisons can be taken out of for a while.

    Attributes:
        ends: user and response of each undirected edge [2, E], sorted by user, then response.
    """

    def __init__(self, user: IntArray, response: IntArray, weight: Tensor, num_users: int, num_responses: int) -> None:
        code, edge = np.unique(user * max(num_responses, 1) + response, return_inverse=True)
        self.ends = torch.from_numpy(np.stack(np.divmod(code, max(num_responses, 1))))
        self._edge_of = torch.from_numpy(edge.reshape(-1))
        users, nodes = self.ends[0], self.ends[1] + num_users
        by_response = torch.argsort(nodes, stable=True)
        # sorted by target: first what users receive, then what responses receive
        self._source = torch.cat([nodes, users[by_response]])
        self._edge = torch.cat([torch.arange(len(users)), by_response])
        self._size = num_users + num_responses
        self._pointers = row_pointers(torch.cat([users, nodes[by_response]]), self._size)
        self._nodes = nodes
        self._weight = torch.zeros(len(users), dtype=weight.dtype).index_add_(0, self._edge_of, weight)
        self._degrees = torch.zeros(self._size, dtype=weight.dtype)
        self._degrees.index_add_(0, users, self._weight).index_add_(0, nodes, self._weight)
        self._factor: Tensor | None = None

    @contextmanager
    def without(self, rows: Tensor, weight: Tensor, dropout: float) -> Iterator[None]:
        """Take comparisons at `rows`, of these weights, out while the context is open, then a share of the edges."""
        edge = self._edge_of[rows]
        places = [(self._weight, edge), (self._degrees, self.ends[0, edge]), (self._degrees, self._nodes[edge])]
        before = [buffer[place] for buffer, place in places]
        for buffer, place in places:
            buffer.index_add_(0, place, -weight)
        if dropout:
            self._factor = (torch.rand(len(self._weight)) >= dropout).double() / (1 - dropout)
        try:
            yield
        finally:  # put back rather than added again, which would not be exact
            for (buffer, place), values in zip(places, before, strict=True):
                buffer[place] = values
            self._factor = None

    def _finished(self, values: Tensor, present: Tensor, edge: Tensor | None) -> Tensor:
        if self._factor is not None:
            values = values * (self._factor if edge is None else self._factor[edge])
        return torch.where(present, values, 0.0).float()

    def whole(self) -> SparseMatrix:
        """Return the normalised adjacency of all nodes, which is its own transpose."""
        users, degrees = self.ends[0], self._degrees
        scale = (degrees[users] * degrees[self._nodes]).sqrt().clamp_min(_NOTHING)
        values = self._finished(self._weight / scale, self._weight > _NOTHING, None)
        matrix = compressed_rows(self._pointers, self._source, values[self._edge], (self._size, self._size))
        return SparseMatrix(matrix, matrix)

    def part(self, nodes: Tensor, drawn: Drawn) -> SparseMatrix:
        """Return the adjacency of some nodes by drawn edges, sorted by target.

        An edge has the value w / sqrt(deg_source deg_target), times deg_target over what was drawn of it: a drawn
        neighbour stands for those left out. Where all are drawn, the factor is 1.
        """
        weight, degrees = self._weight[drawn.edge], self._degrees[nodes]
        present = weight > _NOTHING
        received = torch.zeros(len(degrees), dtype=weight.dtype).index_add_(0, drawn.target, weight * present)
        divisor = received[drawn.target] * (degrees[drawn.source] / degrees[drawn.target].clamp_min(_NOTHING)).sqrt()
        values = self._finished(weight / divisor.clamp_min(_NOTHING), present, drawn.edge)
        return SparseMatrix.of(drawn.target, drawn.source, values, (len(nodes), len(nodes)))

    def of_users(self, users: Tensor) -> Tensor:
        """Return the edges of some users."""
        own = self.ends[0].contiguous()
        return _ranges(torch.searchsorted(own, users), torch.searchsorted(own, users + 1))[1]


def _ranges(starts: Tensor, stops: Tensor) -> tuple[Tensor, Tensor]:
    """Return all whole numbers from each start up to its stop, and for each the place of its range."""
    counts = stops - starts
    place = torch.repeat_interleave(torch.arange(len(starts)), counts)
    first = torch.cumsum(counts, 0) - counts
    return place, torch.arange(len(place)) + (starts - first)[place]


@final
class MessageGraph:
    """The message graph of some comparisons.

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
        self.signs = {
            sign: SignGraph(comparisons.user, ends[sign], self._weight, num_users, num_responses) for sign in SIGNS
        }

    @property
    def num_nodes(self) -> int:
        """Number of users and responses together."""
        return self.num_users + self.num_responses

    @contextmanager
    def without(self, rows: Tensor, dropout: float = 0.0) -> Iterator[None]:
        """Take the comparisons at `rows` out of the graph while the context is open.

        Args:
            rows: the comparisons.
            dropout: share of the remaining edges left out at random after normalising, the others scaled up.
        """
        chosen, rejected = (self.signs[sign].without(rows, self._weight[rows], dropout) for sign in SIGNS)
        with chosen, rejected:
            yield

    def whole(self) -> Hop:
        """Return the whole graph."""
        chosen, rejected = (SignEdges(self.num_nodes, sign.whole()) for sign in self.signs.values())
        return Hop(self.num_users, chosen, rejected)

    def reaching(self, nodes: Tensor, num_hops: int) -> tuple[Tensor, tuple[Hop, ...]]:
        """Return only what some nodes can see after so many layers: the receptive field.

        The last layer is needed at these nodes, the layer before at their neighbours too, and so on; all else that the
        whole graph computes would be thrown away, and its gradient is zero.

        Args:
            nodes: rows of the nodes, ascending, responses from U on.
            num_hops: number of layers.

        Returns:
            The nodes before the first layer, ascending, and a hop a layer, the first layer first.
        """
        whole = [sign.whole().matrix for sign in self.signs.values()]
        hops = []
        for _ in range(num_hops):
            edges = [_edges_into(nodes, matrix) for matrix in whole]
            sources = torch.unique(torch.cat([nodes, *(source for _, source, _ in edges)]))
            chosen, rejected = (_among(sources, len(nodes), *of_sign) for of_sign in edges)
            num_users = int(torch.searchsorted(nodes, self.num_users))
            hops.append(Hop(num_users, chosen, rejected, torch.searchsorted(sources, nodes)))
            nodes = sources
        return nodes, tuple(hops[::-1])

    def part(self, users: Tensor, responses: Tensor, drawn: Mapping[str, Drawn]) -> Hop:
        """Return a part of the graph.

        Args:
            users: rows of its users [u]; they become the nodes 0 to u - 1.
            responses: rows of its responses [r]; they become the nodes from u on.
            drawn: its edges by sign.
        """
        nodes = torch.cat([users, responses + self.num_users])
        chosen, rejected = (
            SignEdges(len(nodes), sign.part(nodes, drawn[name].by_target())) for name, sign in self.signs.items()
        )
        return Hop(len(users), chosen, rejected)

    def of_users(self, users: Tensor) -> tuple[Tensor, Hop]:
        """Return the rows of the responses that some users (rows, ascending) compared and the part with their edges."""
        edges = {name: sign.of_users(users) for name, sign in self.signs.items()}
        ends = {name: self.signs[name].ends[:, edge] for name, edge in edges.items()}
        responses = torch.unique(torch.cat([end[1] for end in ends.values()]))
        drawn = {}
        for name, (user, response) in ends.items():
            here = torch.searchsorted(users, user)
            places = torch.searchsorted(responses, response) + len(users)
            both = torch.cat([edges[name], edges[name]])
            drawn[name] = Drawn(torch.cat([places, here]), torch.cat([here, places]), both)
        return responses, self.part(users, responses, drawn)


def _edges_into(rows: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return place of the target among `rows`, source and value of each edge into them that carries anything [E]."""
    pointers = matrix.crow_indices()
    target, edge = _ranges(pointers[rows], pointers[rows + 1])
    value = matrix.values()[edge]
    kept = value != 0
    return target[kept], matrix.col_indices()[edge][kept], value[kept]


def _among(sources: Tensor, num_targets: int, target: Tensor, source: Tensor, value: Tensor) -> SignEdges:
    """Return edges with their sources as places in `sources`, which holds them all, ascending."""
    rows, row = torch.unique_consecutive(target, return_inverse=True)
    column = torch.searchsorted(sources, source)
    return SignEdges(num_targets, SparseMatrix.of(row, column, value, (len(rows), len(sources))), rows)
