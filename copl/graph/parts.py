"""A graph of some of its responses, and back from it to all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
from torch import Tensor

from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.records.passes import NewcomerPass, SignedPass
from copl.system.converters import renumbering

if TYPE_CHECKING:
    from copl.records import IntArray


def compared_responses(comparisons: Comparisons) -> IntArray:
    """Return the rows of the responses that comparisons touch, ascending."""
    return np.unique(np.concatenate([comparisons.chosen, comparisons.rejected]))


def restricted(graph: PreferenceGraph, kept: IntArray) -> PreferenceGraph:
    """Return the graph of some responses, without texts; comparisons of others are left out."""
    everybody, new = np.arange(graph.num_users), renumbering(kept, graph.num_responses)
    keys = tuple(graph.response_keys[row] for row in kept.tolist())
    train, validation = (part.within(everybody, new) for part in (graph.comparisons, graph.validation))
    return PreferenceGraph(graph.user_ids, keys, train, validation)


def spread_out(embeddings: NodeEmbeddings, graph: PreferenceGraph, kept: IntArray) -> NodeEmbeddings:
    """Return embeddings of some responses as those of all responses of a graph; zeros for the others."""
    rows, former = torch.from_numpy(kept), renumbering(kept, graph.num_responses)

    def spread(values: Tensor, dim: int = 0) -> Tensor:
        sizes = [graph.num_responses if place == dim else size for place, size in enumerate(values.shape)]
        return values.new_zeros(sizes).index_copy_(dim, rows, values)

    return NodeEmbeddings(
        graph.user_ids,
        graph.response_keys,
        embeddings.users,
        spread(embeddings.responses),
        spread(embeddings.response_bias),
        graph.comparisons,
        newcomer_pass=_spread_pass(embeddings.newcomer_pass, spread),
        memory=None if embeddings.memory is None else embeddings.memory.renumbered(None, former),
    )


def _spread_pass(newcomer_pass: NewcomerPass | None, spread: Callable[..., Tensor]) -> NewcomerPass | None:
    if not isinstance(newcomer_pass, SignedPass):
        return newcomer_pass
    layers = tuple(attrs.evolve(layer, responses=spread(layer.responses)) for layer in newcomer_pass.layers)
    return attrs.evolve(newcomer_pass, degrees=spread(newcomer_pass.degrees, 1), layers=layers)
