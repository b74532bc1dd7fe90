"""Intervals, pooled paired differences and corrected p-values, against values by hand and plain code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.ablate.statistics import (
    PairedDifference,
    SeedDifferences,
    holm,
    mean_difference,
    pooled_difference,
    t_interval,
)
from copl.evaluate.bootstrap import crossed_mean


def test_an_interval_over_seeds_is_that_of_student() -> None:
    mean, half = t_interval([0.6, 0.8])
    assert mean == pytest.approx(0.7)
    assert half == pytest.approx(12.7062 * 0.1, rel=1e-5)  # t(.975, 1) = 12.7062; s / sqrt(2) = .1
    mean, half = t_interval([0.5, 0.6, 0.7, 0.8, 0.9])
    assert half == pytest.approx(2.77645 * np.sqrt(0.025) / np.sqrt(5), rel=1e-5)  # t(.975, 4) = 2.77645
    with pytest.raises(ValueError, match="at least two"):
        t_interval([0.6])


def test_p_values_are_corrected_as_holm_did() -> None:
    # sorted .005, .01, .03, .04: times 4, 3, 2, 1 gives .02, .03, .06, .04 -> .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_a_corrected_p_value_lies_between_its_own_and_that_of_bonferroni(p_values: list[float]) -> None:
    for p, corrected in zip(p_values, holm(p_values), strict=True):
        assert p <= corrected <= min(1.0, len(p_values) * p) + 1e-12


def draw(num_users: int, ahead: float, seed: int) -> SeedDifferences:
    rng = np.random.default_rng(seed)
    values = rng.choice([-0.5, 0.0, 0.5], size=4 * num_users, p=[0.3 - ahead, 0.4, 0.3 + ahead])
    return SeedDifferences(values, [f"u{row % num_users}" for row in range(4 * num_users)])


def test_the_pooled_difference_counts_each_seed_the_same() -> None:
    one = SeedDifferences(np.array([1.0, 0.0, 0.0]), ["a", "a", "b"])
    other = SeedDifferences(np.array([0.0]), ["b"])
    found = pooled_difference([one, other], seed=0, num_resamples=400)
    assert found.by_seed == pytest.approx((1 / 3, 0.0))
    assert found.value == pytest.approx(1 / 6)
    low, high = found.bounds
    assert low <= 1 / 6 <= high


def test_with_one_seed_the_interval_is_that_of_an_evaluation() -> None:
    differences = draw(40, 0.1, 3)
    found = pooled_difference([differences], seed=5, num_resamples=1000)
    users = np.array([int(user[1:]) for user in differences.users])
    value, *bounds = crossed_mean(differences.values, [users], seed=5, num_resamples=1000)
    assert found.value == pytest.approx(value)
    assert found.bounds == pytest.approx(bounds)


def seeds_ahead_by(*differences: float) -> list[SeedDifferences]:
    """1,000 users with a comparison each and seed, right or wrong alike but for the share a seed is ahead by."""
    users = [f"u{row}" for row in range(1000)]
    return [SeedDifferences((np.arange(1000) < 1000 * d).astype(float), users) for d in differences]


def test_three_seeds_that_differ_are_held_against_student() -> None:
    """Ahead by .01, .03 and .05: mean .03, s = .02, t = .03 / (.02 / sqrt 3) = 2.598 with 2 degrees, p = .1217."""
    found = pooled_difference(seeds_ahead_by(0.01, 0.03, 0.05), seed=0)
    assert found.value == pytest.approx(0.03)
    assert found.p_value >= 0.1217 - 1e-4
    low, high = found.bounds
    assert low <= 0.03 - 4.3027 * 0.02 / 3**0.5 + 1e-4  # t(.975, 2) = 4.3027
    assert high >= 0.03 + 4.3027 * 0.02 / 3**0.5 - 1e-4


def test_seeds_that_agree_say_nothing_about_users() -> None:
    """The same users every time: however many seeds, the interval stays that of the users."""
    one = draw(30, 0.05, 1)
    alone, often = (pooled_difference([one] * times, seed=0) for times in (1, 8))
    assert often.bounds == pytest.approx(alone.bounds, rel=0.1)


def test_texts_that_all_users_share_widen_the_interval() -> None:
    """Everybody judges the same ten prompts, six ahead and four behind: there are ten observations, not a thousand."""
    values = np.tile(np.repeat([1.0, -1.0], [6, 4]), 100)
    users = [f"u{row // 10}" for row in range(1000)]
    prompts = [f"p{row % 10}" for row in range(1000)]
    narrow = pooled_difference([SeedDifferences(values, users)], seed=0)
    wide = pooled_difference([SeedDifferences(values, users, prompts)], seed=0)
    assert narrow.bounds[0] > 0.1  # users answer all alike
    assert wide.bounds[0] < 0 < wide.bounds[1]
    assert wide.p_value > 0.3


def test_a_clear_difference_is_found_and_none_is_not() -> None:
    clear = pooled_difference([draw(60, 0.25, seed) for seed in range(3)], seed=0)
    assert clear.bounds[0] > 0
    assert 0 < clear.p_value < 0.002  # Student's t with 2 degrees: three seeds cannot be surer
    alone = pooled_difference([draw(60, 0.25, 0)], seed=0)
    assert 0 < alone.p_value < 2 / 10_001  # of one run: so that it can survive a correction for hundreds
    none = pooled_difference([draw(60, 0.0, seed) for seed in range(3)], seed=0)
    assert none.p_value > 0.05
    same = pooled_difference([SeedDifferences(np.zeros(4), list("abab"))], seed=0)
    assert (same.value, same.p_value) == (0.0, 1.0)


def test_a_p_value_is_counted_where_there_is_something_to_count() -> None:
    resampled = np.concatenate([np.full(20, -0.1), np.full(979, 0.2)])
    assert PairedDifference(0.19, resampled).p_value == pytest.approx(2 * 21 / 1000)
    # five on the far side: the normal tail beyond 3 standard deviations, 0.0027, is below 12 / 1000
    few = np.concatenate([np.full(5, -0.1), np.full(994, 0.2)])
    value = 3 * float(few.std(ddof=1))
    assert PairedDifference(value, few).p_value == pytest.approx(0.0027, abs=1e-5)
    # nothing varies: one user, say, about whom resampling knows nothing
    assert PairedDifference(0.5, np.full(999, 0.5)).p_value == pytest.approx(2 / 1000)


def test_swapping_the_methods_turns_the_sign_and_keeps_the_p_value() -> None:
    parts = [draw(20, 0.1, seed) for seed in range(2)]
    there = pooled_difference(parts, seed=1)
    back = pooled_difference([SeedDifferences(-part.values, part.users) for part in parts], seed=1)
    assert back.value == -there.value
    np.testing.assert_array_equal(back.resampled, -there.resampled)
    assert back.p_value == there.p_value


def test_runs_that_differ_widen_the_interval() -> None:
    """Two seeds of opposite sign: users alone would call each of them certain."""
    values = np.ones(40)
    users = [f"u{row}" for row in range(40)]
    apart = pooled_difference([SeedDifferences(values, users), SeedDifferences(-values / 2, users)], seed=0)
    assert apart.value == pytest.approx(0.25)
    assert apart.bounds == pytest.approx((0.25 - 12.7062 * 0.75, 0.25 + 12.7062 * 0.75), rel=1e-4)
    assert apart.p_value > 0.4


def test_the_mean_over_data_sets_counts_each_the_same() -> None:
    parts = {
        "one": PairedDifference(0.1, np.array([0.1, 0.2])),
        "two": PairedDifference(0.3, np.array([0.3, 0.0])),
    }
    found = mean_difference(parts)
    assert found.value == pytest.approx(0.2)
    np.testing.assert_allclose(found.resampled, [0.2, 0.1])
    seeded = {
        "one": PairedDifference(0.1, np.array([0.1, 0.1]), (0.0, 0.2)),
        "two": PairedDifference(0.3, np.array([0.3, 0.3]), (0.4, 0.2)),
    }
    assert mean_difference(seeded).by_seed == pytest.approx((0.2, 0.2))  # seed by seed, over the data sets


def test_nothing_to_pool_is_an_error() -> None:
    with pytest.raises(ValueError, match="no comparisons"):
        pooled_difference([SeedDifferences(np.zeros(0), [])], seed=0)
