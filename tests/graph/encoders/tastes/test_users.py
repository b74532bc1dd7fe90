"""Tastes of users against plain computations over all their coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from copl.graph.encoders.tastes.groups import TasteGroups, tastes
from copl.graph.encoders.tastes.users import Beliefs, Evidence, Grouping, infer, precision_of_bound

K, D, TAU2 = 2, 5, 0.7
ONE = TasteGroups.one(K)


def evidence(count: int, seed: int = 0, *, noise: bool = True) -> Evidence:
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    unsure = normal(count).square() if noise else torch.zeros(count, dtype=torch.float64)
    return Evidence(normal(count, D).float(), normal(count, K), normal(count), unsure, 0.5 + normal(count).square())


def part(whole: Evidence, rows: list[int]) -> Evidence:
    return Evidence(
        whole.differences[rows], whole.coordinates[rows], whole.offset[rows], whole.noise[rows], whole.weight[rows]
    )


def dense(told: Evidence, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance of (z, e) [K + D], and the features of the margins, by the normal equations."""
    features = torch.cat([told.coordinates, told.differences.double()], dim=1)
    prior = torch.cat([torch.ones(K), torch.full((D,), TAU2)]).double()
    tight = torch.tanh(scale / 2) / (2 * scale)
    observed = 1 / (1 / (tight * told.weight) + told.noise)
    target = 0.5 / tight - told.offset
    covariance = torch.linalg.inv(features.T @ (features * observed[:, None]) + torch.diag(1 / prior))
    return covariance @ features.T @ (observed * target), covariance, features


def tight_scale(told: Evidence, sweeps: int) -> Tensor:
    """xi after so many rounds, less the last one: what the posterior is computed with."""
    scale = torch.ones_like(told.offset)
    for _ in range(sweeps - 1):
        mean, covariance, features = dense(told, scale)
        variance = ((features @ covariance) * features).sum(1)
        scale = ((features @ mean + told.offset).square() + variance + told.noise).sqrt()
    return scale


def test_precision_of_the_bound_by_hand() -> None:
    # tanh(1/2) / 2 at xi = 1; 1/4 where xi is 0
    assert precision_of_bound(torch.tensor([1.0, -1.0, 0.0])).tolist() == pytest.approx([0.2310586, 0.2310586, 0.25])


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_posterior_is_that_of_the_normal_equations(count: int) -> None:
    told = evidence(count)
    mean, _, _ = dense(told, tight_scale(told, sweeps=8))
    along, anyhow = tastes(told, np.zeros(count, dtype=np.int64), 2, TAU2, ONE)
    torch.testing.assert_close(torch.cat([along[0], anyhow[0]]), mean)
    assert not along[1].any()  # of whom nothing is known
    assert not anyhow[1].any()


def test_beliefs_are_moments_of_the_posterior_and_of_that_without_each_comparison() -> None:
    told, count = evidence(4), 4
    scale = torch.tensor([0.4, 1.0, 2.0, 3.0]).double()
    beliefs = infer(told, Grouping(np.zeros(count, dtype=np.int64), D), TAU2, scale, sweeps=1)
    for n in range(count):
        mean, covariance, features = dense(told, scale)
        assert_moments(beliefs.square[n], beliefs.product[n], mean, covariance, features[n])
        others = [row for row in range(count) if row != n]
        mean, covariance, _ = dense(part(told, others), scale[others])
        assert_moments(beliefs.other_square[n], beliefs.other_product[n], mean, covariance, features[n])
        torch.testing.assert_close(beliefs.other_mean[n, 1:], mean[:K])
        torch.testing.assert_close(beliefs.margin[n], features[n] @ mean + told.offset[n])
        torch.testing.assert_close(beliefs.variance[n], features[n] @ covariance @ features[n] + told.noise[n])


