"""Training as on newcomers: some comparisons of a user are shown to the model, the others are explained."""

from __future__ import annotations

import torch
from torch import Tensor

from copl_baselines.pairs import Pairs
from copl_baselines.vpl import draw_context


def episode(batch: Pairs, least: float, generator: torch.Generator) -> tuple[Pairs, Tensor]:
    """Return the comparisons of a batch, with only the users that occur, and which of them are shown [N].

    Of a user with several comparisons some are shown and some are not; the only comparison of a user is not shown.

    Args:
        batch: all comparisons of some users.
        least: least share of a user's comparisons to show, from 0 to 1.
        generator: what is drawn from.
    """
    pairs, _ = batch.compact()
    several = torch.bincount(pairs.user, minlength=len(pairs.users))[pairs.user] > 1
    return pairs, draw_context(pairs, least, generator) & several
