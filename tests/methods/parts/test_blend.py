"""The blend of the table of users and responses with the reward model: what the weights are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.errors import RunError
from copl.methods.parts.blend import Blend, _confidence


def _margins(count: int, table: float, text: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Margins of comparisons whose true logit is ``table * S + text * T``, turned so that the chosen one is first."""
    rng = np.random.default_rng(seed)
    s, t = rng.normal(size=(2, count)) * 1.5
    won = rng.random(count) < 1 / (1 + np.exp(-(table * s + text * t)))
    sign = np.where(won, 1.0, -1.0)
    return s * sign, t * sign


def test_the_weights_that_made_the_labels_are_found() -> None:
    blend = Blend.fit(*_margins(40_000, table=1.2, text=0.4))
    assert blend.table == pytest.approx(1.2, rel=0.05)
    assert blend.text == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize("table", [True, False])
def test_a_side_that_says_nothing_gets_next_to_no_weight(table: bool) -> None:
    blend = Blend.fit(*_margins(20_000, table=float(table), text=float(not table)))
    said, silent = (blend.table, blend.text) if table else (blend.text, blend.table)
    assert said == pytest.approx(1.0, abs=0.05)
    assert silent < 0.05


@pytest.mark.parametrize("table", [True, False])
def test_the_side_that_is_right_gets_more_than_expected_and_the_other_less(table: bool) -> None:
    right, wrong = np.ones(40), np.tile([1.0, -1.0], 20)
    blend = Blend.fit(*((right, wrong) if table else (wrong, right)))
    assert (blend.table > 0.8) == table
    assert (blend.text > 0.2) == (not table)


def test_without_validation_comparisons_the_table_is_left_alone() -> None:
    assert Blend.fit(np.zeros(0), np.zeros(0)) == Blend(pytest.approx(0.8, abs=1e-4), 0.0)


def test_a_reward_model_that_may_harm_counts_little() -> None:
    table, noise = np.full(30, 1.0), np.tile([3.0, -3.0], 15)
    assert Blend.fit(table, noise).text < 0.05


def test_what_counts_by_hand() -> None:
    """Even gains of either sign: z = 0, half of a half, times 90 / (90 + 30); z = 1 is surer by .8413."""
    assert _confidence(np.tile([1.0, -1.0], 45)) == pytest.approx(0.25 * 0.75)
    gains = np.r_[np.full(42, 0.1 + np.sqrt(0.84)), np.full(42, 0.1 - np.sqrt(0.84))]  # deviation .1 of the mean .1
    assert _confidence(gains) == pytest.approx(0.8413447**2 * 84 / 114)
    # mean .1 over .3 / sqrt(900): z = 10, all but surely, times 900 / 930
    assert _confidence(np.tile([0.4, -0.2], 450)) == pytest.approx(900 / 930)
    assert _confidence(np.zeros(0)) == 0.0


def test_what_helps_counts_by_how_surely_it_helps() -> None:
    """30 comparisons of which the reward model mends 3, and forty times as many."""
    table, text = np.r_[np.full(27, 1.0), np.full(3, -1.0)], np.r_[np.full(27, 1.0), np.full(3, 4.0)]
    few, many = Blend.fit(table, text), Blend.fit(np.tile(table, 40), np.tile(text, 40))
    assert 0 < few.text < many.text


def test_scores_by_hand() -> None:
    blend = Blend(table=2.0, text=0.5)
    found = blend.scores(np.array([3.0, -1.0]), np.array([7.0, 4.0]), np.array([5.0, 4.0]))
    assert found.tolist() == [2 * 3 + 0.5 * 2, -2.0]


@given(st.integers(0, 30), st.floats(0, 50), st.floats(0, 50), st.integers(0, 5))
def test_weights_are_always_finite_and_not_negative(count: int, table: float, text: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    blend = Blend.fit(table * rng.normal(size=count), text * rng.normal(size=count))
    assert np.isfinite([blend.table, blend.text]).all()
    assert min(blend.table, blend.text) >= 0


def test_weights_survive_saving_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    blend = Blend(0.25, 1.5)
    blend.save(tmp_path)
    assert Blend.load(tmp_path) == blend
    (tmp_path / "blend.json").write_text("{")
    with pytest.raises(RunError, match=r"blend\.json: damaged"):
        Blend.load(tmp_path)
