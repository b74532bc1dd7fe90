"""Encoder ``spectral``: singular vectors of the signed incidence beside response effects; nothing is trained."""

from __future__ import annotations

from typing import final

import numpy as np
import torch

from copl.bradley_terry import mean_log_loss
from copl.graph.effects import best_scale, response_effects
from copl.graph.encoders.catalogue import SpectralOptions
from copl.graph.starts import leading_vectors
from copl.graph.training import learnable, node_embeddings, trivial_embeddings
from copl.interfaces import GraphEncoder, Progress
from copl.records import NodeEmbeddings, PreferenceGraph

STAGE = "graph"


@final
class Spectral(GraphEncoder):
    r"""Margins from the truncated SVD S ~ U diag(s) Vᵀ of the normalised signed incidence, and response effects.

    Users are (S Sᵀ)^t S V = U s^(2t + 1), where each of the t rounds of smoothing spreads what users say over the
    responses and back; responses are V. The number of vectors, t and the scale beside the response effects have the
    lowest validation loss. Sarwar et al. 2000, "Application of Dimensionality Reduction in Recommender System"; the
    random subspace iteration is by Halko, Martinsson and Tropp, arXiv 0909.4061.
    """

    def __init__(self, options: SpectralOptions) -> None:
        self._options = options

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Compute the embeddings."""
        dim = self._options.embedding_dim
        train, validation = learnable(graph, seed)
        if not len(train):
            return trivial_embeddings(graph, dim)
        held = validation if len(validation) else train
        with progress.task("graph encoder spectral", total=1 + len(self._options.smoothing)) as task:
            effects = response_effects(train, validation, graph.num_responses)
            shared = effects[held.chosen] - effects[held.rejected]
            vectors = leading_vectors(train, graph.num_users, graph.num_responses, dim, seed)
            left, values, right = (part.numpy() for part in vectors)
            left, right = left * np.sqrt(graph.num_users), right * np.sqrt(graph.num_responses)
            task.advance()
            difference = right[held.chosen] - right[held.rejected]
            best, lowest = np.zeros(dim), mean_log_loss(shared, held.weight)
            for rounds in self._options.smoothing:
                strength = (values / max(values[0], 1e-12)) ** (2 * rounds + 1)
                margins = np.cumsum(left[held.user] * strength * difference, axis=1)
                for kept in _doubling(dim):
                    scale, loss = best_scale(margins[:, kept - 1], shared, held.weight)
                    if loss < lowest:
                        best, lowest = scale * strength * (np.arange(dim) < kept), loss
                task.advance(validation_loss=lowest)
        progress.log(STAGE, num_vectors=int((best > 0).sum()), validation_loss=lowest)
        users, responses = (torch.from_numpy(side * np.sqrt(best)) for side in (left, right))
        return node_embeddings(graph, users, responses, torch.from_numpy(effects))


def _doubling(limit: int) -> list[int]:
    """Return 1, 2, 4, ... and the limit.

    >>> _doubling(6)
    [1, 2, 4, 6]
    """
    return [*(2**power for power in range(limit.bit_length()) if 2**power < limit), limit]
