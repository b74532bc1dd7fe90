"""Neighbours of newcomers: seen users who chose a response that the newcomer chose too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from copl.adapt.support import MatchedSupport
from copl.records import NodeEmbeddings

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray, IntArray


def neighbour_blocks(
    support: MatchedSupport, trained: NodeEmbeddings
) -> Iterator[tuple[IntArray, MatchedSupport, IntArray, Any]]:
    """Yield blocks of newcomers with their neighbours.

    Each block is the newcomers' rows [n], their part of the support, the rows of the seen users who are neighbours of
    any of them [v], ascending, and a sparse matrix [n, v] (SciPy CSR) with a one for every neighbour.
    """
    num_responses, num_users = len(trained.response_keys), len(trained.user_ids)
    said = support.chosen < num_responses
    # Only edges to responses that newcomers chose can matter; the seen users' graph is never put together as a whole.
    wanted = np.zeros(num_responses, dtype=bool)
    wanted[support.chosen[said]] = True
    edges = np.flatnonzero(wanted[trained.comparisons.chosen] & (trained.comparisons.weight > 0))
    choosers = _incidence(
        trained.comparisons.chosen[edges], trained.comparisons.user[edges], (num_responses, num_users)
    )
    for newcomers, part in support.blocks():
        said = part.chosen < num_responses
        chosen = _incidence(part.newcomer[said], part.chosen[said], (len(part), num_responses))
        sharing = chosen @ choosers
        columns, position = np.unique(sharing.indices, return_inverse=True)
        ones = np.ones(len(position), dtype=np.float64)
        yield (
            newcomers,
            part,
            columns.astype(np.int64),
            sparse.csr_matrix((ones, position, sharing.indptr), shape=(len(part), len(columns))),
        )


def _incidence(rows: IntArray, columns: IntArray, shape: tuple[int, int]) -> Any:
    return sparse.csr_matrix((np.ones(len(rows), dtype=np.int32), (rows, columns)), shape=shape)


def unit(embeddings: Tensor) -> Tensor:
    """Return the embeddings in float64 at length one; a zero stays a zero."""
    return torch.nn.functional.normalize(embeddings.detach().cpu().double(), dim=1)


def confidence(weights: Tensor, neighbours: Tensor, counts: IntArray) -> FloatArray:
    r"""Return how sure a weighted sum of neighbours is, between 0 and 1 [n].

    .. math:: \frac{n}{n+1} \left\lVert \sum_v w_v \frac{e_v}{\lVert e_v \rVert} \right\rVert

    The norm is the mean resultant length of the neighbours' directions: 1 when all that count point the same way, 0
    when they cancel. The factor holds back an estimate that rests on few comparisons: 1/2 for one, 8/9 for eight.

    Args:
        weights: weight of each neighbour [n, v]; each row sums to one.
        neighbours: the neighbours' embeddings at length one [v, D].
        counts: number of comparisons of each newcomer [n].
    """
    length: FloatArray = torch.linalg.vector_norm(weights @ neighbours, dim=1).numpy()
    return length * counts / (counts + 1)
