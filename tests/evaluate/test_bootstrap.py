"""Intervals of means over comparisons that share users and texts: variances, degrees of freedom, resamples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import chdtr

from copl.evaluate.bootstrap import (
    Spread,
    added,
    certainty,
    crossed_mean,
    crossed_share,
    resampled_ratios,
    sampled_from,
    spread,
    spread_between,
)
from copl.records import Comparisons, ComparisonSet, ResponseTable, UserTable


def test_the_interval_of_independent_values_is_the_normal_one() -> None:
    generator = np.random.default_rng(1)
    sample = generator.normal(size=2000)
    value, low, high = crossed_mean(sample, [np.arange(2000)], seed=0, num_resamples=2000)
    half = 1.96 * sample.std() / np.sqrt(2000)
    assert low == pytest.approx(value - half, abs=0.1 * half)
    assert high == pytest.approx(value + half, abs=0.1 * half)


def test_values_of_one_user_are_not_independent() -> None:
    """With every user repeating one answer nine times, the interval is that of the users, not of the answers."""
    answers = np.random.default_rng(2).random(100) < 0.6
    users = np.repeat(np.arange(100), 9)
    repeated = crossed_mean(np.repeat(answers, 9).astype(float), [users], seed=0, num_resamples=1000)
    once = crossed_mean(answers.astype(float), [np.arange(100)], seed=0, num_resamples=1000)
    assert repeated == pytest.approx(once)


def test_a_single_user_is_resampled_by_comparison() -> None:
    value, low, high = crossed_mean(np.array([1.0, 0.0] * 50), [np.zeros(100, dtype=int)], seed=0, num_resamples=500)
    assert low < 0.45 < value < 0.55 < high


def test_same_seed_same_interval_however_the_resamples_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    columns = generator.random(50), generator.integers(1, 5, 50).astype(float)
    whole = resampled_ratios(*columns, seed=7, num_resamples=300)
    np.testing.assert_array_equal(resampled_ratios(*columns, seed=7, num_resamples=300), whole)  # kept draws
    monkeypatch.setattr("copl.evaluate.bootstrap._DRAWS_KEPT", 0)
    np.testing.assert_array_equal(resampled_ratios(*columns, seed=7, num_resamples=300), whole)
    monkeypatch.setattr("copl.evaluate.bootstrap._DRAWS_AT_ONCE", 50 * 7)
    np.testing.assert_allclose(resampled_ratios(*columns, seed=7, num_resamples=300), whole)
    assert not np.allclose(resampled_ratios(*columns, seed=8, num_resamples=300), whole)


def crossed(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """60 comparisons: users, prompts, pairs of responses, and deviations that sum to zero."""
    generator = np.random.default_rng(seed)
    users, prompts = generator.integers(7, size=60), generator.integers(5, size=60)
    ends = np.stack([prompts, (prompts + generator.integers(1, 5, size=60)) % 5], axis=1)
    deviations = generator.normal(size=60)
    return users, prompts, ends, deviations - deviations.mean()


def shared_cluster(kind: np.ndarray) -> np.ndarray:
    """Whether two comparisons share a cluster, for all pairs [60, 60]."""
    ends = kind.reshape(60, -1)
    matrix: np.ndarray = (ends[:, None, :, None] == ends[None, :, None, :]).any(axis=(2, 3))
    return matrix


def lost(*kinds: np.ndarray) -> float:
    """The factor for clusters that are lost to the mean."""
    cells = {pair for end in np.atleast_2d(kinds[-1].T) for pair in zip(*kinds[:-1], end, strict=True)}
    return float((len(cells) / (len(cells) - kinds[-1].ndim)) ** kinds[-1].ndim)


def test_the_variance_counts_pairs_that_share_a_user_or_a_text_once() -> None:
    """Against the sum over all pairs, plainly, with crossed prompts and with pairs of responses."""
    users, prompts, ends, deviations = crossed(4)

    def plain(*same: np.ndarray) -> float:
        return max(0.0, float(deviations @ np.logical_and.reduce(same) @ deviations))

    for texts in (prompts, ends):
        by_user, by_text = shared_cluster(users), shared_cluster(texts)
        one, other = plain(by_user) * lost(users), plain(by_text) * lost(texts)
        noise = plain(by_user, by_text) * lost(users, texts)
        expected = noise + max(0.0, one - noise) + max(0.0, other - noise)
        assert spread(deviations, [users, texts]).variance == pytest.approx(expected)


def test_what_runs_share_is_in_pairs_of_different_runs() -> None:
    """Against the sum over all pairs, plainly: three runs over the same users and texts."""
    users, prompts, ends, _ = crossed(5)
    run = np.arange(60) % 3
    taste = np.random.default_rng(6).normal(size=7)[users]  # users are the same luck in all runs
    deviations = taste - np.bincount(run, taste)[run] / 20
    other_run = run[:, None] != run[None]

    def plain(*same: np.ndarray) -> float:
        return float(deviations @ np.logical_and.reduce([*same, other_run]) @ deviations)

    for texts in (prompts, ends):
        by_user, by_text = shared_cluster(users), shared_cluster(texts)
        total = plain(by_user) * lost(users) + plain(by_text) * lost(texts)
        total -= plain(by_user, by_text) * lost(users, texts)
        between = spread_between(deviations, [users, texts], run)
        assert total > 0
        assert between.variance == pytest.approx(total * 3 / 2)
        sizes = np.bincount(np.asarray(texts).ravel())
        assert between.degrees == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum() - 1)
    others = [users + 7 * run, prompts + 5 * run]
    assert spread_between(deviations, others, run).variance == 0.0


def test_few_clusters_leave_few_degrees_of_freedom() -> None:
    """Where texts decide everything their number does; where nothing but chance does, the cells do."""
    users, prompts = np.divmod(np.arange(1600), 8)
    decided = np.where(prompts < 5, 0.375, -0.625) / 1600
    assert spread(decided, [users, prompts]).degrees == pytest.approx(7, rel=0.02)
    chance = np.random.default_rng(0).choice([-1.0, 1.0], size=1600)
    assert spread((chance - chance.mean()) / 1600, [users, prompts]).degrees > 2 * 7
    assert added([Spread(3.0, 6), Spread(1.0, 2)]).degrees == pytest.approx(16 / (9 / 6 + 1 / 2))  # Satterthwaite


def test_clusters_add_as_surely_as_noise_alone_would_add_less() -> None:
    """Chi squared of two degrees is exponential: P = 1 - exp(-V / noise); of as much as noise P is 1 - 1/e."""
    assert certainty(3.0, 1.0, 2.0) == pytest.approx(1 - 2 * np.exp(-3))
    assert certainty(2.0, 2.0, 2.0) == pytest.approx(1 - 2 / np.e)
    assert certainty(0.5, 1.0, 2.0) == 0.0  # less than noise gives by half of the time
    assert certainty(1e-9, 0.0, 7.0) == 1.0


def test_the_degrees_of_freedom_are_those_of_what_is_added() -> None:
    """Three users and two prompts, all crossed: V = noise + what prompts add, each by its degrees."""
    users, prompts = np.divmod(np.arange(6), 2)
    deviations = np.array([0.2, -0.1, 0.1, -0.3, 0.3, -0.2])
    noise = float(np.square(deviations).sum()) * 6 / 5
    by_user = float(np.square([0.1, -0.2, 0.1]).sum()) * 3 / 2
    by_prompt = float(np.square([0.6, -0.6]).sum()) * 2
    assert by_user < noise < by_prompt
    sure = 1 - 2 * (1 - chdtr(1, by_prompt / noise))
    unsure = sure * ((by_prompt - noise) / 1 + noise / 1) ** 2  # a single degree each
    found = spread(deviations, [users, prompts])
    assert found.variance == pytest.approx(by_prompt)
    assert found.degrees == pytest.approx(max(1.0, by_prompt**2 / (noise**2 / 5 + unsure)))
    assert found.degrees > 1


def test_an_interval_is_as_wide_as_the_variance_says() -> None:
    users, prompts, _, deviations = crossed(7)
    _, low, high = crossed_mean(deviations, [users, prompts], seed=0, num_resamples=300)
    width = spread(deviations / 60, [users, prompts])
    assert high - low == pytest.approx(2 * width.reach)
    assert width.p_value(width.reach) == pytest.approx(0.05)
    assert width.p_value(-2 * width.reach) < 0.05 < width.p_value(width.reach / 2)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=40), st.integers(1, 50_000))
def test_clusters_are_numbered_as_sorting_would(codes: list[int], factor: int) -> None:
    numbers = np.array(codes) * factor  # with gaps too wide for counting, too
    once = spread(np.arange(len(codes)) - (len(codes) - 1) / 2, [numbers])
    dense = np.unique(numbers, return_inverse=True)[1]
    assert spread(np.arange(len(codes)) - (len(codes) - 1) / 2, [dense]) == once


def test_prompts_that_everybody_judges_are_what_was_sampled() -> None:
    """Eight prompts, all right or all wrong, judged by 200 users: eight observations."""
    right = np.tile([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0], 200)
    users, prompts = np.divmod(np.arange(1600), 8)
    _, low, high = crossed_mean(right, [users, prompts], seed=0, num_resamples=1000)
    half = 2.3646 * np.sqrt(0.625 * 0.375 / 7)  # t(.975, 7) s / sqrt(8)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert crossed_mean(right, [users], seed=0, num_resamples=1000) == (0.625, 0.625, 0.625)


def test_what_is_sampled_are_prompts_or_else_the_responses_of_one_conversation() -> None:
    table = UserTable.ungrouped(["a", "b"])
    rows = Comparisons(np.array([0, 1]), np.array([0, 2]), np.array([1, 3]))
    two = ComparisonSet(table, ResponseTable(list("ppqq"), list("wxyz")), rows)
    assert [kind.tolist() for kind in sampled_from(two)] == [[0, 1], [0, 1]]
    one = ComparisonSet(table, ResponseTable(["p"] * 4, list("wxyz")), rows)
    assert [kind.tolist() for kind in sampled_from(one)] == [[0, 1], [[0, 1], [2, 3]]]


def test_intervals_of_shares_stay_shares() -> None:
    right = np.ones(30)
    right[0] = 0.0
    _, low, high = crossed_mean(right, [np.arange(30) % 3, np.arange(30) % 5], seed=0, num_resamples=500)
    assert 0.0 <= low <= high <= 1.0


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_right_is_no_certainty(right: float) -> None:
    """Ten users are all right with probability p^10, which is 2.5 % where p = .025^(1/10) = .6915."""
    least = 0.6915
    ends = (least, 1.0) if right else (0.0, 1 - least)
    users, prompts = np.arange(40) % 10, np.arange(40) % 20
    found = crossed_share(np.full(40, right), [users, prompts], seed=0, num_resamples=100)
    assert found == pytest.approx((right, *ends), abs=1e-4)
