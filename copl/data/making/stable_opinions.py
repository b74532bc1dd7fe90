"""Splits of opinions that added ones never move, as `copl.data.making.stable` splits comparisons.

The opinions are dealt, one response at a time or, where there are several prompts, all on one prompt together; pairs
are drawn within a split by their hash. A new opinion may bring pairs that are drawn instead of others, but none of
another split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from copl.data.hashing import fractions, mix
from copl.data.making.opinions import Ends, OpinionOptions, Opinions, Pick, draw_pairs
from copl.data.making.splits import SUPPORT, TEST, TRAIN, VALIDATION, SplitOptions
from copl.data.making.stable import Hashed, held_out, stable_cold, stable_unseen
from copl.data.pairs import openings
from copl.records import Comparisons, ComparisonSet
from copl.system.converters import ranks

if TYPE_CHECKING:
    from copl.records import BoolArray, IntArray


def stable_opinions(
    opinions: Opinions, data: ComparisonSet, options: OpinionOptions, *, seed: int
) -> tuple[dict[str, Comparisons], BoolArray, BoolArray]:
    """Split opinions and draw comparisons within each split.

    Args:
        opinions: all opinions, in the order in which they were given.
        data: the users and responses they refer to; its comparisons are not looked at.
        options: sizes.
        seed: another seed gives other splits.

    Returns:
        the comparisons by split, which responses are cold [R] and which users unseen [U].
    """
    parts, cold, unseen = stable_parts(opinions, data, options, seed=seed)
    limits = {"train": options.pairs_per_user, "support": options.support}
    hashed = Hashed.of(data, seed)
    drawn = {
        name: drawn_pairs(held, hashed, limits.get(name, options.eval_pairs_per_user)) for name, held in parts.items()
    }
    return drawn, cold, unseen


def stable_parts(
    opinions: Opinions,
    data: ComparisonSet,
    options: SplitOptions,
    *,
    seed: int,
    cold: BoolArray | None = None,
    unseen: BoolArray | None = None,
    before: IntArray | None = None,
) -> tuple[dict[str, Opinions], BoolArray, BoolArray]:
    """Split opinions; see `stable_opinions`.

    Args:
        opinions: all opinions that are to be dealt, in the order in which they were given.
        data: the users and responses they refer to; its comparisons are not looked at.
        options: sizes.
        seed: another seed gives other splits.
        cold: which responses [R] are never trained on, where that is decided; by hash otherwise.
        unseen: which users [U] are unseen, where that is decided; by hash otherwise.
        before: how many units of each user [U] are dealt already.

    Returns:
        the opinions by split, which responses are cold [R] and which users unseen [U].
    """
    hashed = Hashed.of(data, seed)
    several = bool(hashed.prompt.any())
    if cold is None:
        cold = stable_cold(data.responses, options.cold_fraction, {}, by_prompt=several, seed=seed)
    if unseen is None:
        unseen = stable_unseen(data.users.ids, options.unseen_fraction, {}, seed=seed)
    is_cold, is_unseen = cold[opinions.response], unseen[opinions.user]

    warm = opinions.take(~is_cold)
    begin = openings(warm.unit)
    owner, response = warm.user[begin], warm.response[begin]
    place = ranks(owner, begin)
    if before is not None:
        place += before[owner]
    content = hashed.prompts[response] if several else hashed.responses[response]
    value = fractions(mix(hashed.users[owner] + content))
    # a comparison takes two single opinions, or the opinions on one prompt
    per_comparison = 1 if several else 2
    seen_part = held_out(place, value, per_comparison, options)
    is_support = (place % 2 == 0) & (place < 2 * per_comparison * options.support)
    part = np.where(unseen[owner], np.where(is_support, SUPPORT, 1), seen_part)
    part = part[np.unique(warm.unit, return_inverse=True)[1]]

    asked = unseen[warm.user]
    parts = {
        "train": warm.take(~asked & (part == TRAIN)),
        "validation": warm.take(~asked & (part == VALIDATION)),
        "test": warm.take(~asked & (part == TEST)),
        "cold": opinions.take(is_cold & ~is_unseen),
        "support": warm.take(asked & (part == SUPPORT)),
        "heldout": warm.take(asked & (part != SUPPORT)),
    }
    return parts, cold, unseen


def drawn_pairs(opinions: Opinions, hashed: Hashed, limit: int) -> Comparisons:
    """Draw up to `limit` comparisons of each user from the opinions of one split, by what users and texts hash to."""
    return draw_pairs(opinions, limit, _by_hash(opinions, hashed))


def _by_hash(opinions: Opinions, hashed: Hashed) -> Pick:
    """Take the pairs of lowest hash."""

    def pick(total: int, limit: int, ends: Ends) -> IntArray:
        high, low = ends(np.arange(total))
        upper, lower = (hashed.responses[opinions.response[rows]] for rows in (high, low))
        value = mix(hashed.users[opinions.user[high]] + mix(upper) + lower)
        picks: IntArray = np.argsort(value, kind="stable")[:limit]
        return picks

    return pick
