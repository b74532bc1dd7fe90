from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.graph.messages.sparse import SparseMatrix

ROWS, COLUMNS = 4, 5


@st.composite
def entries(draw):
    places = st.tuples(st.integers(0, ROWS - 1), st.integers(0, COLUMNS - 1))
    found = sorted(draw(st.lists(places, max_size=12, unique=True)))
    values = draw(st.lists(st.sampled_from([-1.0, 0.5, 2.0]), min_size=len(found), max_size=len(found)))
    index = torch.tensor(found, dtype=torch.int64).reshape(-1, 2).T
    return index[0], index[1], torch.tensor(values)


@settings(max_examples=30)
@given(entries(), st.integers(1, 3))
def test_product_and_its_gradient_equal_the_dense_ones(found, dim):
    rows, columns, values = found
    dense = torch.zeros(ROWS, COLUMNS).index_put((rows, columns), values)
    matrix = SparseMatrix.of(rows, columns, values, (ROWS, COLUMNS))
    torch.testing.assert_close(matrix.to_dense(), dense)
    features = torch.randn(COLUMNS, dim, generator=torch.Generator().manual_seed(0)).requires_grad_()
    upstream = torch.randn(ROWS, dim, generator=torch.Generator().manual_seed(1))
    product = matrix @ features
    torch.testing.assert_close(product, dense @ features)
    (gradient,) = torch.autograd.grad(product, features, upstream)
    torch.testing.assert_close(gradient, dense.T @ upstream)


@settings(max_examples=15)
@given(entries())
def test_entries_are_those_given(found):
    for given_, back in zip(found, SparseMatrix.of(*found, (ROWS, COLUMNS)).entries(), strict=True):
        assert given_.tolist() == back.tolist()


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 3), (2, 0), (2, 3)])
def test_without_entries_products_are_zero(rows, columns):
    none = torch.zeros(0, dtype=torch.int64)
    matrix = SparseMatrix.of(none, none, torch.zeros(0), (rows, columns))
    torch.testing.assert_close(matrix @ torch.ones(columns, 2), torch.zeros(rows, 2))
