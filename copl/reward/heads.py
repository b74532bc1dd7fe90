"""Heads: the reward of a hidden state for a user.

All act on scaled features f [S, H] (pooled hidden states, centred and scaled) and conditioned users z [S, D] whose
coordinates have unit root mean square; or, where `reads_gate`, on the weights g [S, M] of their experts. There is no
bias and no term in the user alone: both cancel in the margin of two responses.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from torch import Tensor, nn


class Head(nn.Module, ABC):
    """Reward [S] from features [S, H] and users [S, D], in two halves so that a response shared by many users is
    projected once: `encode` sees only the response, `combine` meets the user.
    """

    weight: nn.Parameter
    """What all users share: weights w [H] of the features."""

    linear_in_features: ClassVar[bool] = True
    """Whether a user's reward is a weight vector times the features."""

    reads_gate: ClassVar[bool] = False
    """Whether a user is to the head what the gate makes of it."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size))

    @abstractmethod
    def encode(self, features: Tensor) -> Tensor:
        """Return the codes [R, C] of responses with features [R, H]; the first column is w . f."""

    @abstractmethod
    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        """Return the rewards [S] of responses with codes [S, C] for users [S, D]."""

    def forward(self, features: Tensor, users: Tensor) -> Tensor:
        """Return the rewards [S]."""
        return self.combine(self.encode(features), users)

    def personal_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the part that depends on the user."""
        return [p for p in self.parameters() if p is not self.weight]


@final
class LinearHead(Head):
    """r = w . f, the head of CoPL (arXiv 2503.01658): all personal signal has to come through the experts."""

    def encode(self, features: Tensor) -> Tensor:
        return features @ self.weight.unsqueeze(1)

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        return codes.squeeze(1)


class _LinearInUser(Head, ABC):
    """r = w . f + s u^T B f for users u [S, K]."""

    def __init__(self, hidden_size: int, size: int, scale: float) -> None:
        super().__init__(hidden_size)
        self.interaction = nn.Parameter(torch.zeros(size, hidden_size))
        self._scale = scale

    def encode(self, features: Tensor) -> Tensor:
        return features @ torch.cat([self.weight.unsqueeze(0), self._scale * self.interaction]).T

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        return codes[:, 0] + (codes[:, 1:] * users).sum(-1)


@final
class BilinearHead(_LinearInUser):
    """r = w . f + z^T B f / sqrt(D): every user has a weight vector that is linear in the embedding."""

    def __init__(self, hidden_size: int, embedding_dim: int) -> None:
        super().__init__(hidden_size, embedding_dim, 1.0 / math.sqrt(embedding_dim))


@final
class RoutedHead(_LinearInUser):
    """r = w . f + sum_m g_m v_m . f: every routed expert has a weight vector of its own, weighted by the gate."""

    reads_gate = True

    def __init__(self, hidden_size: int, num_experts: int) -> None:
        super().__init__(hidden_size, num_experts, 1.0)


@final
class MlpHead(Head):
    """r = w . f + v . gelu(W f + V z + c): a hidden layer over both, beside the linear term."""

    linear_in_features = False

    def __init__(self, hidden_size: int, embedding_dim: int, width: int = 64) -> None:
        super().__init__(hidden_size)
        self.response = nn.Linear(hidden_size, width)
        self.user = nn.Linear(embedding_dim, width, bias=False)
        self.outer = nn.Parameter(torch.zeros(width))

    def encode(self, features: Tensor) -> Tensor:
        return torch.cat([features @ self.weight.unsqueeze(1), self.response(features)], dim=1)

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        return codes[:, 0] + nn.functional.gelu(codes[:, 1:] + self.user(users)) @ self.outer


def make_head(name: str, hidden_size: int, embedding_dim: int, num_experts: int = 0) -> Head:
    """Return the head called `name`; where there is nothing to tell users apart by, it is the linear one.

    Args:
        name: as in the option `reward.head`.
        hidden_size: size H of the hidden states.
        embedding_dim: dimension D of the user embeddings, 0 without users.
        num_experts: number M of routed experts.
    """
    if name == "linear" or (name == "bilinear" and embedding_dim == 0) or (name == "routed" and num_experts == 0):
        return LinearHead(hidden_size)
    if name == "routed":
        return RoutedHead(hidden_size, num_experts)
    if name == "bilinear":
        return BilinearHead(hidden_size, embedding_dim)
    if name == "mlp":
        return MlpHead(hidden_size, embedding_dim)
    raise ValueError(f"unknown head {name!r}")
