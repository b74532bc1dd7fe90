"""The network of ``gcf`` under the names that the tests of parity call its parts by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor, nn

from copl.graph.encoders.catalogue import GcfOptions
from copl.graph.encoders.gcf import GcfNetwork
from copl.graph.messages.message_graph import MessageGraph
from copl.graph.messages.node_table import NodeTable

if TYPE_CHECKING:
    from copl.graph.encoders.gcf.layers import SignedLayer
    from copl.graph.messages.hops import Hop, SignEdges
    from copl.records import Comparisons


@attrs.frozen(eq=False)
class Adjacency:
    """A hop over the whole graph, of whose matrices [U + R, U + R] the blocks [U, R] can be looked at."""

    hop: Hop

    @property
    def chosen(self) -> Block:
        return self._block(self.hop.chosen)

    @property
    def rejected(self) -> Block:
        return self._block(self.hop.rejected)

    def _block(self, edges: SignEdges) -> Block:
        return Block(edges.matrix.to_dense(), slice(self.hop.num_users), slice(self.hop.num_users, None))


@attrs.frozen(eq=False)
class Block:
    dense: Tensor
    rows: slice
    columns: slice

    @property
    def T(self) -> Block:  # noqa: N802  # the usual name of a transpose
        return Block(self.dense, self.columns, self.rows)

    def to_dense(self) -> Tensor:
        return self.dense[self.rows, self.columns]


class SignedEdges:
    def __init__(self, comparisons: Comparisons, num_users: int, num_responses: int) -> None:
        self._of = comparisons, num_users, num_responses

    def adjacency(self, weight: Tensor) -> Adjacency:
        comparisons, num_users, num_responses = self._of
        weighted = attrs.evolve(comparisons, weight=weight.numpy())
        return Adjacency(MessageGraph(weighted, num_users, num_responses).whole())


class SignedNetwork(nn.Module):
    """Tables and layers together, over the whole graph."""

    def __init__(self, users: Tensor, responses: Tensor, layers: list[SignedLayer], *, bias: bool) -> None:
        super().__init__()
        options = GcfOptions(embedding_dim=users.shape[1], num_layers=len(layers))
        self._table, self._network = NodeTable(users, responses, None, bias=bias), GcfNetwork(options)
        self._network.layers = self.layers = nn.ModuleList(layers)
        self._sizes = len(users), len(responses)

    @property
    def users(self) -> Tensor:
        return self._part(slice(self._sizes[0]))

    @property
    def responses(self) -> Tensor:
        return self._part(slice(self._sizes[0], None))

    def _part(self, rows: slice) -> Tensor:
        part = self._table.free.detach()[rows]
        part.grad = None if self._table.free.grad is None else self._table.free.grad[rows]
        return part

    @property
    def response_bias(self) -> Tensor:
        return self._table.effects(torch.arange(self._sizes[1]))

    def forward(self, adjacency: Adjacency) -> tuple[Tensor, Tensor]:
        nodes = self._table(torch.arange(sum(self._sizes)))
        users, responses = self._network(nodes, (adjacency.hop,) * len(self.layers)).split(self._sizes)
        return users, responses
