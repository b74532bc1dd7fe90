"""The transformer layer of the methods that attend to a user's comparisons or soft tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl_baselines.pairs import Pairs


@final
class CrossLayer(nn.Module):
    """One layer of a transformer, normalised before each part, in which points attend to a user's context.

    Args:
        dim: size D of a point.
        num_heads: heads, a divisor of `dim`.
        dropout: dropout on what each part adds.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.feed_forward = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, points: Tensor, context: Tensor, real: Tensor) -> Tensor:
        """Return the points [U, T, D] one layer on.

        Args:
            points: points of each user [U, T, D].
            context: what they attend to [U, P, D].
            real: which of the context is there [U, P]; a user without any attends to nothing.
        """
        context = self.before(context)
        query, key, value = (self._heads(part) for part in self._parts(self.before(points), context))
        scores = query @ key.transpose(2, 3) / math.sqrt(key.shape[3])
        weights = scores.masked_fill(~real[:, None, None, :], -1e9).softmax(3) * real[:, None, None, :]
        attended = (weights @ value).transpose(1, 2).flatten(2)
        points = points + self.dropout(self.out(attended))
        moved: Tensor = points + self.dropout(self.feed_forward(self.between(points)))
        return moved

    def _parts(self, points: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query(points), self.key(context), self.value(context)

    def _heads(self, part: Tensor) -> Tensor:
        return torch.stack(part.chunk(self.num_heads, dim=2), dim=1)


def margins_by_user(pairs: Pairs, chosen: Tensor, rejected: Tensor, rewards: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the margins [N] of comparisons, a user's context being projected once and not for each response.

    Args:
        pairs: the comparisons.
        chosen: codes of the chosen responses [N, D].
        rejected: codes of the rejected ones [N, D].
        rewards: returns the rewards [U, T] of T responses of each user with codes [U, T, D].
    """
    rows, real = pairs.by_user()
    width = rows.shape[1]
    by_place = rewards(torch.cat([F.embedding(rows, chosen), F.embedding(rows, rejected)], dim=1))
    place = torch.zeros(len(pairs), dtype=torch.int64)
    place[rows[real]] = torch.arange(real.numel()).view_as(real)[real]
    return F.embedding(place, (by_place[:, :width] - by_place[:, width:]).reshape(-1, 1)).squeeze(1)
