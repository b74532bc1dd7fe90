"""Encoder ``lightgcn``: LightGCN on the signed preference graph, and the shortest example of such an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from copl.graph.encoders.catalogue import LightGcnOptions
from copl.graph.messages.hops import Hop
from copl.graph.messages.message_passing import MessagePassingEncoder
from copl.graph.messages.network import MessagePassingNetwork
from copl.graph.newcomers import plain
from copl.records.passes import LayerPass


@final
class LightGcnNetwork(MessagePassingNetwork):
    r"""The mean over layers of e^(k+1) = Z+ - Z-, where Z is the normalised sum of e^k over the edges of a sign.

    He et al. 2020, arXiv 2002.02126; there all edges are positive.
    """

    slope = 1.0

    def __init__(self, options: LightGcnOptions) -> None:
        super().__init__()
        self.dim = options.embedding_dim
        self._num_layers = options.num_layers
        self._negative_edges = options.negative_edges

    def forward(self, nodes: Tensor, hops: Sequence[Hop]) -> Tensor:
        total = nodes
        for hop in hops:
            nodes = self._round(nodes, hop)
            total = hop.own(total) + nodes
        return total / (len(hops) + 1)

    def newcomer_layers(self, nodes: Tensor, hop: Hop) -> tuple[LayerPass, ...]:
        # nothing a user receives depends on the user, so all rounds are one over the sum of what they bring
        total = nodes
        for _ in range(self._num_layers - 1):
            nodes = self._round(nodes, hop)
            total = total + nodes
        share, responses = torch.eye(self.dim) / (self._num_layers + 1), total[hop.num_users :]
        rejected = -share if self._negative_edges else None
        return (LayerPass(plain(responses), own=share, chosen=share, rejected=rejected),)

    def _round(self, nodes: Tensor, hop: Hop) -> Tensor:
        new = hop.chosen.sums(nodes)
        return new - hop.rejected.sums(nodes) if self._negative_edges else new


def build(options: LightGcnOptions) -> MessagePassingEncoder:
    return MessagePassingEncoder("lightgcn", options, LightGcnNetwork)
