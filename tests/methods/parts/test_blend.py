"""The blend of text and graph: what the weights are, and on what scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.errors import RunError
from copl.methods.parts.blend import MET, NEW, Blend, Expectation, Weights

NO_GRAPH = Weights(1.0, 0.0)


def _margins(count: int, text: float, graph: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Margins of comparisons whose true logit is ``text * T + graph * G``, turned so that the chosen one is first."""
    rng = np.random.default_rng(seed)
    t, g = rng.normal(size=(2, count)) * 1.5
    won = rng.random(count) < 1 / (1 + np.exp(-(text * t + graph * g)))
    sign = np.where(won, 1.0, -1.0)
    return t * sign, g * sign


def test_the_weights_that_made_the_labels_are_found() -> None:
    text, graph = _margins(40_000, 0.4, 1.2)
    blend = Weights.fit(text, graph, MET)
    assert blend.text / blend.graph == pytest.approx(0.4 / 1.2, rel=0.05)


def test_a_half_that_says_nothing_gets_next_to_no_weight() -> None:
    text, graph = _margins(20_000, 1.0, 0.0)
    blend = Weights.fit(text, graph, MET)
    assert blend.graph < 0.05
    assert blend.text == pytest.approx(1.0, abs=0.05)


def test_met_responses_score_on_average_what_new_ones_of_the_same_text_score() -> None:
    text, graph = _margins(20_000, 0.5, 1.0)
    graph = 0.7 * text + graph
    blend = Weights.fit(text, graph, MET)
    scores = Blend(blend, NO_GRAPH).scores(text, np.zeros(len(text)), graph, np.ones(len(text), dtype=bool))
    assert float(scores @ text / (text @ text)) == pytest.approx(1.0)


@pytest.mark.parametrize("expected", [MET, NEW])
def test_without_validation_comparisons_both_halves_are_taken_to_be_calibrated(expected: Expectation) -> None:
    weights = Weights.fit(np.zeros(0), np.zeros(0), expected)
    assert weights.text + weights.graph == pytest.approx(1.0, rel=1e-3)
    assert weights.graph / weights.text == pytest.approx(expected.graph / expected.text, rel=1e-3)


def test_a_stronger_expectation_gives_way_later() -> None:
    text, graph = _margins(60, 1.0, 0.1)
    weak, strong = (Weights.fit(text, graph, Expectation(0.2, 1.0, strength)) for strength in (1.0, 100.0))
    assert weak.graph / weak.text < strong.graph / strong.text


def test_met_and_new_responses_have_weights_of_their_own() -> None:
    text, level, graph = np.array([7.0, 7.0]), np.array([5.0, 5.0]), np.array([3.0, 3.0])
    blend = Blend(met=Weights(0.5, 2.0), new=Weights(1.0, 0.25))
    assert blend.scores(text, level, graph, np.array([True, False])).tolist() == [5 + 1 + 6, 5 + 2 + 0.75]


@given(st.integers(0, 30), st.floats(0, 50), st.floats(0, 50), st.integers(0, 5))
def test_weights_are_always_finite_and_not_negative(count: int, text: float, graph: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    blend = Weights.fit(text * rng.normal(size=count), graph * rng.normal(size=count), MET)
    assert np.isfinite([blend.text, blend.graph]).all()
    assert blend.text >= 0
    assert blend.graph >= 0


def test_weights_survive_saving_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    blend = Blend(Weights(0.25, 1.5), Weights(0.5, 0.75))
    blend.save(tmp_path)
    assert Blend.load(tmp_path) == blend
    (tmp_path / "blend.json").write_text("{")
    with pytest.raises(RunError, match=r"blend\.json: damaged"):
        Blend.load(tmp_path)
