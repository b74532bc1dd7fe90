"""Encoder ``signed-gcn``: the signed graph convolutional network, with the layers of torch_geometric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from copl.graph.encoders.catalogue import SignedGcnOptions
from copl.graph.messages.geometric import geometric
from copl.graph.messages.hops import Hop
from copl.graph.messages.message_passing import MessagePassingEncoder
from copl.graph.messages.network import MessagePassingNetwork


@final
class SignedGcnNetwork(MessagePassingNetwork):
    """Two embeddings a node, of friends and of foes, side by side; by `torch_geometric.nn.SignedConv`.

    A friend of a friend and a foe of a foe are friends (balance theory). Means over neighbours, no edge values. Derr,
    Ma and Tang 2018, arXiv 1808.06354.
    """

    def __init__(self, options: SignedGcnOptions) -> None:
        super().__init__()
        self.dim, half = options.embedding_dim, options.embedding_dim // 2
        conv = geometric().nn.SignedConv
        layers = [conv(options.embedding_dim, half, first_aggr=True)]
        layers += [conv(half, half, first_aggr=False) for _ in range(options.num_layers - 1)]
        self.layers = nn.ModuleList(layers)

    def forward(self, nodes: Tensor, hops: Sequence[Hop]) -> Tensor:
        last = len(self.layers) - 1
        for number, (layer, hop) in enumerate(zip(self.layers, hops, strict=True)):
            nodes = layer((nodes, hop.own(nodes)), hop.chosen.index(), hop.rejected.index())
            nodes = nodes if number == last else torch.tanh(nodes)
        return nodes


def build(options: SignedGcnOptions) -> MessagePassingEncoder:
    return MessagePassingEncoder("signed-gcn", options, SignedGcnNetwork)
