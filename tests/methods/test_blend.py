"""The blend of text and graph: what the weights are, and on what scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.errors import RunError
from copl.methods.blend import Blend


def _margins(count: int, text: float, graph: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Margins of comparisons whose true logit is ``text * T + graph * G``, turned so that the chosen one is first."""
    rng = np.random.default_rng(seed)
    t, g = rng.normal(size=(2, count)) * 1.5
    won = rng.random(count) < 1 / (1 + np.exp(-(text * t + graph * g)))
    sign = np.where(won, 1.0, -1.0)
    return t * sign, g * sign


def test_the_weights_that_made_the_labels_are_found() -> None:
    text, graph = _margins(40_000, 0.4, 1.2)
    blend = Blend.fit(text, graph)
    assert blend.text / blend.graph == pytest.approx(0.4 / 1.2, rel=0.05)


def test_a_half_that_says_nothing_gets_next_to_no_weight() -> None:
    text, graph = _margins(20_000, 1.0, 0.0)
    blend = Blend.fit(text, graph)
    assert blend.graph < 0.05
    assert blend.text == pytest.approx(1.0, abs=0.05)


def test_met_responses_score_on_average_what_new_ones_of_the_same_text_score() -> None:
    text, graph = _margins(20_000, 0.5, 1.0)
    graph = 0.7 * text + graph
    blend = Blend.fit(text, graph)
    scores = blend.scores(text, np.zeros(len(text)), graph, np.ones(len(text), dtype=bool))
    assert float(scores @ text / (text @ text)) == pytest.approx(1.0)


def test_without_validation_comparisons_the_prior_holds() -> None:
    blend = Blend.fit(np.zeros(0), np.zeros(0))
    assert blend.graph == pytest.approx(2.0, rel=1e-3)
    assert blend.text == pytest.approx(1.0)


def test_a_response_never_met_is_scored_by_its_text() -> None:
    text, level, graph = np.array([1.0, 1.0]), np.array([5.0, 5.0]), np.array([0.0, 3.0])
    scores = Blend(0.5, 2.0).scores(text, level, graph, np.array([False, True]))
    assert scores.tolist() == [1.0, 5.0 - 2.0 + 6.0]


@given(st.integers(0, 30), st.floats(0, 50), st.floats(0, 50), st.integers(0, 5))
def test_weights_are_always_finite_and_not_negative(count: int, text: float, graph: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    blend = Blend.fit(text * rng.normal(size=count), graph * rng.normal(size=count))
    assert np.isfinite([blend.text, blend.graph]).all()
    assert blend.text >= 0
    assert blend.graph >= 0


def test_weights_survive_saving_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    blend = Blend(0.25, 1.5)
    blend.save(tmp_path)
    assert Blend.load(tmp_path) == blend
    (tmp_path / "blend.json").write_text("{")
    with pytest.raises(RunError, match=r"blend\.json cannot be read"):
        Blend.load(tmp_path)