def assert_moments(square: Tensor, product: Tensor, mean: Tensor, covariance: Tensor, features: Tensor) -> None:
    """E[y y'] and E[y (d . e)] with y = (1, z)."""
    y = torch.cat([torch.ones(1).double(), mean[:K]])
    expected = torch.outer(y, y)
    expected[1:, 1:] += covariance[:K, :K]
    torch.testing.assert_close(square, expected)
    own = y * (features[K:] @ mean[K:])
    own[1:] += covariance[:K, K:] @ features[K:]
    torch.testing.assert_close(product, own)


def test_the_second_moment_of_places_is_the_mean_over_users() -> None:
    told = evidence(5)
    beliefs = infer(told, Grouping(np.array([0, 0, 0, 1, 1]), D), TAU2, None, sweeps=1)
    expected = torch.zeros(K, K).double()
    for rows in ([0, 1, 2], [3, 4]):
        mean, covariance, _ = dense(part(told, rows), torch.ones(len(rows)).double())
        expected += (torch.outer(mean[:K], mean[:K]) + covariance[:K, :K]) / 2
    torch.testing.assert_close(beliefs.second, expected)


def test_users_together_are_as_one_at_a_time() -> None:
    user = np.repeat(np.arange(12), [1, 1, 2, 3, 3, 5, 8, 8, 9, 13, 20, 40])
    user = np.random.default_rng(0).permutation(user)
    told = evidence(len(user))
    along, anyhow = tastes(told, user, 12, TAU2, ONE)
    beliefs = infer(told, Grouping(user, D), TAU2, None, sweeps=3)
    for one in range(12):
        rows = np.flatnonzero(user == one).tolist()
        nobody_else = np.zeros(len(rows), dtype=np.int64)
        own = tastes(part(told, rows), nobody_else, 1, TAU2, ONE)
        torch.testing.assert_close((along[one], anyhow[one]), (own[0][0], own[1][0]))
        alone = infer(part(told, rows), Grouping(nobody_else, D), TAU2, None, sweeps=3)
        for name in ("scale", "margin", "variance", "square", "product", "other_mean", "other_square", "other_product"):
            assert_same(beliefs, alone, name, rows)


def assert_same(beliefs: Beliefs, alone: Beliefs, name: str, rows: list[int]) -> None:
    torch.testing.assert_close(getattr(beliefs, name)[rows], getattr(alone, name))


def test_a_weight_is_as_many_comparisons() -> None:
    told = evidence(3, noise=False)
    whole = Evidence(
        told.differences, told.coordinates, told.offset, told.noise, torch.tensor([2.0, 1.0, 3.0]).double()
    )
    repeated = part(told, [0, 0, 1, 2, 2, 2])
    repeated = Evidence(
        repeated.differences, repeated.coordinates, repeated.offset, repeated.noise, torch.ones(6).double()
    )
    found = tastes(whole, np.zeros(3, dtype=np.int64), 1, TAU2, ONE)
    torch.testing.assert_close(found, tastes(repeated, np.zeros(6, dtype=np.int64), 1, TAU2, ONE))


def test_a_user_with_very_many_comparisons_is_taken_as_several_for_learning_and_whole_for_the_taste() -> None:
    user = np.array([0] * 10 + [1] * 3)
    grouping = Grouping(user, D, most_together=4)
    assert grouping.num_users == 4
    groups = [rows[mask].tolist() for block, masks in grouping for rows, mask in zip(block, masks, strict=True)]
    assert sorted(map(len, groups)) == [3, 3, 3, 4]
    assert sorted(row for group in groups for row in group) == list(range(13))
    assert all(len({int(user[row]) for row in group}) == 1 for group in groups)
    many = evidence(600)
    mean, _, _ = dense(many, tight_scale(many, sweeps=8))
    along, anyhow = tastes(many, np.zeros(600, dtype=np.int64), 1, TAU2, ONE)
    torch.testing.assert_close(torch.cat([along[0], anyhow[0]]), mean, rtol=1e-5, atol=1e-6)
