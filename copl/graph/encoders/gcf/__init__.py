"""Encoder ``gcf``: CoPL's graph collaborative filtering on the signed preference graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import attrs
from torch import Tensor, nn

from copl.graph.encoders.gcf.layers import NEGATIVE_SLOPE, Formula, SignedLayer
from copl.graph.messages.hops import Hop
from copl.graph.messages.message_passing import MessagePassingEncoder
from copl.graph.messages.network import MessagePassingNetwork
from copl.graph.messages.options import MessagePassingOptions, Start
from copl.graph.newcomers import plain
from copl.options import option
from copl.passes import LayerPass
from copl.plugins import Component
from copl.records import NodeEmbeddings

PAPER = {
    "embedding_dim": 512,
    "num_layers": 4,
    "formula": "released",
    "weights": "shared",
    "start": "random",
    "response_bias": False,
    "supervision_share": 0.0,
    "edge_dropout": 0.1,
    "learning_rate": 1e-4,
    "weight_decay": 1e-2,
    "precision": 0.0,
    "l2": 1e-6,
    "schedule": "cosine",
    "sampling": "field",
    "batch_size": 1024,
    "num_epochs": 100,
    "validate_every": 1,
    "patience": None,
    "normalize_users": True,
}
"""The published settings. `supervision_share` 0, `l2` and `normalize_users` are as in the released code."""


@final
@attrs.frozen
class GcfOptions(MessagePassingOptions):
    formula: Formula = option("released", help="layers as in the paper, or as in the released code")
    weights: Literal["shared", "separate"] = option(
        "shared", help="one set of weights for users and responses, or one each"
    )
    negative_edges: bool = option(True, help="pass messages over rejected edges too")
    hadamard: bool = option(True, help="keep the terms with the elementwise product of message and node")
    start: Start = option(
        "mf",
        help="before training: embeddings of the encoder mf, which then competes on validation, or singular vectors of "
        "the signed incidence, either with layers that add chosen and subtract rejected neighbours; or everything "
        "random, as published",
    )
    weight_decay: float = option(
        3.0, help="decoupled weight decay; response effects have none", validator=attrs.validators.ge(0)
    )
    precision: float = option(
        10.0, help="prior precision of the embeddings before the first layer", validator=attrs.validators.ge(0)
    )
    num_epochs: int = option(200, help="passes over the comparisons at most", validator=attrs.validators.ge(1))
    patience: int | None = option(
        8,
        help="validations without a lower loss before stopping; none never stops",
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )


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


COMPONENTS = [
    Component(
        name="gcf",
        options=GcfOptions,
        build=build,
        summary="CoPL's graph collaborative filtering: signed message passing between users and responses",
        reference="CoPL, arXiv 2503.01658",
        presets={"paper": PAPER},
    )
]
