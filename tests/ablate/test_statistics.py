"""Intervals, pooled paired differences and corrected p-values, against values by hand and plain code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtr, stdtrit

from copl.ablate.statistics import (
    PairedDifference,
    SeedDifferences,
    holm,
    mean_difference,
    pooled_difference,
    pooled_runs,
)
from copl.evaluate.bootstrap import Spread, crossed_mean


def test_runs_that_share_nothing_are_held_against_student() -> None:
    found = pooled_runs([0.6, 0.8], [0.0, 0.0], shared=False)
    assert found.value == pytest.approx(0.7)
    half = 12.7062 * 0.1  # t(.975, 1) = 12.7062; s / sqrt(2) = .1
    assert found.interval == pytest.approx((0.7 - half, 0.7 + half), rel=1e-5)
    five = pooled_runs([0.5, 0.6, 0.7, 0.8, 0.9], [0.01] * 5, shared=False)
    half = 2.77645 * np.sqrt(0.025) / np.sqrt(5)  # t(.975, 4) = 2.77645
    assert five.interval == pytest.approx((0.7 - half, 0.7 + half), rel=1e-5)


def test_of_runs_of_which_only_intervals_are_known_all_may_be_shared() -> None:
    """Reaches of .196 are standard errors of .1: three runs that agree are no surer than one, or than .1 / sqrt 3."""
    same, apart = (pooled_runs([0.5] * 3, [0.195996] * 3, shared=shared) for shared in (True, False))
    assert apart.interval == pytest.approx((0.5 - 0.1 / 3**0.5, 0.5 + 0.1 / 3**0.5), rel=1e-5)
    seeds = 0.01 / 3 / 4.30265**2  # of users and texts in each, by t(.975, 2)
    degrees = 2 * (0.01 + seeds) / seeds
    half = float(stdtrit(degrees, 0.975)) * (0.01 + seeds) ** 0.5
    assert same.interval == pytest.approx((0.5 - half, 0.5 + half), rel=1e-4)
    alone = pooled_runs([0.5], [0.2], shared=False)
    assert alone.interval == pytest.approx((0.3, 0.7))


@given(st.integers(0, 10_000), st.integers(2, 6), st.booleans())
def test_intervals_of_runs_are_never_narrower_than_by_their_single_comparisons(
    seed: int, num_seeds: int, alike: bool
) -> None:
    """What is not known of runs is taken for the most it can be."""
    rng = np.random.default_rng(seed)
    users = [f"u{k % 30}" for k in range(120)]
    values = rng.choice([0.0, 1.0], size=120) if alike else None
    parts = [
        SeedDifferences(rng.choice([0.0, 1.0], 120) if values is None else values, users) for _ in range(num_seeds)
    ]
    single = [pooled_difference([part]) for part in parts]
    reaches = [(one.interval[1] - one.interval[0]) / 2 for one in single]
    whole, runs = pooled_difference(parts), pooled_runs([one.value for one in single], reaches, shared=True)
    assert runs.value == pytest.approx(whole.value)
    assert runs.interval[0] <= whole.interval[0] + 1e-9


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
    found = pooled_difference([one, other])
    assert found.by_seed == pytest.approx((1 / 3, 0.0))
    assert found.value == pytest.approx(1 / 6)
    low, high = found.bounds
    assert low <= 1 / 6 <= high


def test_with_one_seed_the_interval_is_as_wide_as_that_of_an_evaluation() -> None:
    differences = draw(40, 0.1, 3)
    found = pooled_difference([differences])
    users = np.array([int(user[1:]) for user in differences.users])
    value, low, high = crossed_mean(differences.values, [users], seed=5, num_resamples=1000)
    assert found.value == pytest.approx(value)
    assert found.bounds[1] - found.bounds[0] == pytest.approx(high - low)


def seeds_ahead_by(*differences: float) -> list[SeedDifferences]:
    """1,000 users with a comparison each and seed, right or wrong alike but for the share a seed is ahead by."""
    users = [f"u{row}" for row in range(1000)]
    return [SeedDifferences((np.arange(1000) < 1000 * d).astype(float), users) for d in differences]


def test_three_seeds_that_differ_are_held_against_student() -> None:
    """Ahead by .01, .03 and .05: mean .03, s = .02, t = .03 / (.02 / sqrt 3) = 2.598 with 2 degrees, p = .1217."""
    found = pooled_difference(seeds_ahead_by(0.01, 0.03, 0.05))
    assert found.value == pytest.approx(0.03)
    assert found.p_value == pytest.approx(0.1217, abs=1e-4)
    half = 4.3027 * 0.02 / 3**0.5  # t(.975, 2) = 4.3027
    assert found.bounds == pytest.approx((0.03 - half, 0.03 + half), abs=1e-5)


def test_seeds_that_agree_say_nothing_about_users() -> None:
    """The same users every time: however many seeds, the interval stays that of the users."""
    one = draw(30, 0.05, 1)
    alone, often = (pooled_difference([one] * times) for times in (1, 8))
    assert often.shared.variance == pytest.approx(alone.within.variance)
    assert often.bounds == pytest.approx(alone.bounds, rel=0.1)


def test_seeds_that_share_nothing_are_held_against_student_alone() -> None:
    parts = [SeedDifferences(part.values, [f"{k} {u}" for u in part.users]) for k, part in enumerate(drawn(3))]
    found = pooled_difference(parts)
    assert found.shared.variance == 0.0
    means = [float(part.values.mean()) for part in parts]
    half = 4.30265 * float(np.std(means, ddof=1)) / 3**0.5  # t(.975, 2) = 4.30265
    assert found.bounds == pytest.approx((np.mean(means) - half, np.mean(means) + half), rel=1e-5)


def test_seeds_that_agree_by_luck_are_no_surer_than_a_standard_error() -> None:
    """Others are asked every time, and each time half of them make the difference: the means are the same."""
    parts = [SeedDifferences(np.tile([1.0, 0.0], 20), [f"{k} {u}" for u in range(40)]) for k in range(3)]
    found = pooled_difference(parts)
    error = (0.25 / 39 / 3) ** 0.5
    assert found.bounds == pytest.approx((0.5 - error, 0.5 + error))
    assert found.p_value == pytest.approx(2 * float(stdtr(2, -0.5 / (error / 4.30265))), rel=1e-4)


def test_what_seeds_share_counts_with_its_degrees_of_freedom() -> None:
    """V_s = .0012 / 3 with 2 degrees, X = .0008 with 30: V = .0012, df = V^2 / (X^2 / 30 + V_s V / 2) = 5.510."""
    found = PairedDifference(0.1, Spread(0.0, 9), (0.1 - 0.0012**0.5, 0.1, 0.1 + 0.0012**0.5), Spread(0.0008, 30))
    alone, both = found.widths
    assert (alone.variance, alone.degrees) == (pytest.approx(0.0004), 2)
    assert both.variance == pytest.approx(0.0012)
    assert both.degrees == pytest.approx(5.510, abs=1e-3)
    assert found.p_value == max(alone.p_value(0.1), both.p_value(0.1))


def drawn(number: int) -> list[SeedDifferences]:
    return [draw(30, 0.05, seed) for seed in range(number)]


def test_texts_that_all_users_share_widen_the_interval() -> None:
    """Everybody judges the same ten prompts, six ahead and four behind: there are ten observations, not a thousand."""
    values = np.tile(np.repeat([1.0, -1.0], [6, 4]), 100)
    users = [f"u{row // 10}" for row in range(1000)]
    prompts = [f"p{row % 10}" for row in range(1000)]
    narrow = pooled_difference([SeedDifferences(values, users)])
    wide = pooled_difference([SeedDifferences(values, users, prompts)])
    assert narrow.bounds[0] > 0.1  # users answer all alike
    half = 2.26216 * (0.96 / 9) ** 0.5  # t(.975, 9) s / sqrt(10)
    assert wide.bounds == pytest.approx((0.2 - half, 0.2 + half), rel=0.01)
    assert wide.p_value > 0.3


def test_a_clear_difference_is_found_and_none_is_not() -> None:
    clear = pooled_difference([draw(60, 0.25, seed) for seed in range(3)])
    assert clear.bounds[0] > 0
    assert 0 < clear.p_value < 0.002  # Student's t with 2 degrees: three seeds cannot be surer
    alone = pooled_difference([draw(60, 0.25, 0)])
    assert 0 < alone.p_value < 2 / 10_001  # of one run: so that it can survive a correction for hundreds
    none = pooled_difference([draw(60, 0.0, seed) for seed in range(3)])
    assert none.p_value > 0.05
    same = pooled_difference([SeedDifferences(np.zeros(4), list("abab"))])
    assert (same.value, same.p_value) == (0.0, 1.0)


def test_where_nothing_varies_the_sign_test_says_how_sure_so_few_can_be() -> None:
    six, five = (pooled_difference([SeedDifferences(np.ones(size), list("abcdef")[:size])]) for size in (6, 5))
    assert (six.p_value, six.bounds) == (2 / 2**6, (1.0, 1.0))
    assert (five.p_value, five.bounds) == (2 / 2**5, (0.0, 1.0))  # .0625: zero is not left out
    assert five.interval == (1.0, 1.0)
    seeds = pooled_difference([SeedDifferences(np.ones(6), list("abcdef"))] * 3)
    assert seeds.p_value == 2 / 2**6  # the same six


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 12), st.booleans())
def test_an_interval_leaves_out_zero_where_the_p_value_is_below_the_level(
    seed: int, num_seeds: int, num_users: int, in_pairs: bool
) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(num_seeds):
        values = rng.choice([-1.0, 0.0, 0.5, 1.0], size=2 * num_users, p=[0.1, 0.3, 0.2, 0.4])
        texts = [f"p{k}" for k in rng.integers(4, size=2 * num_users)]
        pairs = [(text, "q") for text in texts]
        users = [f"u{k}" for k in rng.integers(num_users, size=2 * num_users)]
        parts.append(SeedDifferences(values, users, pairs if in_pairs else texts))
    found = pooled_difference(parts)
    low, high = found.bounds
    assert low <= found.value <= high
    assert 0 <= found.p_value <= 1
    assert (found.p_value < 0.05) == (not low <= 0 <= high)


def test_swapping_the_methods_turns_the_sign_and_keeps_the_p_value() -> None:
    parts = [draw(20, 0.1, seed) for seed in range(2)]
    ahead = pooled_difference(parts)
    back = pooled_difference([SeedDifferences(-part.values, part.users) for part in parts])
    assert back.value == -ahead.value
    assert back.bounds == pytest.approx((-ahead.bounds[1], -ahead.bounds[0]))
    assert back.p_value == pytest.approx(ahead.p_value)


def test_runs_that_differ_widen_the_interval() -> None:
    """Two seeds of opposite sign: users alone would call each of them certain."""
    values = np.ones(40)
    users = [f"u{row}" for row in range(40)]
    apart = pooled_difference([SeedDifferences(values, users), SeedDifferences(-values / 2, users)])
    assert apart.value == pytest.approx(0.25)
    assert apart.bounds == pytest.approx((0.25 - 12.7062 * 0.75, 0.25 + 12.7062 * 0.75), rel=1e-4)
    assert apart.p_value > 0.4


def test_the_mean_over_data_sets_counts_each_the_same() -> None:
    parts = {"one": PairedDifference(0.1, Spread(0.04, 10)), "two": PairedDifference(0.3, Spread(0.08, 20))}
    found = mean_difference(parts)
    assert found.value == pytest.approx(0.2)
    assert found.within.variance == pytest.approx((0.04 + 0.08) / 4)
    assert found.within.degrees == pytest.approx(0.12**2 / (0.04**2 / 10 + 0.08**2 / 20))  # Satterthwaite
    seeded = {
        "one": PairedDifference(0.1, Spread(0.0, 5), (0.0, 0.2), Spread(0.01, 7)),
        "two": PairedDifference(0.3, Spread(0.0, 5), (0.4, 0.2), Spread(0.03, 7)),
    }
    both = mean_difference(seeded)
    assert both.by_seed == pytest.approx((0.2, 0.2))  # seed by seed, over the data sets
    assert both.shared.variance == pytest.approx(0.01)
    mixed = mean_difference({"one": parts["one"], "two": seeded["two"]})  # a run of the one is missing
    wider = max(seeded["two"].widths, key=lambda width: width.reach)
    assert mixed.within.variance == pytest.approx((0.04 + wider.variance) / 4)
    assert mixed.by_seed == ()


def test_nothing_to_pool_is_an_error() -> None:
    with pytest.raises(ValueError, match="no comparisons"):
        pooled_difference([SeedDifferences(np.zeros(0), [])])
