"""Only what a batch can see: the nodes from which something reaches its comparisons, layer by layer.

The loss of a batch needs the last layer at the users and responses of the batch, the layer before at their neighbours
too, and so on. Everything else a full propagation computes is thrown away, and its gradient is zero. With 1,024
comparisons of a sparse graph that is most of the work of four layers; the result is the same.
"""

from __future__ import annotations

from typing import final

import attrs
import torch
from torch import Tensor

from copl.graph.messages.adjacency import SignedAdjacency, SparseMatrix, compressed_rows
from copl.graph.training import ComparisonTensors


@final
@attrs.frozen(eq=False)
class Messages:
    """Normalised sums over the edges of one sign.

    Attributes:
        sums: the sums [m, D].
        rows: the nodes that have such edges [m], each once; None stands for all nodes in order.
    """

    sums: Tensor
    rows: Tensor | None = None


@final
@attrs.frozen(eq=False)
class Incoming:
    """The edges of one sign into some nodes: those that have any, and the matrix from the nodes of the layer before."""

    rows: Tensor
    matrix: SparseMatrix

    def messages(self, sources: Tensor) -> Messages:
        return Messages(self.matrix @ sources, self.rows)


@final
@attrs.frozen(eq=False)
class LayerField:
    """What one layer computes: nodes by their place among the nodes of the layer before, and the edges into them.

    Attributes:
        users: places of the users [u].
        responses: places of the responses [r].
        to_users: chosen and rejected edges into the users.
        to_responses: chosen and rejected edges into the responses.
    """

    users: Tensor
    responses: Tensor
    to_users: tuple[Incoming, Incoming]
    to_responses: tuple[Incoming, Incoming]


@final
@attrs.frozen(eq=False)
class ReceptiveField:
    """The field of a batch.

    Attributes:
        users: rows of the users before the first layer [u].
        responses: rows of the responses before the first layer [r].
        layers: what each layer computes, the first layer first.
        responses_seen: rows of the responses after the last layer; those of the batch.
        batch: the batch in places of its own users and responses.
    """

    users: Tensor
    responses: Tensor
    layers: tuple[LayerField, ...]
    responses_seen: Tensor
    batch: ComparisonTensors

    @classmethod
    def of(cls, batch: ComparisonTensors, adjacency: SignedAdjacency, num_layers: int) -> ReceptiveField:
        """Return the field of a batch in a graph whose edges of value 0 carry nothing."""
        users, user = torch.unique(batch.user, return_inverse=True)
        seen, ends = torch.unique(torch.cat([batch.chosen, batch.rejected]), return_inverse=True)
        chosen, rejected = ends.split(len(batch))
        responses, layers = seen, []
        signs = (adjacency.chosen, adjacency.rejected)
        for _ in range(num_layers):
            from_responses = [_Edges.into(users, sign.matrix) for sign in signs]
            from_users = [_Edges.into(responses, sign.transpose) for sign in signs]
            all_users = torch.unique(torch.cat([users, *(edges.source for edges in from_users)]))
            all_responses = torch.unique(torch.cat([responses, *(edges.source for edges in from_responses)]))
            layers.append(
                LayerField(
                    torch.searchsorted(all_users, users),
                    torch.searchsorted(all_responses, responses),
                    (from_responses[0].among(all_responses), from_responses[1].among(all_responses)),
                    (from_users[0].among(all_users), from_users[1].among(all_users)),
                )
            )
            users, responses = all_users, all_responses
        own = ComparisonTensors(user, chosen, rejected, batch.weight)
        return cls(users, responses, tuple(layers[::-1]), seen, own)


@final
@attrs.frozen(eq=False)
class _Edges:
    """Edges into some nodes, sorted by target: place of the target [E], row of the source [E], value [E]."""

    target: Tensor
    source: Tensor
    value: Tensor

    @classmethod
    def into(cls, rows: Tensor, matrix: Tensor) -> _Edges:
        pointers = matrix.crow_indices()
        starts = pointers[rows]
        counts = pointers[rows + 1] - starts
        target = torch.repeat_interleave(torch.arange(len(rows)), counts)
        first = torch.cumsum(counts, 0) - counts
        edge = torch.arange(len(target)) + (starts - first)[target]
        value = matrix.values()[edge]
        kept = value != 0
        return cls(target[kept], matrix.col_indices()[edge][kept], value[kept])

    def among(self, sources: Tensor) -> Incoming:
        """Return the edges with their sources as places in `sources`, which holds them all in ascending order."""
        rows, row = torch.unique_consecutive(self.target, return_inverse=True)
        column = torch.searchsorted(sources, self.source)
        order = torch.argsort(column, stable=True)
        size = len(rows), len(sources)
        matrix = SparseMatrix(
            compressed_rows(_pointers(row, size[0]), column, self.value, size),
            compressed_rows(_pointers(column, size[1]), row[order], self.value[order], size[::-1]),
        )
        return Incoming(rows, matrix)


def _pointers(rows: Tensor, size: int) -> Tensor:
    counts = torch.bincount(rows, minlength=size)
    return torch.cat([counts.new_zeros(1), torch.cumsum(counts, 0)])
