"""Encoder ``none``: no graph. Every user has the same embedding, so nothing downstream can tell users apart."""

from __future__ import annotations

from typing import final

import torch

from copl.graph.effects import response_effects
from copl.graph.training import learnable, node_embeddings
from copl.interfaces import GraphEncoder, Progress
from copl.options import NoOptions
from copl.records import NodeEmbeddings, PreferenceGraph


@final
class NoGraph(GraphEncoder):
    """Users and responses at 0 in one dimension; all that is learnt are response effects (Bradley-Terry).

    The ablation of the graph: a reward model on top of it sees users, but no difference between them.
    """

    def __init__(self, options: NoOptions) -> None:
        self._options = options

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the response effects."""
        effects = response_effects(*learnable(graph, seed), graph.num_responses)
        zeros = torch.zeros(graph.num_users, 1), torch.zeros(graph.num_responses, 1)
        return node_embeddings(graph, *zeros, torch.from_numpy(effects))
