"""What an encoder that passes messages has of its own: its layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from copl.graph.messages.hops import Hop
from copl.records.passes import LayerPass


class MessagePassingNetwork(nn.Module, ABC):
    """The layers of an encoder, one for each hop.

    Attributes:
        dim: width of what `forward` returns.
        slope: slope of the LeakyReLU after each of the layers that `newcomer_layers` returns.
    """

    dim: int
    slope: float = 0.2

    @abstractmethod
    def forward(self, nodes: Tensor, hops: Sequence[Hop]) -> Tensor:
        """Return the embeddings [m, dim] of the targets of the last hop.

        Args:
            nodes: the sources of the first hop before the first layer, users first [n, D].
            hops: the edges that each layer passes messages over; the targets of one are the sources of the next.
        """

    def newcomer_layers(self, nodes: Tensor, hop: Hop) -> tuple[LayerPass, ...]:
        """Return what the layers make of a newcomer; nothing where that is no `copl.records.passes.SignedPass`.

        Args:
            nodes: all nodes before the first layer, users first [U + R, D].
            hop: the whole graph.
        """
        return ()
