"""Splits that added rows never move: a comparison's follows from itself and from what its user said before.

- A user is unseen, and a prompt (or response) cold, when the hash of its own name falls below the fraction asked for.
  The first user and the first prompt are trained on in any case, so that a small file leaves something to train on.
- The first comparison of a seen user is trained on. A later one is held out when the hash of user and responses falls
  below the fractions; the second below twice of them, so that of any number the share asked for is held out on average.
- The first comparison of an unseen user is support, the second is judged by; further ones are support until the user
  has given as many as asked for, then they are judged by.
- Strategy ``response`` does so with all that a user says on one prompt, or, where there is a single prompt, with single
  responses: a comparison whose ends fall apart is dropped.

Nothing here is drawn: the seed salts the hashes. Comparisons that are split already may be given; they stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np

from copl.data.hashing import fractions, hashes, mix
from copl.data.making.splits import (
    HELDOUT,
    SUPPORT,
    TEST,
    TRAIN,
    VALIDATION,
    ComparisonSplitOptions,
    SplitComparisons,
    SplitOptions,
)
from copl.data.pairs import occurring, openings, pair_numbers
from copl.records import SPLITS, Comparisons, ComparisonSet, ResponseTable
from copl.system.converters import number_rows, ranks

if TYPE_CHECKING:
    from copl.records import BoolArray, FloatArray, IntArray

STABLE_VERSION = 2
"""Version of these rules, kept with every data set that is split by them."""

# each split's part is its place
_SEEN = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
_UNSEEN = {"support": SUPPORT, "heldout": HELDOUT}


def stable_splits(
    data: ComparisonSet,
    options: ComparisonSplitOptions,
    *,
    seed: int,
    cold: BoolArray | None = None,
    known: Mapping[str, Comparisons] | None = None,
) -> SplitComparisons:
    """Split comparisons.

    Args:
        data: the comparisons to split, in the order in which they were made, with all users and responses.
        options: strategy and sizes.
        seed: another seed gives other splits.
        cold: which responses [R] are never trained on, where that is decided; by hash otherwise.
        known: comparisons that are split already, by split, in rows of the same users and responses.
    """
    known = known or {}
    rows, responses = data.comparisons, data.responses
    if cold is None:
        by_prompt = options.cold_by == "prompt"
        cold = stable_cold(responses, options.cold_fraction, known, by_prompt=by_prompt, seed=seed)
    unseen = stable_unseen(data.users.ids, options.unseen_fraction, known, seed=seed)
    num_cold = cold[rows.chosen].astype(np.int64) + cold[rows.rejected]
    is_unseen, warm = unseen[rows.user], num_cold == 0
    hashed = Hashed.of(data, seed)
    parts = dict.fromkeys(SPLITS, np.empty(0, dtype=np.int64))
    parts["cold"] = np.flatnonzero((num_cold == 2) & ~is_unseen)
    dropped = {
        "a cold response with a trained one": int(np.count_nonzero((num_cold == 1) & ~is_unseen)),
        "an unseen user on a cold response": int(np.count_nonzero(~warm & is_unseen)),
    }
    apart = 0
    for splits, mask in ((_SEEN, warm & ~is_unseen), (_UNSEEN, warm & is_unseen)):
        chosen = np.flatnonzero(mask)
        before = [known.get(name, Comparisons.empty()) for name in splits]
        part = _dealt(rows.take(chosen), before, hashed, options, unseen=splits is _UNSEEN)
        parts |= {name: chosen[part == number] for name, number in splits.items()}
        apart += int(np.count_nonzero(part < 0))
    dropped["responses in different splits, or more than the support asked for"] = apart
    return with_evidence({name: rows.take(at) for name, at in parts.items()}, known, dropped)


def stable_unseen(ids: tuple[str, ...], fraction: float, known: Mapping[str, Comparisons], *, seed: int) -> BoolArray:
    """Return which users [U] are unseen: those known stay what they are."""
    unseen: BoolArray = fractions(hashes(ids, f"{seed} unseen users")) < fraction
    unseen[:1] = False
    for name, part in known.items():
        unseen[part.user] = name in _UNSEEN
    return unseen


def stable_cold(
    responses: ResponseTable, fraction: float, known: Mapping[str, Comparisons], *, by_prompt: bool, seed: int
) -> BoolArray:
    """Return which responses [R] are never trained on: by prompt or each by itself, those known as they are."""
    number = responses.prompt_rows if by_prompt else np.arange(len(responses))
    names = tuple(dict.fromkeys(responses.prompts)) if by_prompt else responses.keys
    cold: BoolArray = fractions(hashes(names, f"{seed} cold")) < fraction
    if by_prompt:
        cold[:1] = False
    for name, part in sorted(known.items(), key=lambda entry: entry[0] != "cold"):  # what is trained on is not cold
        cold[number[part.chosen]] = cold[number[part.rejected]] = name == "cold"
    return cold[number]


@final
@attrs.frozen(eq=False)
class Hashed:
    """Hashes of the users [U], of the responses and of their prompts [R]; the number of each response's prompt [R]."""

    users: Any
    responses: Any
    prompts: Any
    prompt: IntArray

    @classmethod
    def of(cls, data: ComparisonSet, seed: int) -> Hashed:
        prompt = data.responses.prompt_rows
        prompts = hashes(tuple(dict.fromkeys(data.responses.prompts)))
        return cls(hashes(data.users.ids, f"{seed} units"), hashes(data.responses.keys), prompts[prompt], prompt)


