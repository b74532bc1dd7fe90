"""Coordinates of texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from copl.graph.encoders.tastes.metric import Axes
from copl.records import Comparisons


def material(count: int = 40, size: int = 6) -> tuple[torch.Tensor, Comparisons]:
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.normal(size=(count, size)) * np.arange(1, size + 1) + 5).float()
    pairs = np.array([rng.choice(count, 2, replace=False) for _ in range(50)])
    return codes, Comparisons(np.zeros(50, np.int64), pairs[:, 0], pairs[:, 1])


@pytest.mark.parametrize("size", [2, 6, 20])
def test_differences_have_the_mean_square_one_and_do_not_vary_together(size: int) -> None:
    codes, rows = material()
    found = Axes.fit(codes, rows, size).coordinates(codes)
    assert found.shape == (40, min(size, 6))
    differences = (found[rows.chosen] - found[rows.rejected]).double()
    scatter = differences.T @ differences / len(rows)
    assert float(scatter.trace()) == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(scatter, torch.diag(scatter.diagonal()), atol=1e-6, rtol=0)
    assert scatter.diagonal().tolist() == sorted(scatter.diagonal().tolist(), reverse=True)
    torch.testing.assert_close(found.mean(0), torch.zeros(found.shape[1]), atol=1e-5, rtol=0)


def test_all_axes_keep_distances_up_to_the_unit() -> None:
    codes, rows = material()
    found = Axes.fit(codes, rows, 6).coordinates(codes)
    shares = torch.cdist(found, found)[0, 1:] / torch.cdist(codes, codes)[0, 1:]
    torch.testing.assert_close(shares, shares[:1].expand(39), rtol=1e-3, atol=0)


def test_what_both_responses_always_share_is_no_axis() -> None:
    codes, _ = material()
    codes[1::2, 2:] = codes[::2, 2:]
    even = np.arange(0, 40, 2)
    axes = Axes.fit(codes, Comparisons(np.zeros(20, np.int64), even, even + 1), 6)
    assert axes.onto.shape == (6, 2)
    assert float(axes.onto[2:].abs().max()) < 1e-6
