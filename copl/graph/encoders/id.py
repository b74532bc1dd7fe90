"""Encoder ``id``: a free embedding for each user id, for the reward model to train; nothing comes from the graph."""

from __future__ import annotations

from typing import final

import attrs
import torch

from copl.graph.encoders.catalogue import FreeUsersOptions
from copl.graph.training import node_embeddings
from copl.interfaces import GraphEncoder, Progress
from copl.records import NodeEmbeddings, PreferenceGraph


@final
class FreeUsers(GraphEncoder):
    """Small random embeddings, marked as trainable: the baseline I2E, where a user is known by an id and no more.

    The mark is `NodeEmbeddings.trainable_users`. Responses are at 0, so the encoder alone tells nothing, and newcomers,
    about whom it cannot tell anything either, get the mean embedding from the strategies that weigh seen users.
    """

    def __init__(self, options: FreeUsersOptions) -> None:
        self._options = options

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Draw the embeddings."""
        dim, generator = self._options.embedding_dim, torch.Generator().manual_seed(seed)
        users = self._options.scale * torch.randn(graph.num_users, dim, generator=generator)
        responses, bias = torch.zeros(graph.num_responses, dim), torch.zeros(graph.num_responses)
        return attrs.evolve(node_embeddings(graph, users, responses, bias), trainable_users=True)
