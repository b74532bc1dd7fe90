"""Small networks that several methods share."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, final

import torch
from torch import Tensor, nn


def mlp(*sizes: int, dropout: float = 0.0) -> nn.Sequential:
    """Return linear layers of these sizes with a LeakyReLU of slope 0.2, and dropout, between them."""
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(pairwise(sizes)):
        if place:
            layers += [nn.LeakyReLU(0.2), nn.Dropout(dropout)]
        layers.append(nn.Linear(before, after))
    return nn.Sequential(*layers)


@final
class ConditionedHead(nn.Module):
    """r(f, z) = w . f + personal part: the reward of a feature for a user state, beside what all users share.

    ``bilinear``: z^T B f / sqrt(D), so that every user has a weight vector linear in the state; ``mlp``: an MLP of two
    hidden layers over [f; z].

    Args:
        kind: form of the personal part.
        hidden_size: size H of a feature vector.
        state_dim: size D of a user state.
        width: hidden units of each layer of the MLP.
        dropout: dropout in the MLP.
    """

    def __init__(
        self, kind: Literal["bilinear", "mlp"], hidden_size: int, state_dim: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.shared = nn.Linear(hidden_size, 1, bias=False)
        nn.init.zeros_(self.shared.weight)
        if kind == "bilinear":
            self.response, self.user = nn.Linear(hidden_size, state_dim, bias=False), None
        else:
            # The two halves of the first layer over [f; z].
            self.response, self.user = nn.Linear(hidden_size, width), nn.Linear(state_dim, width, bias=False)
            between = (nn.LeakyReLU(0.2), nn.Dropout(dropout))
            self.rest = nn.Sequential(*between, *mlp(width, width, 1, dropout=dropout))

    def encode(self, features: Tensor) -> Tensor:
        """Return the codes [S, C] of features [S, H]."""
        return torch.cat([self.shared(features), self.response(features)], dim=1)

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        """Return the rewards [S] of texts with codes [S, C] for user states [S, D]."""
        shared, codes = codes[:, 0], codes[:, 1:]
        if self.user is None:
            return shared + (codes * users).sum(1) / math.sqrt(users.shape[1])
        rewards: Tensor = shared + self.rest(codes + self.user(users)).squeeze(1)
        return rewards
