"""Which comparison to ask a user next: the one whose answer tells most about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_BITS = 1 / 0.6931471805599453


def expected_information(shares: Tensor, probabilities: Tensor) -> Tensor:
    r"""Return how many bits the answer to each question is expected to tell about each user [n, Q].

    The mutual information of the answer and the point k of the prior the user is like; exact, since there are finitely
    many points,

    .. math:: I_q = H\Bigl(\sum_k p_k\, \sigma(m_{kq})\Bigr) - \sum_k p_k\, H\bigl(\sigma(m_{kq})\bigr)

    with the entropy H of a yes or no. High where points that are likely disagree and each of them is sure; a pair that
    nobody can predict tells nothing. (Lindley, On a measure of the information provided by an experiment, 1956.)

    Args:
        shares: probability of each point for each user [n, K].
        probabilities: probability that a user like point k prefers the first response of question q [K, Q].
    """
    information = _entropy(shares @ probabilities) - shares @ _entropy(probabilities)
    return information.clamp_min(0.0) * _BITS


def _entropy(probability: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(probability) + torch.special.entr(1 - probability)
    return entropy
