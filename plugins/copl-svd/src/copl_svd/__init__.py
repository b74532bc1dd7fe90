"""A graph encoder for `copl`: the truncated SVD of the signed matrix of who chose and who rejected what."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from attrs import validators
from scipy import sparse

from copl.bradley_terry import mean_log_loss
from copl.interfaces import GraphEncoder, Progress
from copl.options import option
from copl.plugins import Component
from copl.records import Comparisons, FloatArray, NodeEmbeddings, PreferenceGraph


@attrs.frozen
class SvdOptions:
    embedding_dim: int = option(4, help="number of singular vectors kept", validator=validators.ge(1))
    num_iterations: int = option(20, help="products with the matrix and its transpose", validator=validators.ge(1))


class SvdEncoder(GraphEncoder):
    """Users and responses by the leading singular vectors of D_u^(-1/2) (A_chosen - A_rejected) D_r^(-1/2).

    The margin of a comparison is to be read as log-odds, so users are scaled by what suits held-out comparisons.

    Block Krylov method (Musco and Musco 2015): multiply random vectors by the matrix and its transpose again and again,
    then take the exact SVD within all that came out. It needs no more than products with a sparse matrix.
    """

    def __init__(self, options: SvdOptions) -> None:
        self.options = options

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        rows = graph.comparisons
        shape = (graph.num_users, graph.num_responses)
        chosen = sparse.csr_array((rows.weight, (rows.user, rows.chosen)), shape=shape)
        rejected = sparse.csr_array((rows.weight, (rows.user, rows.rejected)), shape=shape)
        signed = _over_root_degree(chosen + rejected, axis=1) @ (chosen - rejected)
        signed = signed @ _over_root_degree(chosen + rejected, axis=0)

        blocks = [np.random.default_rng(seed).normal(size=(graph.num_responses, self.options.embedding_dim))]
        with progress.task("encoder svd", total=self.options.num_iterations) as task:
            for _ in range(self.options.num_iterations):
                blocks.append(np.linalg.qr(signed.T @ (signed @ blocks[-1])).Q)
                task.advance()
        krylov = np.linalg.qr(np.hstack(blocks)).Q
        right = np.linalg.svd(signed @ krylov, full_matrices=False).Vh[: self.options.embedding_dim]
        basis = krylov @ right.T
        users = signed @ basis
        users = users * _scale(users, basis, graph.validation if len(graph.validation) else rows)

        return NodeEmbeddings(
            graph.user_ids,
            graph.response_keys,
            users=torch.tensor(users, dtype=torch.float32),
            responses=torch.tensor(basis, dtype=torch.float32),
            response_bias=torch.zeros(graph.num_responses),
            comparisons=rows,
        )


def _scale(users: FloatArray, responses: FloatArray, held: Comparisons) -> float:
    """Return the factor by which margins are log-odds: that of the lowest loss on held-out comparisons."""
    margins = (users[held.user] * (responses[held.chosen] - responses[held.rejected])).sum(axis=1)
    return min((2.0**power for power in range(13)), key=lambda scale: mean_log_loss(scale * margins, held.weight))


def _over_root_degree(edges: sparse.csr_array, axis: int) -> sparse.dia_array:
    return sparse.diags_array(1.0 / np.sqrt(np.maximum(edges.sum(axis=axis), 1.0)))


def copl_graph_encoders() -> list[Component]:
    return [
        Component(
            name="svd",
            options=SvdOptions,
            build=SvdEncoder,
            summary="truncated SVD of the signed user-response matrix; no training, seconds on large graphs",
            reference="Sarwar et al. 2000, Application of Dimensionality Reduction in Recommender System",
        )
    ]
