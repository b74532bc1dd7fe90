"""k-nearest-neighbour adaptation: seen users who judged the same responses in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy import sparse

from copl.adapt.estimates import Estimates
from copl.adapt.neighbours import unit
from copl.adapt.strategies.catalogue import KnnOptions
from copl.adapt.support import match
from copl.records import AdaptedUsers, ComparisonSet, NodeEmbeddings

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray


@final
class Knn:
    r"""The mean of the seen users with the most similar signed histories, weighted by similarity.

    A history has an entry for each response: how often the user chose it less how often the user rejected it. The
    similarity of two users is the cosine of their histories,

    .. math::
        s_{uv} = \frac{h_u \cdot h_v}{\lVert h_u \rVert \lVert h_v \rVert}, \qquad
        e_u = \frac{\sum_{v \in N_k(u)} s_{uv} e_v}{\sum_{v \in N_k(u)} s_{uv}}

    over the k most similar seen users of positive similarity. Neither response embeddings nor biases are looked at. A
    newcomer whom nobody resembles gets the mean of all seen users (``population``).
    """

    def __init__(self, options: KnnOptions) -> None:
        self._options = options

    def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
        matched = match(support, trained)
        estimates = Estimates(matched, trained)
        if not len(trained.user_ids) or not len(matched.newcomer):
            return estimates.result()
        num_responses = len(trained.response_keys)
        own = _histories(
            matched.newcomer, matched.chosen, matched.rejected, matched.weight, (len(matched), num_responses)
        )
        weights = _strongest((own @ _trained_histories(trained).T).tocoo(), self._options.num_neighbours)
        degree = np.diff(weights.indptr)
        near = np.flatnonzero(degree > 0)
        if not len(near):
            return estimates.result()
        total = np.asarray(weights.sum(axis=1)).reshape(-1)[near]
        weights = sparse.diags(1 / total) @ weights[near]
        columns, position = np.unique(weights.indices, return_inverse=True)
        weights = sparse.csr_matrix((weights.data, position, weights.indptr), shape=(len(near), len(columns)))
        users = trained.users.detach().cpu()[torch.from_numpy(columns.astype(np.int64))].double()
        length = np.linalg.norm(weights @ unit(users).numpy(), axis=1)
        counts = matched.counts[near]
        embeddings = torch.from_numpy(weights @ users.numpy())
        estimates.put(near, embeddings, "knn", degree[near], length * counts / (counts + 1))
        return estimates.result()


_HISTORIES: WeakKeyDictionary[NodeEmbeddings, sparse.csr_matrix] = WeakKeyDictionary()


def _trained_histories(trained: NodeEmbeddings) -> sparse.csr_matrix:
    if trained not in _HISTORIES:
        rows = trained.comparisons
        shape = len(trained.user_ids), len(trained.response_keys)
        _HISTORIES[trained] = _histories(rows.user, rows.chosen, rows.rejected, rows.weight, shape)
    return _HISTORIES[trained]


def _histories(
    user: IntArray, chosen: IntArray, rejected: IntArray, weight: FloatArray, shape: tuple[int, int]
) -> sparse.csr_matrix:
    """Return the signed histories at length one [users, R], sparse; rows of responses past the last are left out."""
    rows, columns = np.concatenate([user, user]), np.concatenate([chosen, rejected])
    values = np.concatenate([weight, -weight])
    known = columns < shape[1]
    matrix = sparse.csr_matrix((values[known], (rows[known], columns[known])), shape=shape)
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).reshape(-1))
    return sparse.diags(1 / np.where(length > 0, length, 1.0)) @ matrix


def _strongest(similarity: sparse.coo_matrix, count: int) -> sparse.csr_matrix:
    """Return the `count` largest positive values of each row, sparse; ties with the last one stay."""
    keep = similarity.data > 1e-9
    row, column, value = similarity.row[keep], similarity.col[keep], similarity.data[keep]
    order = np.lexsort((-value, row))
    row, column, value = row[order], column[order], value[order]
    begin = np.searchsorted(row, np.arange(similarity.shape[0]))
    end = np.searchsorted(row, np.arange(similarity.shape[0]), side="right")
    last = np.minimum(begin + count, end) - 1
    limit = np.zeros(similarity.shape[0])
    limit[end > begin] = value[last[end > begin]]
    strong = value >= limit[row] - 1e-9
    return sparse.csr_matrix((value[strong], (row[strong], column[strong])), shape=similarity.shape)
