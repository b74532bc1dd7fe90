"""Encoder ``gcf``: CoPL's graph collaborative filtering on the signed preference graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from copl.graph.encoders.catalogue import GcfOptions
from copl.graph.encoders.gcf.layers import NEGATIVE_SLOPE, SignedLayer
from copl.graph.messages.hops import Hop
from copl.graph.messages.message_passing import MessagePassingEncoder
from copl.graph.messages.network import MessagePassingNetwork
from copl.graph.newcomers import plain
from copl.records import NodeEmbeddings
from copl.records.passes import LayerPass


@final
class GcfNetwork(MessagePassingNetwork):
    """Signed layers one after the other; the last layer's output is the embedding."""

    slope = NEGATIVE_SLOPE

    def __init__(self, options: GcfOptions) -> None:
        super().__init__()
        self.dim = options.embedding_dim
        layers = [
            SignedLayer(
                options.embedding_dim,
                formula=options.formula,
                weights=options.weights,
                hadamard=options.hadamard,
                negative_edges=options.negative_edges,
            )
            for _ in range(options.num_layers)
        ]
        for layer in layers:
            (layer.draw if options.start == "random" else layer.plain)()
        self.layers = nn.ModuleList(layers)

    def forward(self, nodes: Tensor, hops: Sequence[Hop]) -> Tensor:
        for layer, hop in zip(self.layers, hops, strict=True):
            nodes = layer(nodes, hop)
        return nodes

    def newcomer_layers(self, nodes: Tensor, hop: Hop) -> tuple[LayerPass, ...]:
        passes = []
        for layer in self.layers:
            assert isinstance(layer, SignedLayer)
            maps = {name: plain(value) for name, value in layer.of_users.maps().items()}
            passes.append(LayerPass(plain(nodes[hop.num_users :]), **maps))
            nodes = layer(nodes, hop)
        return tuple(passes)


def build(options: GcfOptions, factors: NodeEmbeddings | None = None) -> MessagePassingEncoder:
    """Return the encoder; `factors` are what ``mf`` has found in the same graph, where it has run already."""
    return MessagePassingEncoder("gcf", options, GcfNetwork, factors)
