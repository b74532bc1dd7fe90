r"""What everything here is trained and judged by: the loss of Bradley and Terry, -log sigma(margin), and what is right.

.. math::
    P(c \succ r) = \sigma(m), \qquad L = \frac{\sum_n w_n \log(1 + e^{-m_n})}{\sum_n w_n}

R. A. Bradley and M. E. Terry, "Rank Analysis of Incomplete Block Designs", Biometrika 39, 1952.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray


def bradley_terry_loss(margins: Tensor, weight: Tensor) -> Tensor:
    """Return the loss [] of margins [N] with weights [N]; 0 where the weights are."""
    from torch.nn.functional import softplus

    loss: Tensor = (weight * softplus(-margins)).sum() / weight.sum().clamp_min(1e-12)
    return loss


def log_loss(margins: FloatArray) -> FloatArray:
    """Return -log sigma(m) of each margin, in double precision."""
    losses: FloatArray = np.logaddexp(0.0, -margins)
    return losses


def mean_log_loss(margins: FloatArray, weight: FloatArray) -> float:
    """Return the loss of margins [N] with weights [N] in double precision; ln 2, that of a margin of 0, without any."""
    return float(np.average(log_loss(margins), weights=weight)) if len(margins) else float(np.log(2))


def correct(margins: FloatArray) -> FloatArray:
    """Return 1 where the margin is positive, 1/2 where it is zero, 0 where it is negative [N].

    Raises:
        ValueError: a margin is not a number.
    """
    if np.isnan(margins).any():
        raise ValueError(f"{int(np.isnan(margins).sum())} of {len(margins)} margins are not a number")
    return (np.sign(margins) + 1) / 2
