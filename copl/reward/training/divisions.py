"""Training comparisons divided for choosing: what is fitted, and what is held out to judge it by."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen

from copl.records import Comparisons

if TYPE_CHECKING:
    from copl.records import IntArray

_HELD_OUT_TEXTS = 0.15
_ENOUGH = 200


@final
@frozen(eq=False)
class Division:
    """Training comparisons divided by texts, some of which are held out.

    Attributes:
        fitted: comparisons without any held-out text.
        new_text: comparisons among held-out texts, or touching them where those are few.
    """

    fitted: Comparisons
    new_text: Comparisons


def hold_out_texts(train: Comparisons, groups: IntArray, seed: int) -> Division:
    """Hold out a part of the texts: whole prompts, or single responses where there are fewer than ten prompts.

    Args:
        train: the training comparisons.
        groups: the prompt of each response [R].
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    distinct = np.unique(groups)
    if len(distinct) < 10:
        groups, distinct = np.arange(len(groups)), np.arange(len(groups))
    chosen = rng.permutation(distinct)[: max(1, round(_HELD_OUT_TEXTS * len(distinct)))]
    held_out = np.isin(groups, chosen)
    touched = held_out[train.chosen] | held_out[train.rejected]
    inside = held_out[train.chosen] & held_out[train.rejected]
    judges = inside if inside.sum() >= _ENOUGH else touched
    if not judges.any() or touched.all():  # too few texts to hold any out
        return Division(train, train)
    return Division(train.take(~touched), train.take(judges))


def drawn(comparisons: Comparisons, count: int, seed: int) -> Comparisons:
    """Return at most `count` of the comparisons, drawn at random, in their order."""
    if len(comparisons) <= count:
        return comparisons
    order = np.random.default_rng(seed).permutation(len(comparisons))
    return comparisons.take(np.sort(order[:count]))
