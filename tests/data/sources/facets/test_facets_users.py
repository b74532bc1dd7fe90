from __future__ import annotations

import numpy as np
import pytest

from copl.data.sources.facets.source import FACET_VALUES
from copl.data.sources.facets.users import FacetsTruth, draw_comparisons, draw_group_weights, draw_users, group_names
from copl.records import Comparisons


def truth_of(user_weights: list[list[float]], facets: list[list[float]], temperature: float = 1.0) -> FacetsTruth:
    weights = np.array(user_weights)
    return FacetsTruth(np.array(facets), weights, weights, np.arange(len(weights)), temperature)


@pytest.mark.parametrize("num_groups", range(2, 9))
def test_groups_cancel_out_but_for_what_they_agree_on(num_groups: int) -> None:
    weights = draw_group_weights(num_groups, 5, 0.4, np.random.default_rng(num_groups))
    shared = weights.mean(axis=0)
    assert weights.shape == (num_groups, 5)
    assert np.linalg.norm(shared) == pytest.approx(0.4)
    apart = weights - shared
    np.testing.assert_allclose(np.linalg.norm(apart, axis=1), 1.0)
    np.testing.assert_allclose(apart @ shared, 0.0, atol=1e-12)
    assert np.linalg.matrix_rank(apart, tol=1e-9) == (num_groups + 1) // 2 if num_groups % 2 else num_groups // 2


def test_groups_are_equal_in_size_and_users_deviate() -> None:
    group_weights = draw_group_weights(4, 5, 0.4, np.random.default_rng(0))
    groups, weights = draw_users(4001, group_weights, 0.2, np.random.default_rng(1))
    assert sorted(np.bincount(groups)) == [1000, 1000, 1000, 1001]
    deviation = weights - group_weights[groups]
    assert deviation.std() == pytest.approx(0.2, rel=0.05)
    np.testing.assert_allclose(
        draw_users(8, group_weights, 0.0, np.random.default_rng(1))[1][:, 0].sum(), 2 * group_weights[:, 0].sum()
    )


def test_groups_are_named_by_what_sets_them_apart() -> None:
    weights = np.array([[2.0, 0.1, 0.0, -1.0, 0.0], [-2.0, 0.1, 0.0, 1.0, 0.0], [0.0, 0.1, 1.0, 0.0, -0.5],
                        [0.0, 0.1, -1.0, 0.0, 0.5]])  # fmt: skip
    assert group_names(weights, FACET_VALUES) == (
        "detailed+prose",
        "brief+list",
        "direct+no example",
        "cautious+example",
    )


def test_groups_that_would_share_a_name_are_numbered() -> None:
    weights = np.array([[2.0, 1.0], [3.0, 1.0], [-5.0, -2.0]])
    names = group_names(weights, (("a", "b"), ("c", "d")))
    assert names == ("b+d", "b+d (2)", "a+c")


def test_margins_by_hand() -> None:
    truth = FacetsTruth(
        facets=np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
        group_weights=np.array([[2.0, 1.0]]),
        user_weights=np.array([[2.0, 3.0], [1.0, -1.0]]),
        user_groups=np.array([0, 0]),
        temperature=1.0,
    )
    pairs = Comparisons([0, 1, 1], [0, 0, 2], [1, 1, 0])
    np.testing.assert_allclose(truth.individual_margins(pairs), [-1.0, 2.0, -1.0])
    np.testing.assert_allclose(truth.group_margins(pairs), [1.0, 1.0, 1.0])
    np.testing.assert_allclose(truth.margins(pairs, np.array([1.0, 5.0])), [-4.0, -4.0, 5.0])


def test_ceilings_by_hand() -> None:
    # two users who want opposite things three times out of three, and one facet both value
    truth = truth_of([[1.0, 0.5], [-1.0, 0.5]], [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    rows = Comparisons([0, 0, 1, 1], [0, 2, 1, 2], [1, 1, 0, 1])
    ceilings = truth.ceilings({"train": rows})
    # the first facet cancels out: half of its two comparisons; the second is right on both
    assert ceilings["train"] == {"unpersonalised": 0.75, "group_oracle": 1.0, "individual_oracle": 1.0}


def test_the_unpersonalised_fit_finds_the_weights_of_a_single_group() -> None:
    rng = np.random.default_rng(0)
    facets = rng.integers(0, 2, size=(400, 3)).astype(np.float64)
    truth = truth_of([[1.0, -2.0, 0.5]], facets.tolist(), temperature=0.5)
    rows = draw_comparisons(truth, np.array([0]), np.array([20_000]), [rng.integers(100, size=20_000)], 4, rng)
    np.testing.assert_allclose(truth.unpersonalised_weights(rows), [2.0, -4.0, 1.0], atol=0.15)


def test_choices_follow_the_logistic_model() -> None:
    rng = np.random.default_rng(0)
    truth = truth_of([[1.0]], [[1.0], [0.0]], temperature=0.5)
    rows = draw_comparisons(truth, np.array([0]), np.array([10_000]), [np.zeros(10_000, dtype=np.int64)], 2, rng)
    # sigmoid(1 / 0.5) = 0.8808, standard error 0.003
    assert (rows.chosen == 0).mean() == pytest.approx(0.8808, abs=0.015)


def test_comparisons_stay_within_the_prompt_and_use_the_first_prompts() -> None:
    rng = np.random.default_rng(0)
    truth = truth_of([[1.0], [-1.0]], [[float(i % 2)] for i in range(40)])
    prompts = [np.array([7, 3, 5]), np.array([2, 9, 1])]
    rows = draw_comparisons(truth, np.array([0, 1]), np.array([2, 1]), prompts, 4, rng)
    assert rows.user.tolist() == [0, 0, 1]
    assert (rows.chosen // 4).tolist() == (rows.rejected // 4).tolist() == [7, 3, 2]
    assert (rows.chosen != rows.rejected).all()


def test_controversial_means_that_two_groups_lean_to_different_sides() -> None:
    rng = np.random.default_rng(0)
    # groups differ on the first facet, agree on the second, and do not care about the third
    truth = truth_of(
        [[1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]], [[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    )
    prompts = [np.array([0, 1, 2]), np.array([0, 1, 2])]
    rows = draw_comparisons(truth, np.array([0, 1]), np.array([3, 3]), prompts, 2, rng)
    assert rows.controversial.tolist() == [1, 0, 0, 1, 0, 0]
