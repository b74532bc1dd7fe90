"""Encoder ``ngcf``: neural graph collaborative filtering on the signed preference graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copl.graph.encoders.catalogue import NgcfOptions
from copl.graph.messages.hops import Hop
from copl.graph.messages.message_passing import MessagePassingEncoder
from copl.graph.messages.network import MessagePassingNetwork

_SLOPE = 0.2


@final
class NgcfLayer(nn.Module):
    r"""e' = LeakyReLU(W1 (e + Z+) + W2 (Z+ * e) - W3 Z- - W4 (Z- * e)), slope 0.2.

    The published layer has the chosen terms only; W1 and W3 start as the identity, W2 and W4 at 0.
    """

    def __init__(self, dim: int, negative_edges: bool) -> None:
        super().__init__()
        self.plain, self.product = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.rejected = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(2 if negative_edges else 0))
        for linear in (self.plain, *self.rejected[:1]):
            nn.init.eye_(linear.weight)
        for linear in (self.product, *self.rejected[1:]):
            nn.init.zeros_(linear.weight)
        for linear in (self.plain, self.product):
            nn.init.zeros_(linear.bias)

    def forward(self, nodes: Tensor, hop: Hop) -> Tensor:
        own, chosen = hop.own(nodes), hop.chosen.sums(nodes)
        new = self.plain(own + chosen) + self.product(chosen * own)
        if self.rejected:
            rejected = hop.rejected.sums(nodes)
            plain, product = self.rejected
            new = new - plain(rejected) - product(rejected * own)
        return F.leaky_relu(new, _SLOPE)


@final
class NgcfNetwork(MessagePassingNetwork):
    """The embeddings before the first layer and after each, side by side; later ones scaled to length 1, as published.

    Wang et al. 2019, arXiv 1905.08108.
    """

    def __init__(self, options: NgcfOptions) -> None:
        super().__init__()
        self.dim = options.embedding_dim * (1 + options.num_layers)
        self._dropout = options.dropout
        layers = [NgcfLayer(options.embedding_dim, options.negative_edges) for _ in range(options.num_layers)]
        self.layers = nn.ModuleList(layers)

    def forward(self, nodes: Tensor, hops: Sequence[Hop]) -> Tensor:
        parts = [nodes]
        for layer, hop in zip(self.layers, hops, strict=True):
            nodes = F.dropout(layer(nodes, hop), self._dropout, self.training)
            parts = [*(hop.own(part) for part in parts), F.normalize(nodes)]
        return torch.cat(parts, dim=1)


def build(options: NgcfOptions) -> MessagePassingEncoder:
    return MessagePassingEncoder("ngcf", options, NgcfNetwork)
