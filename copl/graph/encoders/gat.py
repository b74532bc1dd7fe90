"""Encoder ``gat``: attention over chosen and over rejected responses, with the layers of torch_geometric."""

from __future__ import annotations

from typing import final

import attrs
from torch import Tensor, nn
from torch.nn import functional as F

from copl.graph.messages.geometric import geometric
from copl.graph.messages.message_graph import SignedEdgeIndex
from copl.graph.messages.message_passing import MessagePassingEncoder, MessagePassingNetwork, MessagePassingOptions
from copl.options import option
from copl.plugins import Component


@final
@attrs.frozen
class GatOptions(MessagePassingOptions):
    num_heads: int = option(2, help="attention heads, each D / num_heads wide", validator=attrs.validators.ge(1))

    def __attrs_post_init__(self) -> None:
        if self.embedding_dim % self.num_heads:
            raise ValueError("num_heads must divide embedding_dim")


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

    def forward(self, nodes: Tensor, edges: SignedEdgeIndex) -> Tensor:
        chosen, rejected = edges.present()
        new: Tensor = nodes + self.chosen(nodes, chosen) - self.rejected(nodes, rejected)
        return new


@final
class GatNetwork(MessagePassingNetwork):
    """Layers of signed attention. Brody, Alon and Yahav 2022 (GATv2), arXiv 2105.14491."""

    def __init__(self, options: GatOptions) -> None:
        super().__init__()
        self.dim = options.embedding_dim
        self.layers = nn.ModuleList(GatLayer(self.dim, options.num_heads) for _ in range(options.num_layers))

    def forward(self, nodes: Tensor, edges: SignedEdgeIndex) -> Tensor:
        for layer in self.layers[:-1]:
            nodes = F.elu(layer(nodes, edges))
        last: Tensor = self.layers[-1](nodes, edges)
        return last


def build(options: GatOptions) -> MessagePassingEncoder:
    return MessagePassingEncoder("gat", options, GatNetwork)


COMPONENTS = [
    Component(
        name="gat",
        options=GatOptions,
        build=build,
        summary="graph attention over chosen and over rejected responses",
        reference="Brody, Alon and Yahav 2022, How Attentive are Graph Attention Networks?, arXiv 2105.14491",
    )
]
