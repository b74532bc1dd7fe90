"""Encoder ``gat``: attention over chosen and over rejected responses, with the layers of torch_geometric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn
from torch.nn import functional as F

from copl.graph.encoders.catalogue import GatOptions
from copl.graph.messages.geometric import geometric
from copl.graph.messages.hops import Hop
from copl.graph.messages.message_passing import MessagePassingEncoder
from copl.graph.messages.network import MessagePassingNetwork


@final
class GatLayer(nn.Module):
    """e' = e + attention over chosen neighbours - attention over rejected ones; `torch_geometric.nn.GATv2Conv` each.

    An attention of its own for each sign, as in SiGAT (Huang et al. 2019, arXiv 1906.10958): a softmax cannot subtract.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        conv = geometric().nn.GATv2Conv
        self.chosen, self.rejected = (
            conv(dim, dim // num_heads, heads=num_heads, add_self_loops=False, bias=False) for _ in range(2)
        )

    def forward(self, nodes: Tensor, hop: Hop) -> Tensor:
        own = hop.own(nodes)
        chosen, rejected = (edges.index() for edges in (hop.chosen, hop.rejected))
        new: Tensor = own + self.chosen((nodes, own), chosen) - self.rejected((nodes, own), rejected)
        return new


@final
class GatNetwork(MessagePassingNetwork):
    """Layers of signed attention. Brody, Alon and Yahav 2022 (GATv2), arXiv 2105.14491."""

    def __init__(self, options: GatOptions) -> None:
        super().__init__()
        self.dim = options.embedding_dim
        self.layers = nn.ModuleList(GatLayer(self.dim, options.num_heads) for _ in range(options.num_layers))

    def forward(self, nodes: Tensor, hops: Sequence[Hop]) -> Tensor:
        last = len(self.layers) - 1
        for number, (layer, hop) in enumerate(zip(self.layers, hops, strict=True)):
            nodes = layer(nodes, hop)
            nodes = nodes if number == last else F.elu(nodes)
        return nodes


def build(options: GatOptions) -> MessagePassingEncoder:
    return MessagePassingEncoder("gat", options, GatNetwork)