@final
@attrs.frozen(eq=False)
class _Units:
    """What goes to one split as a whole: pairs, all pairs on one prompt, or single responses; each of one user.

    Attributes:
        first: unit of one end of each comparison [N].
        second: unit of the other end [N]; the same one but for single responses.
        owner: user of each unit [K].
        begin: place of each unit among all in the order in which they first occur [K].
        value: hash of each unit, from 0 to 1 [K].
        per_comparison: how many units a comparison has, 1 or 2.
    """

    first: IntArray
    second: IntArray
    owner: IntArray
    begin: IntArray
    value: FloatArray
    per_comparison: int

    @classmethod
    def of(cls, rows: Comparisons, hashed: Hashed, strategy: str) -> _Units:
        user, ends = rows.user, np.stack([rows.chosen, rows.rejected])
        single = strategy == "response" and not hashed.prompt.any()
        if single:
            numbers = number_rows(np.tile(user, 2), ends.ravel()).reshape(2, -1)
            content = hashed.responses[ends]
        elif strategy == "response":
            numbers = np.tile(number_rows(user, hashed.prompt[rows.chosen]), (2, 1))
            content = np.tile(hashed.prompts[rows.chosen], (2, 1))
        else:
            numbers = np.tile(pair_numbers(rows), (2, 1))
            content = np.tile(mix(hashed.responses[ends[0]] + hashed.responses[ends[1]]), (2, 1))
        value = fractions(mix(hashed.users[user] + content))
        first, second = numbers
        begin = openings(numbers.T.ravel())  # both ends of a comparison before those of the next
        return cls(first, second, user[begin // 2], begin, value.T.ravel()[begin], 2 if single else 1)


def _dealt(
    rows: Comparisons, before: Sequence[Comparisons], hashed: Hashed, options: ComparisonSplitOptions, *, unseen: bool
) -> IntArray:
    """Return the part of each comparison [N], -1 for none, beside those of each part that are dealt already."""
    old = Comparisons.concat(before)
    everything = Comparisons.concat([old, rows])
    units = _Units.of(everything, hashed, options.strategy)
    part = np.full(len(units.owner), -1, dtype=np.int64)
    dealt = np.repeat(np.arange(len(before)), [len(one) for one in before])
    for ends in (units.first, units.second):
        part[ends[: len(old)][::-1]] = dealt[::-1]  # opinions on a prompt may be judged by where comparisons are learnt
    fresh = part < 0
    place = ranks(units.owner, units.begin, fresh)  # after those that are dealt already
    decide = _asked if unseen else held_out
    part[fresh] = decide(place[fresh], units.value[fresh], units.per_comparison, options)
    first, second = part[units.first[len(old) :]], part[units.second[len(old) :]]
    result = np.where(first == second, first, -1)
    if options.strategy == "response":
        result[_is_elsewhere(everything, dealt, result)] = -1
    if unseen and options.strategy == "response":  # one unit may hold more comparisons than the support
        pair = pair_numbers(everything)
        begin = openings(pair)
        given = np.concatenate([np.zeros(len(before[SUPPORT])), np.ones(len(old) - len(before[SUPPORT])), result])
        support = np.flatnonzero(given[begin] == SUPPORT)
        place = ranks(everything.user[begin[support]], begin[support])
        beyond = np.zeros(len(begin), dtype=np.bool_)
        beyond[support[place >= options.support]] = True
        result[beyond[pair[len(old) :]]] = -1
    return result


def _is_elsewhere(everything: Comparisons, dealt: IntArray, fresh: IntArray) -> BoolArray:
    """Return which fresh comparisons [N] are of a response that the same user's in another part are of already.

    Args:
        everything: the comparisons that are dealt already, and after them the fresh ones.
        dealt: the part of each of the former.
        fresh: that of each of the latter [N].
    """
    num_parts = int(max(dealt.max(initial=0), fresh.max(initial=0))) + 1
    response = number_rows(np.tile(everything.user, 2), np.concatenate([everything.chosen, everything.rejected]))
    ends = response.reshape(2, -1)
    is_there = np.zeros((int(response.max(initial=-1)) + 1, num_parts), dtype=np.bool_)
    is_there[ends[:, : len(dealt)], dealt] = True
    others: BoolArray = np.any(is_there[ends[:, len(dealt) :]], axis=0)
    others[np.arange(len(fresh)), fresh] = False  # a column of no part is the last one, which is dropped anyway
    mask: BoolArray = np.any(others, axis=1)
    return mask


def held_out(place: IntArray, value: FloatArray, per_comparison: int, options: SplitOptions) -> IntArray:
    """Return whether units of seen users are trained on or held out, and for what.

    Args:
        place: place of each unit among its owner's [K].
        value: hash of each, from 0 to 1 [K].
        per_comparison: how many units a comparison takes.
        options: shares that are held out.
    """
    scale = np.select([place < per_comparison, place < 2 * per_comparison], [0.0, 2.0], 1.0)
    validation = value < scale * options.validation_fraction
    held = value < scale * (options.validation_fraction + options.test_fraction)
    return np.select([validation, held], [VALIDATION, TEST], TRAIN)


def _asked(place: IntArray, value: FloatArray, per_comparison: int, options: ComparisonSplitOptions) -> IntArray:
    if per_comparison == 2:
        is_support = (place < 2) | ((place >= 4) & (value < 0.5))
    else:
        is_support = (place == 0) | ((place >= 2) & (place <= options.support))
    return np.where(is_support, SUPPORT, HELDOUT)


def with_evidence(
    parts: Mapping[str, Comparisons], known: Mapping[str, Comparisons], dropped: Mapping[str, int]
) -> SplitComparisons:
    """Drop held-out comparisons of seen users without one to train on, and of unseen users without support."""
    whole = {name: Comparisons.concat([known.get(name, Comparisons.empty()), part]) for name, part in parts.items()}
    num_users = max((int(part.user.max(initial=-1)) + 1 for part in whole.values()), default=0)
    trained, supported = (occurring(num_users, whole[name].user) for name in ("train", "support"))
    kept = {name: part.take((supported if name in _UNSEEN else trained)[part.user]) for name, part in parts.items()}
    lost = sum(map(len, parts.values())) - sum(map(len, kept.values()))
    reasons = {**dropped, "users left without training or without support": lost}
    return SplitComparisons(kept, {reason: count for reason, count in reasons.items() if count})
