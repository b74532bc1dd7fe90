"""The regression of the graph's embeddings on texts: what it predicts, and what it leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from copl.errors import RunError
from copl.methods.parts import text_regression
from copl.methods.parts.text_regression import TextRegression


def _material(count: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 5, generator=generator)
    targets = torch.randn(count, 3, generator=generator)
    counts = torch.randint(1, 9, (count,), generator=generator)
    return features, targets, counts


def _plain(features: Tensor, counts: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The kernel [R, R] and the penalty [R, R] as the formula has them."""
    features = features.double()
    scaled = (features - features.mean(0)) / features.std(0, correction=0)
    scaled = scaled / scaled.square().sum(1).mean().sqrt()
    kernel = torch.exp(-0.5 * torch.cdist(scaled, scaled).square())
    counts = counts.double()
    return kernel, ridge * torch.diag(counts.mean() / counts)


def test_predictions_are_those_of_the_formula() -> None:
    features, targets, counts = _material()
    regression, _ = TextRegression.fit(features, targets, counts, None)
    kernel, penalty = _plain(features, counts, 0.3)
    expected = kernel @ torch.linalg.solve(kernel + penalty, targets.double())
    torch.testing.assert_close(regression.predict(features), expected, rtol=1e-5, atol=1e-6)


def test_what_others_say_is_the_prediction_without_the_response_itself() -> None:
    features, targets, counts = _material()
    _, others = TextRegression.fit(features, targets, counts, None)
    kernel, penalty = _plain(features, counts, 0.3)
    for left_out in range(len(features)):
        rest = [row for row in range(len(features)) if row != left_out]
        inner = kernel[rest][:, rest] + penalty[rest][:, rest]
        expected = kernel[left_out, rest] @ torch.linalg.solve(inner, targets[rest].double())
        torch.testing.assert_close(others[left_out], expected, rtol=1e-4, atol=1e-5)


def test_the_ridge_is_the_one_the_judge_likes_best() -> None:
    features, targets, counts = _material()
    seen: list[Tensor] = []

    def judge(alone: Tensor) -> float:
        seen.append(alone)
        return abs(len(seen) - 3.0)  # the third

    _, others = TextRegression.fit(features, targets, counts, judge)
    assert len(seen) == 6
    torch.testing.assert_close(others, seen[2])


def test_a_response_without_comparisons_teaches_nothing() -> None:
    features, targets, counts = _material()
    without, _ = TextRegression.fit(features[1:], targets[1:], counts[1:], None)
    counts[0] = 0
    targets[0] = 1e3
    with_it, others = TextRegression.fit(features, targets, counts, None)
    torch.testing.assert_close(with_it.predict(features), without.predict(features))
    torch.testing.assert_close(others[0], with_it.predict(features[:1])[0])


def test_nothing_to_learn_from_predicts_zeros() -> None:
    features, targets, counts = _material()
    regression, others = TextRegression.fit(features, targets, torch.zeros_like(counts), None)
    assert regression.predict(features).tolist() == torch.zeros(12, 3).tolist()
    assert others.tolist() == torch.zeros(12, 3).tolist()


def test_fewer_landmarks_than_responses_come_close(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(200, 2, generator=generator)
    targets, counts = torch.sin(2 * features), torch.ones(200)
    exact, _ = TextRegression.fit(features, targets, counts, None)
    monkeypatch.setattr(text_regression, "_MAX_LANDMARKS", 60)
    fewer, _ = TextRegression.fit(features, targets, counts, None)
    assert len(fewer.landmarks) == 60
    assert float((fewer.predict(features) - exact.predict(features)).abs().mean()) < 0.01


@given(st.integers(1, 6), st.integers(0, 3), st.booleans())
def test_predictions_are_finite_whatever_the_features(count: int, seed: int, alike: bool) -> None:
    features, targets, counts = _material(count, seed)
    if alike:
        features = torch.ones_like(features)
    regression, others = TextRegression.fit(features, targets, counts, None)
    assert bool(torch.isfinite(regression.predict(features)).all())
    assert bool(torch.isfinite(others).all())


def test_it_survives_saving_and_a_missing_file_is_named(tmp_path: Path) -> None:
    features, targets, counts = _material()
    regression, _ = TextRegression.fit(features, targets, counts, None)
    regression.save(tmp_path)
    loaded = TextRegression.load(tmp_path)
    torch.testing.assert_close(loaded.predict(features), regression.predict(features), rtol=1e-4, atol=1e-5)
    with pytest.raises(RunError, match=r"text_regression\.safetensors: missing"):
        TextRegression.load(tmp_path / "elsewhere")
