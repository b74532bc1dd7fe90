"""The message passing most encoders are made of. Imports torch_geometric: use `geometric.weighted_sum`."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor  # noqa: TC002  # torch_geometric reads the signatures at run time
from torch_geometric.nn import MessagePassing

from copl.graph.messages.adjacency import SparseMatrix, compressed_rows


@final
class WeightedSum(MessagePassing):  # type: ignore[misc]  # torch_geometric ships no types
    r"""x'_i = sum over edges j -> i of w_ji x_j, by one sparse product where the edges are sorted by target.

    The edge index keeps both orders of the edges, for the product and for its backward pass; weights are constants.

    Shapes: nodes [N, D], edges [2, E], weights [E]; returns [N, D].
    """

    SUPPORTS_FUSED_EDGE_INDEX = True

    def __init__(self) -> None:
        super().__init__(aggr="sum")

    def forward(self, nodes: Tensor, edge_index: Any, edge_weight: Tensor) -> Tensor:
        summed: Tensor = self.propagate(edge_index, x=nodes, edge_weight=edge_weight, size=(len(nodes), len(nodes)))
        return summed

    def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:
        return edge_weight[:, None] * x_j

    def message_and_aggregate(self, edge_index: Any, x: Tensor, edge_weight: Tensor) -> Tensor:
        # not edge_index.matmul, which builds layouts that torch warns of
        (from_target, sources), _ = edge_index.get_csc()
        (from_source, targets), order = edge_index.get_csr()
        size = (len(x), len(x))
        back = edge_weight if order is None else edge_weight[order]
        matrix = compressed_rows(from_target, sources, edge_weight, size)
        return SparseMatrix(matrix, compressed_rows(from_source, targets, back, size)) @ x
