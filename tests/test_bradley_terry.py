"""The loss by hand, in both precisions, and where it could break."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from copl.bradley_terry import bradley_terry_loss, log_loss, mean_log_loss

MARGINS, WEIGHT = [0.0, np.log(3), -np.log(3)], [1.0, 2.0, 1.0]
EXPECTED = (np.log(2) + 2 * np.log(4 / 3) + np.log(4)) / 4  # -log of 1/2, of 3/4 twice and of 1/4


def test_by_hand() -> None:
    assert mean_log_loss(np.array(MARGINS), np.array(WEIGHT)) == pytest.approx(EXPECTED, rel=1e-12)
    assert float(bradley_terry_loss(torch.tensor(MARGINS), torch.tensor(WEIGHT))) == pytest.approx(EXPECTED, rel=1e-6)


def test_the_gradient_is_minus_the_probability_of_the_other_answer() -> None:
    margins = torch.tensor(MARGINS, dtype=torch.float64, requires_grad=True)
    bradley_terry_loss(margins, torch.tensor(WEIGHT)).backward()
    expected = torch.tensor([-0.5 / 4, -2 * 0.25 / 4, -0.75 / 4], dtype=torch.float64)
    torch.testing.assert_close(margins.grad, expected)


def test_margins_of_any_size_have_finite_losses() -> None:
    assert log_loss(np.array([1e4, -1e4])).tolist() == [0.0, 1e4]
    assert bradley_terry_loss(torch.tensor([1e4, -1e4]), torch.ones(2)).tolist() == 5e3


def test_without_any_margin() -> None:
    assert mean_log_loss(np.zeros(0), np.zeros(0)) == pytest.approx(np.log(2))
    assert float(bradley_terry_loss(torch.zeros(0), torch.zeros(0))) == 0.0
