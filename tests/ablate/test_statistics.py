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


def test_the_pooled_difference_is_the_mean_over_all_comparisons_of_all_seeds() -> None:
    one = SeedDifferences(np.array([1.0, 0.0, 0.0]), ["a", "a", "b"])
    other = SeedDifferences(np.array([0.0]), ["b"])
    found = pooled_difference([one, other], seed=0, num_resamples=400)
    assert found.value == 0.25
    # users a, b and seeds 1, 2: a resample is worth one of these, or nothing where only (a, seed 2) was drawn
    assert set(np.round(found.resampled, 6)) <= {0.0, 0.5, 0.4, 0.333333, 0.25, 0.285714, 0.2, 0.222222, 0.142857}
    low, high = found.bounds
    assert low <= 0.25 <= high


def test_resamples_are_those_of_plain_code_for_one_seed() -> None:
    differences = draw(6, 0.1, 3)
    found = pooled_difference([differences], seed=5, num_resamples=50)
    rng = np.random.default_rng(5)
    drawn = rng.integers(6, size=(50, 6), dtype=np.int64)
    by_user = {f"u{k}": differences.values[[u == f"u{k}" for u in differences.users]] for k in range(6)}
    plain = [np.concatenate([by_user[f"u{k}"] for k in row]).mean() for row in drawn]
    np.testing.assert_allclose(found.resampled, plain)


def test_a_clear_difference_is_found_and_none_is_not() -> None:
    clear = pooled_difference([draw(60, 0.25, seed) for seed in range(3)], seed=0)
    assert clear.bounds[0] > 0
    assert 0 < clear.p_value < 2 / 10_001  # so that it can survive a correction for hundreds
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
    assert apart.bounds == pytest.approx((-0.5, 1.0))
    assert apart.p_value > 0.4


def test_the_mean_over_data_sets_counts_each_the_same() -> None:
    parts = {
        "one": PairedDifference(0.1, np.array([0.1, 0.2])),
        "two": PairedDifference(0.3, np.array([0.3, 0.0])),
    }
    found = mean_difference(parts)
    assert found.value == pytest.approx(0.2)
    np.testing.assert_allclose(found.resampled, [0.2, 0.1])


def test_nothing_to_pool_is_an_error() -> None:
    with pytest.raises(ValueError, match="no comparisons"):
        pooled_difference([SeedDifferences(np.zeros(0), [])], seed=0)
