"""Signed, normalised adjacencies of the preference graph as sparse matrices with their transposes kept."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np
import torch
from torch import Tensor

from copl.records import Comparisons

if TYPE_CHECKING:
    from copl.records import IntArray


def compressed_rows(pointers: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a sparse matrix in torch's CSR layout, unchecked."""
    with warnings.catch_warnings():
        # the layout is called beta by a warning at its first use; products with a dense matrix are all we need of it
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(pointers, columns, values, size, check_invariants=False)


class _Product(torch.autograd.Function):
    """matrix @ dense, whose backward is a product with the transpose that is already there."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transpose: Tensor, dense: Tensor) -> Tensor:
        ctx.transpose = transpose
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, None, ctx.transpose @ grads[0].contiguous()


@final
@attrs.frozen(eq=False)
class SparseMatrix:
    """A constant sparse matrix [rows, columns] and its transpose, both as compressed rows."""

    matrix: Tensor
    transpose: Tensor

    @property
    def T(self) -> SparseMatrix:  # noqa: N802  # the usual name of a transpose
        return SparseMatrix(self.transpose, self.matrix)

    def __matmul__(self, dense: Tensor) -> Tensor:
        """Return the product with a dense matrix [columns, D]; differentiable in the dense matrix."""
        product: Tensor = _Product.apply(self.matrix, self.transpose, dense)  # type: ignore[no-untyped-call]
        return product

    def to_dense(self) -> Tensor:
        return self.matrix.to_dense()


@final
class EdgePattern:
    """Where the edges of one sign lie. Sorted once; new weights on the same edges cost no sorting.

    Attributes:
        index: user and response of each distinct edge [2, E], sorted by user, then response.
        edge: the edge of each comparison [N].
    """

    def __init__(self, user: IntArray, response: IntArray, num_users: int, num_responses: int) -> None:
        self.size = (num_users, num_responses)
        code, edge = np.unique(user * max(num_responses, 1) + response, return_inverse=True)
        users, responses = np.divmod(code, max(num_responses, 1))
        order = np.argsort(responses, kind="stable")
        self.index = torch.from_numpy(np.stack([users, responses]))
        self.edge = torch.from_numpy(edge.reshape(-1))
        self._order = torch.from_numpy(order)
        self._by_user = _pointers(users, num_users), self.index[1]
        self._by_response = _pointers(responses, num_responses), self.index[0][self._order]

    def sum_weights(self, weight: Tensor) -> Tensor:
        """Return the weight of each edge [E]: the sum over its comparisons, of weights [N]."""
        return torch.zeros(self.index.shape[1], dtype=weight.dtype).index_add_(0, self.edge, weight)

    def normalise(self, weights: Tensor) -> Tensor:
        """Return w_ur / sqrt(deg_u deg_r) for edge weights [E]; an edge of weight 0 stays 0."""
        users, responses = self.index
        by_user = torch.zeros(self.size[0], dtype=weights.dtype).index_add_(0, users, weights)
        by_response = torch.zeros(self.size[1], dtype=weights.dtype).index_add_(0, responses, weights)
        degrees = (by_user[users] * by_response[responses]).sqrt()
        return torch.where(weights > 0, weights / degrees.clamp_min(torch.finfo(weights.dtype).tiny), 0.0)

    def matrix(self, values: Tensor) -> SparseMatrix:
        """Return the matrix [U, R] with these values [E] on the edges."""
        return SparseMatrix(
            compressed_rows(*self._by_user, values, self.size),
            compressed_rows(*self._by_response, values[self._order], self.size[::-1]),
        )


def _pointers(sorted_rows: IntArray, size: int) -> Tensor:
    pointers = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(np.bincount(sorted_rows, minlength=size), out=pointers[1:])
    return torch.from_numpy(pointers)


@final
@attrs.frozen(eq=False)
class SignedAdjacency:
    """Normalised adjacencies [U, R] of the chosen and of the rejected edges."""

    chosen: SparseMatrix
    rejected: SparseMatrix


@final
class SignedEdges:
    """The chosen and the rejected edges of some comparisons.

    A comparison is one edge of each sign. Each sign is normalised by itself, 1/sqrt(deg_u deg_r) with the degrees of
    that sign; edges that repeat add up before. (CoPL, arXiv 2503.01658.)
    """

    def __init__(self, comparisons: Comparisons, num_users: int, num_responses: int) -> None:
        self.chosen = EdgePattern(comparisons.user, comparisons.chosen, num_users, num_responses)
        self.rejected = EdgePattern(comparisons.user, comparisons.rejected, num_users, num_responses)

    def adjacency(self, weight: Tensor) -> SignedAdjacency:
        """Return the normalised adjacencies for comparisons of these weights [N]; weight 0 takes a comparison out."""
        return SignedAdjacency(*(e.matrix(e.normalise(e.sum_weights(weight))) for e in (self.chosen, self.rejected)))
