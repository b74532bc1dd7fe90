"""The seen users condensed to points."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from copl.adapt.prior import prior_of
from copl.adapt.strategies.catalogue import EmpiricalOptions
from copl.adapt.strategies.empirical import Empirical


def with_users(trained: Any, users: Any) -> Any:
    table = torch.as_tensor(np.asarray(users), dtype=torch.float32)
    return attrs.evolve(trained, users=table, user_ids=tuple(f"seen {row}" for row in range(len(table))))


def test_few_users_are_points_themselves(planted_problem: Any) -> None:
    _, trained = planted_problem()
    prior = prior_of(trained, 256)
    torch.testing.assert_close(prior.points, trained.users.double())
    assert prior.size.tolist() == [1.0] * 40
    assert prior_of(trained, None) is prior


def test_points_by_hand(planted_problem: Any) -> None:
    _, trained = planted_problem()
    trained = with_users(trained, [[0.0, 1.0], [0.0, -1.0], [10.0, 0.0], [10.0, 0.0], [12.0, 0.0]])
    prior = prior_of(trained, 2)
    order = prior.points[:, 0].argsort()
    torch.testing.assert_close(prior.points[order], torch.tensor([[0.0, 0.0], [32 / 3, 0.0]]).double())
    assert prior.size[order].tolist() == [2.0, 3.0]
    assert prior.squares[order].tolist() == pytest.approx([1.0, (100 + 100 + 144) / 3])
    torch.testing.assert_close(prior.log_share[order].exp(), torch.tensor([0.4, 0.6]).double())


def test_sums_over_all_users_are_exact(planted_problem: Any) -> None:
    _, trained = planted_problem(num_users=600)
    prior = prior_of(trained, 16)
    assert len(prior) == 16
    shares = prior.shares(torch.zeros(1, 16))  # nothing said
    torch.testing.assert_close(prior.mean(shares)[0], trained.users.double().mean(dim=0))
    assert prior.effective_users(shares).tolist() == [600]
    assert prior.variance_removed(shares) == pytest.approx([0.0], abs=1e-9)


@pytest.mark.parametrize("users", [np.zeros((30, 3)), np.ones((30, 3)), np.repeat(np.eye(3), 10, axis=0)])
def test_fewer_distinct_users_than_points(users: Any, planted_problem: Any) -> None:
    support, trained = planted_problem()
    trained = attrs.evolve(with_users(trained, users), comparisons=trained.comparisons.take(np.arange(0)))
    prior = prior_of(trained, 8)
    assert len(prior) <= 3
    assert int(prior.size.sum()) == 30
    adapted = Empirical(EmpiricalOptions(num_points=8)).adapt(support, trained)
    assert torch.isfinite(adapted.embeddings).all()


def test_condensing_changes_little_where_users_form_groups(planted_problem: Any) -> None:
    support, trained = planted_problem(num_users=500)
    condensed = Empirical(EmpiricalOptions(num_points=32)).adapt(support, trained)
    exact = Empirical(EmpiricalOptions(num_points=None)).adapt(support, trained)
    # a tenth of the distance between the two groups
    np.testing.assert_allclose(condensed.embeddings, exact.embeddings, atol=0.1)
    np.testing.assert_allclose(condensed.confidence, exact.confidence, atol=0.05)


def test_the_prior_is_made_once_and_goes_with_the_trained_set(planted_problem: Any) -> None:
    _, trained = planted_problem(num_users=300)
    prior = prior_of(trained, 8)
    assert prior_of(trained, 8) is prior
    again = prior_of(attrs.evolve(trained), 8)
    assert again is not prior
    torch.testing.assert_close(again.points, prior.points, rtol=0, atol=0)
    gone = weakref.ref(trained)
    del trained
    gc.collect()
    assert gone() is None
