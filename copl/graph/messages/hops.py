"""The edges that one layer passes messages over: from its source nodes to the nodes it computes."""

from __future__ import annotations

from typing import final

import attrs
import torch
from torch import Tensor

from copl.graph.messages.sparse import SparseMatrix


@final
@attrs.frozen(eq=False)
class Messages:
    """Normalised sums over the edges of one sign.

    Attributes:
        sums: the sums [k, D].
        rows: the targets that have such edges [k], ascending; None stands for all targets in order.
    """

    sums: Tensor
    rows: Tensor | None = None

    def split(self, place: int) -> tuple[Messages, Messages]:
        """Return the messages of the targets before a place and of those from it on, numbered from there."""
        if self.rows is None:
            return Messages(self.sums[:place]), Messages(self.sums[place:])
        cut = int(torch.searchsorted(self.rows, place))
        return Messages(self.sums[:cut], self.rows[:cut]), Messages(self.sums[cut:], self.rows[cut:] - place)


@final
@attrs.frozen(eq=False)
class SignEdges:
    """The edges of one sign into the targets of a hop.

    Attributes:
        num_targets: number of targets m.
        matrix: value of the edge from each source to each target that has any edges [k, n]; edges taken out have 0 or
            are not there.
        rows: those targets [k], ascending; None where they are all targets in order.
    """

    num_targets: int
    matrix: SparseMatrix
    rows: Tensor | None = None

    def messages(self, nodes: Tensor) -> Messages:
        """Return the weighted sums of the sources [n, D] at the targets that have edges."""
        return Messages(self.matrix @ nodes, self.rows)

    def sums(self, nodes: Tensor) -> Tensor:
        """Return the weighted sums of the sources [n, D] at all targets [m, D]; zeros where there are no edges."""
        sums = self.matrix @ nodes
        if self.rows is None:
            return sums
        return sums.new_zeros(self.num_targets, sums.shape[1]).index_copy(0, self.rows, sums)

    def index(self) -> Tensor:
        """Return source and target of each edge, without those taken out [2, E]; for layers of torch_geometric."""
        rows, columns, values = self.matrix.entries()
        targets = rows if self.rows is None else self.rows[rows]
        return torch.stack([columns, targets])[:, values != 0]


@final
@attrs.frozen(eq=False)
class Hop:
    """The edges of both signs from n source nodes to m targets, users first among both.

    Where the whole graph is here, an edge has the value w / sqrt(deg_source deg_target), degrees of its sign.

    Attributes:
        num_users: the first so many targets are users.
        chosen: the chosen edges.
        rejected: the rejected edges.
        targets: places of the targets among the sources [m]; None where they are the sources.
    """

    num_users: int
    chosen: SignEdges
    rejected: SignEdges
    targets: Tensor | None = None

    def own(self, nodes: Tensor) -> Tensor:
        """Return the targets' own rows [m, D] of the sources [n, D]."""
        return nodes if self.targets is None else nodes.index_select(0, self.targets)
