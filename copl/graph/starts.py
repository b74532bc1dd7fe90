"""Starts for encoders: singular vectors of the signed incidence, directions of agreement among users, clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

if TYPE_CHECKING:
    from copl.graph.latent_groups import Evidence
    from copl.records import Comparisons, FloatArray, IntArray

_OVERSAMPLING = 8
_POWER_ITERATIONS = 8
_LLOYD_STEPS = 30


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


def user_directions(evidence: Evidence, rank: int, rng: np.random.Generator) -> FloatArray:
    """Return the leading directions of agreement among users [U, rank], scaled by the roots of their eigenvalues.

    These are eigenvectors of M D^-1 Mᵀ without its diagonal, where M holds the wins minus the losses of each user on
    each pair and D the number of comparisons of the pair; M is scaled to rows of equal length. Without the diagonal,
    what nobody else compared counts for nothing.
    """
    count = evidence.num_users
    found = np.zeros((count, rank))
    weight = evidence.wins + evidence.losses
    of_pair = np.bincount(evidence.pair, weight, evidence.num_pairs)[evidence.pair]
    of_user = np.bincount(evidence.user, weight, count)[evidence.user]
    values = (evidence.wins - evidence.losses) / np.sqrt(of_pair * of_user)
    matrix = csr_array((values, (evidence.user, evidence.pair)), shape=(count, evidence.num_pairs))
    transpose = csr_array(matrix.T)
    diagonal = np.bincount(evidence.user, values**2, count)

    def product(x: FloatArray) -> FloatArray:
        result: FloatArray = matrix @ (transpose @ x) - (diagonal * x.reshape(count, -1).T).T.reshape(x.shape)
        return result

    kept = min(rank, count - 2)
    if kept > 0:
        operator = LinearOperator((count, count), matvec=product, matmat=product, dtype=np.float64)
        width = min(count, max(2 * kept + 10, 20))
        try:
            eigenvalues, vectors = eigsh(
                operator, kept, which="LA", v0=rng.normal(size=count), tol=1e-2, ncv=width, maxiter=200
            )
        except ArpackNoConvergence as error:
            eigenvalues, vectors = error.eigenvalues, error.eigenvectors
        except ArpackError:  # no user shares a pair with another: there is nothing to find
            return found
        order = np.argsort(-eigenvalues)
        found[:, : len(order)] = vectors[:, order] * np.sqrt(np.maximum(eigenvalues[order], 0.0))
    return found


def clusters(points: FloatArray, num_clusters: int, rng: np.random.Generator) -> IntArray:
    """Return the cluster of each point [U] by k-means, started by k-means++ (Arthur and Vassilvitskii, 2007)."""
    lengths = (points**2).sum(axis=1)

    def distances(centres: FloatArray) -> FloatArray:
        squares: FloatArray = lengths[:, None] - 2 * points @ centres.T + (centres**2).sum(axis=1)
        return np.maximum(squares, 0.0)

    centres = points[[rng.integers(len(points))]]
    for _ in range(num_clusters - 1):
        nearest = distances(centres).min(axis=1) + 1e-12
        centres = np.concatenate([centres, points[[rng.choice(len(points), p=nearest / nearest.sum())]]])
    for _ in range(_LLOYD_STEPS):
        cluster = distances(centres).argmin(axis=1)
        sizes = np.bincount(cluster, minlength=num_clusters)
        sums = np.stack([np.bincount(cluster, column, num_clusters) for column in points.T], axis=1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    result: IntArray = distances(centres).argmin(axis=1)
    return result
