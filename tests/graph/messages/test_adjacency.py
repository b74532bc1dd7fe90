from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.graph.messages.adjacency import SignedEdges
from copl.records import Comparisons

USERS, RESPONSES = 4, 5


@st.composite
def weighted(draw):
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, USERS - 1),
                st.integers(0, RESPONSES - 1),
                st.integers(0, RESPONSES - 1),
                st.sampled_from([0.0, 0.5, 1.0, 2.0]),
            ),
            max_size=12,
        )
    )
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    return Comparisons(*(np.array(c, dtype=np.int64) for c in columns[:3]), columns[3])


def dense(user, response, weight):
    """The definition, one edge after the other."""
    counts = torch.zeros(USERS, RESPONSES)
    for u, r, w in zip(user, response, weight, strict=True):
        counts[u, r] += w
    norm = (counts.sum(dim=1, keepdim=True) * counts.sum(dim=0, keepdim=True)).sqrt()
    return torch.where(norm > 0, counts / norm.clamp_min(1e-9), 0.0)


@settings(max_examples=40)
@given(weighted())
def test_equals_the_dense_definition(comparisons):
    adjacency = SignedEdges(comparisons, USERS, RESPONSES).adjacency(torch.from_numpy(comparisons.weight).float())
    expected = dense(comparisons.user, comparisons.chosen, comparisons.weight)
    torch.testing.assert_close(adjacency.chosen.to_dense(), expected)
    torch.testing.assert_close(adjacency.chosen.T.to_dense(), expected.T)
    expected = dense(comparisons.user, comparisons.rejected, comparisons.weight)
    torch.testing.assert_close(adjacency.rejected.to_dense(), expected)


def test_repeated_edges_add_up_before_normalising():
    # user 0 chose response 0 twice and response 1 once: degrees 3 of the user, 2 and 1 of the responses
    adjacency = SignedEdges(Comparisons([0, 0, 0], [0, 0, 1], [2, 2, 2]), 1, 3).adjacency(torch.ones(3))
    expected = torch.tensor([[2 / 6**0.5, 1 / 3**0.5, 0.0]])
    torch.testing.assert_close(adjacency.chosen.to_dense(), expected)
    torch.testing.assert_close(adjacency.rejected.to_dense(), torch.tensor([[0.0, 0.0, 1.0]]))


@settings(max_examples=20)
@given(weighted(), st.integers(1, 3))
def test_product_and_its_gradient_equal_the_dense_ones(comparisons, dim):
    weight = torch.from_numpy(comparisons.weight).float()
    matrix = SignedEdges(comparisons, USERS, RESPONSES).adjacency(weight).chosen
    features = torch.randn(RESPONSES, dim, generator=torch.Generator().manual_seed(0)).requires_grad_()
    upstream = torch.randn(USERS, dim, generator=torch.Generator().manual_seed(1))
    product = matrix @ features
    torch.testing.assert_close(product, matrix.to_dense() @ features)
    (gradient,) = torch.autograd.grad(product, features, upstream)
    torch.testing.assert_close(gradient, matrix.to_dense().T @ upstream)


def test_weight_zero_takes_a_comparison_out():
    comparisons = Comparisons([0, 0, 1], [0, 1, 1], [1, 2, 2])
    without = SignedEdges(comparisons.take(np.array([0, 2])), 2, 3).adjacency(torch.ones(2))
    masked = SignedEdges(comparisons, 2, 3).adjacency(torch.tensor([1.0, 0.0, 1.0]))
    for sign in ("chosen", "rejected"):
        torch.testing.assert_close(getattr(masked, sign).to_dense(), getattr(without, sign).to_dense())


@pytest.mark.parametrize(("users", "responses"), [(0, 0), (0, 3), (2, 0), (2, 3)])
def test_without_edges_products_are_zero(users, responses):
    adjacency = SignedEdges(Comparisons.empty(), users, responses).adjacency(torch.zeros(0))
    torch.testing.assert_close(adjacency.chosen @ torch.ones(responses, 2), torch.zeros(users, 2))
    torch.testing.assert_close(adjacency.rejected.T @ torch.ones(users, 2), torch.zeros(responses, 2))
