"""Coordinates of texts: the principal axes of what tells the two responses of a comparison apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch
from attrs import frozen

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import Comparisons

_LEAST_VARIANCE = 1e-7
_LEAST = 1e-12
_AT_ONCE = 65_536


@final
@frozen(eq=False)
class Axes:
    r"""Principal axes of differences of codes of texts.

    Differences rather than the codes, since only they are ever compared: what all responses to a prompt have in common
    says nothing of taste. Coordinates are

    .. math:: x_r = (\phi_r - \bar\phi)\, V / \sqrt{\operatorname{tr} \Lambda}

    so that a difference has the mean square 1. (Axes of more equal length cost accuracy on texts never met.)

    Attributes:
        centre: mean of the codes [q].
        onto: the axes, in these units [q, D].
    """

    centre: Tensor
    onto: Tensor

    @classmethod
    def fit(cls, codes: Tensor, comparisons: Comparisons, size: int) -> Axes:
        """Find the axes.

        Args:
            codes: codes of all texts [R, q].
            comparisons: rows of `codes` that are compared.
            size: number of axes at most.
        """
        scatter = torch.zeros(codes.shape[1], codes.shape[1], dtype=torch.float64)
        for start in range(0, len(comparisons), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            chosen, rejected = (torch.from_numpy(c[part]) for c in (comparisons.chosen, comparisons.rejected))
            difference = (codes[chosen] - codes[rejected]).double()
            scatter += difference.T @ difference
        values, vectors = torch.linalg.eigh(scatter / len(comparisons))
        order = torch.argsort(values, descending=True)[:size]
        order = order[values[order] > _LEAST_VARIANCE * values.max()]
        total = values[order].sum().sqrt().clamp_min(_LEAST)
        sums = torch.stack([part.double().sum(dim=0) for part in torch.split(codes, _AT_ONCE)])
        return cls(sums.sum(dim=0) / len(codes), vectors[:, order] / total)

    def coordinates(self, codes: Tensor) -> Tensor:
        """Return the coordinates [R, D] of texts with codes [R, q], float32."""
        parts = [
            ((codes[start : start + _AT_ONCE].double() - self.centre) @ self.onto).float()
            for start in range(0, max(len(codes), 1), _AT_ONCE)
        ]
        return torch.cat(parts)
