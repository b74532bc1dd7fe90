"""Which comparison to ask a user next: the one whose answer tells most about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from numpy.polynomial.hermite import hermgauss

if TYPE_CHECKING:
    from torch import Tensor

_NODES = 12
_BITS = 1 / 0.6931471805599453


def expected_information(shares: Tensor, margins: Tensor, variance: Tensor) -> Tensor:
    r"""Return how many bits the answer to each question is expected to tell about each user [n, Q].

    The mutual information of the answer and of who the user is: the point k of the prior, and a taste that moves the
    margin by a normal deviation of variance v, by Gauss-Hermite quadrature,

    .. math:: I_q = H\Bigl(\sum_k p_k\, E\, \sigma(m_{kq} + \sqrt{v_q} t)\Bigr)
                   - \sum_k p_k\, E\, H\bigl(\sigma(m_{kq} + \sqrt{v_q} t)\bigr), \quad t \sim N(0, 1)

    with the entropy H of a yes or no. High where points or tastes that are likely disagree and each of them is sure; a
    pair that nobody can predict tells nothing. (Lindley, On a measure of the information provided by an experiment,
    1956.)

    Args:
        shares: probability of each point for each user [n, K].
        margins: margin of question q for a user like point k [K, Q].
        variance: variance of the margin of each question by what is not known of a taste [Q] or [K, Q].
    """
    nodes, weights = hermgauss(_NODES)
    spread = variance.clamp_min(0).sqrt() * 2**0.5
    chance, doubt = torch.zeros_like(margins), torch.zeros_like(margins)
    for node, weight in zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True):
        probability = torch.sigmoid(margins + node * spread)
        chance, doubt = chance + weight * probability, doubt + weight * _entropy(probability)
    return (_entropy(shares @ chance) - shares @ doubt).clamp_min(0.0) * _BITS


def _entropy(probability: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(probability) + torch.special.entr(1 - probability)
    return entropy
