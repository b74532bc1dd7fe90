"""Encoder ``lightgcn``: LightGCN on the signed preference graph, and the shortest example of such an encoder."""

from __future__ import annotations

from typing import final

import attrs
import torch
from torch import Tensor

from copl.graph.messages.geometric import weighted_sum
from copl.graph.messages.message_graph import SignedEdgeIndex
from copl.graph.messages.message_passing import MessagePassingEncoder, MessagePassingNetwork, MessagePassingOptions
from copl.graph.newcomers import plain
from copl.options import option
from copl.passes import LayerPass
from copl.plugins import Component


@final
@attrs.frozen
class LightGcnOptions(MessagePassingOptions):
    negative_edges: bool = option(True, help="subtract the messages over rejected edges")


@final
class LightGcnNetwork(MessagePassingNetwork):
    r"""The mean over layers of e^(k+1) = Z+ - Z-, where Z is the normalised sum of e^k over the edges of a sign.

    He et al. 2020, arXiv 2002.02126; there all edges are positive.
    """

    def __init__(self, options: LightGcnOptions) -> None:
        super().__init__()
        self.dim = options.embedding_dim
        self._options = options
        self._sum = weighted_sum()

    def forward(self, nodes: Tensor, edges: SignedEdgeIndex) -> Tensor:
        return torch.stack(self._rounds(nodes, edges)).mean(dim=0)

    slope = 1.0

    def newcomer(self, nodes: Tensor, edges: SignedEdgeIndex) -> tuple[LayerPass, ...]:
        # nothing a user receives depends on the user, so all rounds are one over the sum of what they bring
        *heard, _ = self._rounds(nodes, edges)
        share = torch.eye(self.dim) / (len(heard) + 1)
        responses = torch.stack(heard).sum(dim=0)[edges.num_users :]
        rejected = -share if self._options.negative_edges else None
        return (LayerPass(plain(responses), own=share, chosen=share, rejected=rejected),)

    def _rounds(self, nodes: Tensor, edges: SignedEdgeIndex) -> list[Tensor]:
        """Return the embeddings before the first layer and after each."""
        layers = [nodes]
        for _ in range(self._options.num_layers):
            new = self._sum(layers[-1], edges.chosen, edges.chosen_norm)
            if self._options.negative_edges:
                new = new - self._sum(layers[-1], edges.rejected, edges.rejected_norm)
            layers.append(new)
        return layers


def build(options: LightGcnOptions) -> MessagePassingEncoder:
    return MessagePassingEncoder("lightgcn", options, LightGcnNetwork)


COMPONENTS = [
    Component(
        name="lightgcn",
        options=LightGcnOptions,
        build=build,
        summary="light graph convolution: the mean of a few rounds of signed messages, without weights",
        reference="He et al. 2020, LightGCN, arXiv 2002.02126",
    )
]
