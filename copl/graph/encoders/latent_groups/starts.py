"""Where the algorithm starts: users clustered in the directions that they agree in, or memberships at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

if TYPE_CHECKING:
    from copl.graph.encoders.latent_groups.evidence import Evidence
    from copl.records import FloatArray


def user_directions(evidence: Evidence, rank: int, rng: np.random.Generator) -> FloatArray:
    """Return the leading directions of agreement among users [U, rank], scaled by the roots of their eigenvalues.

    These are eigenvectors of M D^-1 Mᵀ without its diagonal, where M holds the wins minus the losses of each user on
    each pair and D the number of comparisons of the pair; M is scaled to rows of equal length. Without the diagonal,
    what nobody else compared counts for nothing.
    """
    count = evidence.num_users
    directions = np.zeros((count, rank))
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
            return directions
        order = np.argsort(-eigenvalues)
        directions[:, : len(order)] = vectors[:, order] * np.sqrt(np.maximum(eigenvalues[order], 0.0))
    return directions
