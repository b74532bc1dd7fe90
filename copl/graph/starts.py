"""Starts for encoders: singular vectors of the signed incidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from copl.records import Comparisons, FloatArray

_OVERSAMPLING = 8
_POWER_ITERATIONS = 8


def signed_incidence(comparisons: Comparisons, num_users: int, num_responses: int) -> csr_array:
    """Return S [U, R]: S_ur = (weight chosen - weight rejected) / sqrt(deg_u deg_r), degrees over both signs."""
    users = np.concatenate([comparisons.user, comparisons.user])
    responses = np.concatenate([comparisons.chosen, comparisons.rejected])
    weights = np.concatenate([comparisons.weight, comparisons.weight])
    signs = np.concatenate([comparisons.weight, -comparisons.weight])
    user_degrees = np.bincount(users, weights, num_users)
    response_degrees = np.bincount(responses, weights, num_responses)
    degrees = np.sqrt(user_degrees[users] * response_degrees[responses])
    values = np.divide(signs, degrees, out=np.zeros_like(signs), where=degrees > 0)
    return csr_array((values, (users, responses)), shape=(num_users, num_responses))


def truncated_svd(matrix: csr_array, rank: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return U [rows, rank], s [rank], V [columns, rank] with matrix ~ U diag(s) Vᵀ; padded with zeros beyond its rank.

    Randomised subspace iteration (Halko, Martinsson and Tropp, 2011).
    """
    rows, columns = matrix.shape
    width = min(rank + _OVERSAMPLING, rows, columns)
    left, values, right = np.zeros((rows, rank)), np.zeros(rank), np.zeros((columns, rank))
    if width:
        basis = matrix @ rng.normal(size=(columns, width))
        for _ in range(_POWER_ITERATIONS):
            basis = np.linalg.qr(basis)[0]
            basis = matrix @ np.linalg.qr(matrix.T @ basis)[0]
        basis = np.linalg.qr(basis)[0]
        inner, found, outer = np.linalg.svd((matrix.T @ basis).T, full_matrices=False)
        kept = min(rank, width)
        left[:, :kept] = (basis @ inner)[:, :kept]
        values[:kept] = found[:kept]
        right[:, :kept] = outer[:kept].T
    return left, values, right
