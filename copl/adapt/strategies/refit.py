"""Refit adaptation: a few gradient steps on the newcomer's comparisons, which the others have to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import torch

from copl.adapt.estimates import Estimates, population_mean
from copl.adapt.strategies.catalogue import RefitOptions
from copl.adapt.strategy import PlacingStrategy
from copl.system.optimizers import eager

if TYPE_CHECKING:
    from torch import Tensor

    from copl.adapt.support import MatchedSupport, PaddedSupport
    from copl.records import NodeEmbeddings


@final
class Refit(PlacingStrategy):
    r"""Gradient descent on the Bradley-Terry loss of each newcomer's comparisons, from the mean of the seen users.

    .. math::
        \min_e -\sum_{(c, r)} w_{cr} \log\sigma\bigl(e \cdot (e_c - e_r) + b_c - b_r\bigr)
               + \frac{\lambda}{2 s^2} \lVert e - \mu \rVert^2

    with the root mean square deviation s of the seen users' coordinates. This is what a system does that treats a
    newcomer as one more user to be trained while all else stays; a few steps stop early, which regularises as well.
    Confidence is n/(n+1) times how far the mean fitted probability of the n comparisons lies above chance. A newcomer
    who says nothing about any trained response gets the mean (``population``).
    """

    def __init__(self, options: RefitOptions) -> None:
        self._options = options

    def _place(self, matched: MatchedSupport, trained: NodeEmbeddings, estimates: Estimates) -> None:
        mean = population_mean(trained)
        spread = float((trained.users.detach().cpu().double() - mean).square().mean().sqrt())
        if not spread:
            return
        for newcomers, part in matched.by_length():
            rows = part.padded()
            users = self._descend(rows, mean, spread)
            fitted = torch.sigmoid(_margins(rows, users))
            share = (rows.weight * fitted).sum(dim=1) / rows.weight.sum(dim=1)
            counts = part.counts
            sure = counts / (counts + 1) * np.maximum(2 * share.numpy() - 1, 0)
            estimates.put(newcomers, users, "refit", len(trained.user_ids), sure)

    def _descend(self, rows: PaddedSupport, mean: Tensor, spread: float) -> Tensor:
        """Return the users [n, D] after Adam's steps; every coordinate has steps of its own, so nobody shares any."""
        options = self._options
        offsets = torch.zeros(len(rows.weight), len(mean), dtype=mean.dtype)  # from the mean, in units of the spread
        adam = eager(torch.optim.Adam)([offsets], lr=options.learning_rate)
        users = mean + spread * offsets
        for _ in range(options.num_steps):
            pull = rows.weight * torch.sigmoid(-_margins(rows, users))
            slope = -spread * (rows.differences * pull[:, :, None]).sum(dim=1)
            offsets.grad = slope + options.precision * offsets
            adam.step()
            users = mean + spread * offsets
        return users


def _margins(rows: PaddedSupport, users: Tensor) -> Tensor:
    return (rows.differences @ users[:, :, None])[:, :, 0] + rows.bias
