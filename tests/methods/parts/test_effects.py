"""Response effects with the text as prior: against closed forms, and on made-up responses whose worth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from copl.methods.parts.effects import Effects, fit_effects
from copl.records import Comparisons


def asked(worth: np.ndarray, pairs: np.ndarray, seed: int) -> Comparisons:
    """Answers of many users to pairs of responses, by the Bradley-Terry model."""
    rng = np.random.default_rng(seed)
    first = rng.random(len(pairs)) < expit(worth[pairs[:, 0]] - worth[pairs[:, 1]])
    chosen, rejected = np.where(first, pairs[:, 0], pairs[:, 1]), np.where(first, pairs[:, 1], pairs[:, 0])
    return Comparisons(np.zeros(len(pairs), dtype=int), chosen, rejected)


def pairs_of(num_prompts: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four responses a prompt; `each` random pairs of every prompt, and the prompt of every response."""
    rng = np.random.default_rng(seed)
    pairs = [4 * p + rng.choice(4, size=2, replace=False) for p in range(num_prompts) for _ in range(each)]
    return np.array(pairs), np.repeat(np.arange(num_prompts), 4)


def test_where_texts_tell_everything_new_ones_are_known() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(240, 8))
    worth = features @ np.array([1.5, -1.0, *np.zeros(6)])
    pairs, prompts = pairs_of(60, 12, 2)
    known = pairs[:, 0] < 160  # the last 20 prompts are never asked about
    effects = fit_effects(asked(worth, pairs[known], 3), asked(worth, pairs[known], 4), features, prompts)
    rewards = features @ effects.weights + effects.own
    assert np.corrcoef(rewards[160:], worth[160:])[0, 1] > 0.95
    assert not effects.own[160:].any()


def test_where_texts_tell_nothing_effects_are_those_of_comparisons() -> None:
    rng = np.random.default_rng(5)
    features, worth = rng.normal(size=(80, 8)), rng.normal(size=80)
    pairs, prompts = pairs_of(20, 60, 6)
    effects = fit_effects(asked(worth, pairs, 7), asked(worth, pairs[:400], 8), features, prompts)
    within = worth - np.repeat(worth.reshape(-1, 4).mean(axis=1), 4)
    rewards = features @ effects.weights + effects.own
    within_rewards = rewards - np.repeat(rewards.reshape(-1, 4).mean(axis=1), 4)
    assert np.corrcoef(within_rewards, within)[0, 1] > 0.9
    assert np.square(features @ effects.weights).mean() < 0.1 * np.square(effects.own).mean()


def test_two_responses_have_the_mode_that_a_line_search_finds() -> None:
    """Chosen 30 times of 40, without texts: t = o_1 - o_2 maximises 30 log s(t) + 10 log s(-t) - lambda t^2 / 4."""
    rows = Comparisons(np.zeros(40, dtype=int), np.repeat([0, 1], [30, 10]), np.repeat([1, 0], [30, 10]))
    effects = fit_effects(rows, rows, np.zeros((2, 3)), np.zeros(2, dtype=int))
    grid = np.linspace(-3, 3, 60_001)
    density = -30 * np.logaddexp(0, -grid) - 10 * np.logaddexp(0, grid) - effects.own_precision * grid**2 / 4
    assert effects.own[0] - effects.own[1] == pytest.approx(grid[density.argmax()], abs=1e-3)
    assert not effects.weights.any()


def test_a_comparison_of_weight_two_is_two_comparisons() -> None:
    rng = np.random.default_rng(9)
    features = rng.normal(size=(40, 4))
    pairs, prompts = pairs_of(10, 6, 10)
    once = asked(features[:, 0], pairs, 11)
    double = Comparisons(once.user, once.chosen, once.rejected, np.full(len(once), 2.0))
    twice = Comparisons.concat([once, once])
    one, other = (fit_effects(rows, once, features, prompts) for rows in (double, twice))
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-3)
    np.testing.assert_allclose(one.own, other.own, atol=1e-3)


@settings(max_examples=6)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(lambda p: p[0] != p[1]), min_size=1, max_size=12),
    st.booleans(),
    st.booleans(),
)
def test_whatever_there_is_effects_are_finite(pairs: list[tuple[int, int]], texts: bool, held: bool) -> None:
    chosen, rejected = np.array(pairs).T
    rows = Comparisons(np.zeros(len(pairs), dtype=int), chosen, rejected)
    features = np.random.default_rng(0).normal(size=(5, 6)) * texts
    found: Effects = fit_effects(rows, rows if held else Comparisons.empty(), features, np.array([0, 0, 0, 1, 1]))
    assert np.isfinite(found.weights).all()
    assert np.isfinite(found.own).all()
    assert found.loss <= np.log(2) + 1e-9
