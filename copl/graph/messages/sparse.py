"""Constant sparse matrices as compressed rows, each with its transpose kept for the backward pass."""

from __future__ import annotations

import warnings
from typing import Any, final

import attrs
import torch
from torch import Tensor


def compressed_rows(pointers: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a sparse matrix in torch's CSR layout, unchecked."""
    with warnings.catch_warnings():
        # the layout is called beta by a warning at its first use; products with a dense matrix are all we need of it
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(pointers, columns, values, size, check_invariants=False)


def row_pointers(sorted_rows: Tensor, num_rows: int) -> Tensor:
    """Return where each row begins among entries sorted by row, and their number [num_rows + 1]."""
    counts = torch.bincount(sorted_rows, minlength=num_rows)
    return torch.cat([counts.new_zeros(1), torch.cumsum(counts, 0)])


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

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> SparseMatrix:
        """Return the matrix with these entries [E], sorted by row."""
        order = torch.argsort(columns, stable=True)
        return cls(
            compressed_rows(row_pointers(rows, size[0]), columns, values, size),
            compressed_rows(row_pointers(columns[order], size[1]), rows[order], values[order], size[::-1]),
        )

    def __matmul__(self, dense: Tensor) -> Tensor:
        """Return the product with a dense matrix [columns, D]; differentiable in the dense matrix."""
        product: Tensor = _Product.apply(self.matrix, self.transpose, dense)  # type: ignore[no-untyped-call]
        return product

    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return row, column and value of each entry, sorted by row [E]."""
        pointers = self.matrix.crow_indices()
        rows = torch.repeat_interleave(torch.arange(len(pointers) - 1), pointers.diff())
        return rows, self.matrix.col_indices(), self.matrix.values()

    def to_dense(self) -> Tensor:
        return self.matrix.to_dense()
