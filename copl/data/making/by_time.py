"""Splits by time: the future is judged by the past.

- Two moments part all comparisons: up to the first of them seen users are trained on, up to the second they validate,
  later they are tested. Comparisons made at the same time are never parted.
- Who is unseen and what is cold follows from the hash of their own names, as in `copl.data.making.stable`; cold
  comparisons of before the first moment are dropped, for nobody could judge them by their past alone.
- An unseen user is one who still speaks after the first moment: what was said last before it is support (where that is
  nothing, what was said first), and all that follows is judged by.

Rows that are added later are parted by the same moments, so that none moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from copl.data.making.splits import ComparisonSplitOptions, SplitComparisons, SplitOptions
from copl.data.making.stable import stable_cold, stable_unseen, with_evidence
from copl.errors import DataError
from copl.records import SPLITS, Comparisons, ComparisonSet

if TYPE_CHECKING:
    from copl.records import BoolArray, FloatArray, IntArray


def time_splits(
    data: ComparisonSet,
    options: ComparisonSplitOptions,
    *,
    seed: int,
    cold: BoolArray | None = None,
    known: Mapping[str, Comparisons] | None = None,
    ends: tuple[float, float] | None = None,
) -> SplitComparisons:
    """Split comparisons by their time.

    Args:
        data: the comparisons to split, each with a time, with all users and responses.
        options: sizes.
        seed: another seed gives other unseen users and cold responses.
        cold: which responses [R] are never trained on, where that is decided; by hash otherwise.
        known: comparisons that are split already, by split, in rows of the same users and responses.
        ends: the end of training and that of validation, where they are decided; see `moments`.

    Raises:
        DataError: a comparison has no time.
    """
    known = known or {}
    rows = data.comparisons
    if not np.isfinite(rows.time).all():
        raise DataError("strategy=time needs a time for every comparison; choose another strategy")
    if cold is None:
        by_prompt = options.cold_by == "prompt"
        cold = stable_cold(data.responses, options.cold_fraction, known, by_prompt=by_prompt, seed=seed)
    first, second = ends or moments(rows.time, options, known)
    later = rows.time > first
    num_cold = cold[rows.chosen].astype(np.int64) + cold[rows.rejected]
    warm = num_cold == 0
    unseen = stable_unseen(data.users.ids, options.unseen_fraction, known, seed=seed)
    if not known:
        unseen &= _can_be_unseen(rows.take(warm), later[warm], len(data.users))
    is_unseen = unseen[rows.user]
    seen = warm & ~is_unseen
    support, heldout = _asked(rows, np.flatnonzero(warm & is_unseen), first, options.support, known)
    places = {
        "train": np.flatnonzero(seen & ~later),
        "validation": np.flatnonzero(seen & later & (rows.time <= second)),
        "test": np.flatnonzero(seen & (rows.time > second)),
        "cold": np.flatnonzero((num_cold == 2) & later & ~is_unseen),
        "support": support,
        "heldout": heldout,
    }
    asked = int((warm & is_unseen).sum())
    dropped = {
        "a cold response with a trained one": int(((num_cold == 1) & ~is_unseen).sum()),
        "an unseen user on a cold response": int((~warm & is_unseen).sum()),
        "cold, but before what is judged": int(((num_cold == 2) & ~later & ~is_unseen).sum()),
        "an unseen user's before the support": asked - len(support) - len(heldout),
    }
    return with_evidence({name: rows.take(places[name]) for name in SPLITS}, known, dropped)


def moments(
    times: FloatArray, options: SplitOptions, known: Mapping[str, Comparisons] | None = None
) -> tuple[float, float]:
    """Return the end of training and that of validation."""
    known = known or {}
    if len(trained := known.get("train", Comparisons.empty())):
        first = float(np.nanmax(trained.time))
        validated = known.get("validation", Comparisons.empty()).time
        return first, float(np.nanmax(validated)) if len(validated) else first
    if not len(times):
        return -np.inf, -np.inf
    ordered = np.sort(times)
    ends = (1 - options.validation_fraction - options.test_fraction, 1 - options.test_fraction)
    first, second = (float(ordered[max(round(end * len(ordered)), 1) - 1]) for end in ends)
    return first, second


def _can_be_unseen(rows: Comparisons, later: BoolArray, num_users: int) -> BoolArray:
    """Return which users [U] say something after the first moment, and something else before that."""
    judged = np.bincount(rows.user[later], minlength=num_users) > 0
    spoke_before = np.bincount(rows.user[~later], minlength=num_users) > 0
    begin, end = np.full(num_users, np.inf), np.full(num_users, -np.inf)
    np.minimum.at(begin, rows.user, rows.time)
    np.maximum.at(end, rows.user, rows.time)
    able: BoolArray = judged & (spoke_before | (begin < end))
    return able


def _asked(
    rows: Comparisons, places: IntArray, first: float, limit: int, known: Mapping[str, Comparisons]
) -> tuple[IntArray, IntArray]:
    """Return which comparisons of unseen users, at `places`, are support and which are judged by."""
    given: dict[int, int] = {}
    for user in known.get("support", Comparisons.empty()).user.tolist():
        given[user] = given.get(user, 0) + 1
    by_user: dict[int, list[int]] = {}
    for place in places[np.argsort(rows.time[places], kind="stable")].tolist():
        by_user.setdefault(int(rows.user[place]), []).append(place)
    support: list[int] = []
    heldout: list[int] = []
    for user, own in by_user.items():
        before = [place for place in own if rows.time[place] <= first]
        after = [place for place in own if rows.time[place] > first]
        if not before and not given.get(user):
            begin = rows.time[after[0]]
            before, after = ([p for p in after if bool(rows.time[p] == begin) is wanted] for wanted in (True, False))
        room = limit - given.get(user, 0)
        support += before[max(len(before) - room, 0) :] if room > 0 else []
        heldout += after
    return np.array(support, dtype=np.int64), np.array(heldout, dtype=np.int64)
