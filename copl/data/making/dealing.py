"""Thumbs and ratings dealt to splits, so that what is added later moves nothing.

They are dealt one by one, or all of a user's on one prompt together where there are several prompts. What is to be
judged by becomes comparisons of a higher with a lower one; what is held out and cannot be judged by, since it is like
all others or there are enough, is learnt from. So everything is in a data set once it was given, in training or in
what is judged by, and the same given again is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, final

import attrs
import numpy as np

from copl.data.making.opinions import Opinions
from copl.data.making.stable import Hashed, stable_cold, stable_unseen
from copl.data.making.stable_opinions import drawn_pairs, stable_parts
from copl.data.pairs import occurring
from copl.records import Comparisons, ComparisonSet, ResponseTable, UserTable
from copl.records.judgements import RATING, THUMB, Judgements
from copl.system.converters import ranks

if TYPE_CHECKING:
    from copl.data.making.splits import ComparisonSplitOptions
    from copl.records import BoolArray, IntArray

JUDGING = ("validation", "test", "cold", "heldout")
"""Splits that are judged by."""

_LEARNT = {"validation": "train", "test": "train", "heldout": "support"}
"""Where what cannot be judged by is learnt from; nothing is learnt of what is cold."""

LEFT = "of what is held out already, or alike"
"""Why an opinion was left out that nothing holds out by itself."""

_HALF_A_RANK = 0.5


@final
@attrs.frozen(eq=False)
class Dealer:
    """Deals the thumbs, or the ratings, of a data set.

    Attributes:
        users: all users.
        responses: all responses.
        options: sizes of the splits.
        limit: comparisons drawn of a user at most for each split that is judged by.
        seed: another seed gives other splits.
        splits: comparisons that are there already, in rows of these tables.
        judgements: judgements that are there already.
        ends: the end of training and that of validation where the future is judged by the past.
    """

    users: UserTable
    responses: ResponseTable
    options: ComparisonSplitOptions
    limit: int
    seed: int
    splits: Mapping[str, Comparisons] = {}
    judgements: Mapping[str, Judgements] = {}
    ends: tuple[float, float] | None = None

    def is_held(self, opinions: Judgements) -> BoolArray:
        """Return which opinions [N] are of a response of the same user's that a split is judged by already.

        Of the past by which the future is judged nothing is held.
        """
        return held_out({} if self.ends is not None else self.splits, opinions, len(self.responses))

    def deal(self, opinions: Judgements) -> tuple[dict[str, Comparisons], dict[str, Judgements], Judgements]:
        """Return comparisons to judge by, judgements to learn from, and opinions that were left out.

        Args:
            opinions: thumbs, or ratings, of which none is there already.
        """
        unit = self._units(opinions.user, opinions.response)
        learnt = [self.judgements.get(name, Judgements.empty()) for name in ("train", "support")]
        same_kind = [part.take(part.kind == kind) for part in learnt for kind in np.unique(opinions.kind)]
        known = np.concatenate([np.zeros(0, np.int64), *(self._units(part.user, part.response) for part in same_kind)])
        judged = self._judged_units
        spoken_of = np.unique(unit[self._is_learnt_of(opinions)])
        known = np.concatenate([known, np.setdiff1d(spoken_of, judged)])
        places = self._dealt(opinions, np.flatnonzero(~np.isin(unit, np.concatenate([known, judged]))), known)
        joining = np.isin(unit, known)
        if self.ends is not None:
            joining &= opinions.time <= self.ends[0]
        unseen = self._unseen[opinions.user]
        for name, mask in (("train", ~unseen), ("support", unseen)):
            places[name] = np.union1d(places[name], np.flatnonzero(joining & mask))
        pairs = {name: self._drawn(name, opinions.take(places[name]), places[name]) for name in JUDGING}
        used = {name: np.unique(unit[own]) for name, (_, own) in pairs.items()}
        if self.ends is None:
            self._learn_from_rest(unit, places, used, opinions.user, known)
        taken = np.concatenate([places["train"], places["support"], *(own for _, own in pairs.values())])
        parts = {name: opinions.take(places[name]) for name in ("train", "support")}
        rest = opinions.take(~np.isin(np.arange(len(opinions)), taken))
        return {name: part for name, (part, _) in pairs.items()}, parts, rest

    def _is_learnt_of(self, opinions: Judgements) -> BoolArray:
        """Return which opinions [N] are of a response of which the same user's word is learnt already, of any kind.

        To judge by them would be to judge by what was learnt; where the future is judged by the past, that is right.
        """
        if self.ends is not None:
            return np.zeros(len(opinions), dtype=np.bool_)
        words = [
            (part[name].user, end)
            for name in ("train", "support")
            for part, ends in ((self.splits, ("chosen", "rejected")), (self.judgements, ("response", "other")))
            if name in part
            for end in (getattr(part[name], column) for column in ends)
        ]
        keys = [(user * self._width + end)[end >= 0] for user, end in words]
        learnt = np.concatenate([np.zeros(0, np.int64), *keys])
        mask: BoolArray = np.isin(opinions.user * self._width + opinions.response, learnt)
        return mask

    def _dealt(self, opinions: Judgements, fresh: IntArray, known: IntArray) -> dict[str, IntArray]:
        """Return the rows of each split, of those at `fresh`, whose units are new."""
        some = opinions.take(fresh)
        # of all that it says only the order counts: numbers may be as great, or as near each other, as they like
        rank = np.unique(some.value, return_inverse=True)[1].astype(np.float64)
        unit = np.unique(self._units(some.user, some.response), return_inverse=True)[1].astype(np.int64)
        asked = Opinions(
            some.user, some.response, rank, some.user, fresh, unit,
            len(self.users), len(self.responses), len(opinions), _HALF_A_RANK,
        )  # fmt: skip
        held = np.unique(np.concatenate([known, self._judged_units])) // self._width
        before = np.bincount(held, minlength=len(self.users))
        parts, _, _ = stable_parts(
            asked, self._tables, self.options, seed=self.seed, cold=self._cold, unseen=self._unseen, before=before
        )
        places = {name: part.stratum for name, part in parts.items()}
        if self.ends is None:
            room = self._room(known)[opinions.user[places["support"]]] > 0
            places["heldout"] = np.union1d(places["heldout"], places["support"][~room])
            places["support"] = places["support"][room]
            return places
        return _by_time(opinions, places, self.ends)

    def _drawn(self, name: str, held: Judgements, places: IntArray) -> tuple[Comparisons, IntArray]:
        """Return what is judged by in a split, and the places of the opinions that it is made of."""
        count = np.bincount(self.splits.get(name, Comparisons.empty()).user, minlength=len(self.users))
        use = count[held.user] < self.limit
        held, places = held.take(use), places[use]
        rank = np.unique(held.value, return_inverse=True)[1].astype(np.float64)
        each = np.arange(len(held))
        opinions = Opinions(
            held.user, held.response, rank, held.user, each, each, len(self.users), len(self.responses), len(each),
            _HALF_A_RANK,
        )  # fmt: skip
        pairs = drawn_pairs(opinions, self._hashed, self.limit)
        key = held.user * len(self.responses) + held.response
        order = np.argsort(key)
        at = [order[np.searchsorted(key[order], pairs.user * len(self.responses) + end)]
              for end in (pairs.chosen, pairs.rejected)]  # fmt: skip
        pairs = attrs.evolve(pairs, time=np.maximum(held.time[at[0]], held.time[at[1]]))
        return pairs, places[np.unique(np.concatenate(at))]

    def _learn_from_rest(
        self,
        unit: IntArray,
        places: dict[str, IntArray],
        used: Mapping[str, IntArray],
        user: IntArray,
        known: IntArray,
    ) -> None:
        """Move what cannot be judged by to what is learnt from, of unseen users as far as there is room."""
        for name, learnt in _LEARNT.items():
            rest = places[name][~np.isin(unit[places[name]], used[name])]
            if learnt == "support":
                room = self._room(np.concatenate([known, np.unique(unit[places["support"]])]))
                _, first, of_unit = np.unique(unit[rest], return_index=True, return_inverse=True)
                owner = user[rest][first]
                nth = ranks(owner, first)
                rest = rest[(nth < room[owner])[of_unit]]
            places[learnt] = np.union1d(places[learnt], rest)

    def _room(self, support: IntArray) -> IntArray:
        """Return how many more units each user's support takes [U], given those that it has, or any of seen users."""
        size = self.options.support * (1 if self._several else 2)
        count = np.bincount(np.unique(support) // self._width, minlength=len(self.users))
        return np.maximum(size - count, 0)

    def _units(self, user: IntArray, response: IntArray) -> IntArray:
        """Return the number of each opinion's unit: its user with the prompt, or the response where all have one."""
        return user * self._width + (self.responses.prompt_rows[response] if self._several else response)

    @property
    def _several(self) -> bool:
        return bool(self.responses.prompt_rows.any())

    @property
    def _width(self) -> int:
        return len(self.responses)

    @cached_property
    def _judged_units(self) -> IntArray:
        """Units of what is judged by already."""
        parts = [self.splits[name] for name in JUDGING if name in self.splits]
        ends = [self._units(part.user, end) for part in parts for end in (part.chosen, part.rejected)]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *ends]))

    @cached_property
    def _tables(self) -> ComparisonSet:
        return ComparisonSet(self.users, self.responses, Comparisons.empty())

    @cached_property
    def _hashed(self) -> Hashed:
        return Hashed.of(self._tables, self.seed)

    @cached_property
    def _cold(self) -> BoolArray:
        fraction, several = self.options.cold_fraction, self._several
        cold = stable_cold(self.responses, fraction, self._known, by_prompt=several, seed=self.seed)
        number = self.responses.prompt_rows if several else np.arange(len(cold))
        learnt = [number[end[end >= 0]] for part in self.judgements.values() for end in (part.response, part.other)]
        return cold & ~np.isin(number, np.concatenate([np.zeros(0, np.int64), *learnt]))

    @property
    def _known(self) -> Mapping[str, Comparisons]:
        return known_splits(self.splits, self.judgements)

    @cached_property
    def _unseen(self) -> BoolArray:
        return unseen_users(self.users, self.options, self.splits, self.judgements, seed=self.seed)


def deal_all(
    opinions: Judgements,
    dealer_beside: Callable[[dict[str, Comparisons], dict[str, Judgements]], Dealer],
    splits: Mapping[str, Comparisons],
    judgements: Mapping[str, Judgements],
) -> tuple[dict[str, Comparisons], dict[str, Judgements], int, int]:
    """Deal thumbs, then ratings, and again what was left, as long as some of it follows what others have brought.

    So nothing more would come of the same given again.

    Args:
        opinions: thumbs and ratings of which none is there already.
        dealer_beside: makes the dealer who knows what is there.
        splits: comparisons that are there already.
        judgements: judgements that are there already.

    Returns:
        comparisons to judge by and judgements to learn from, all new; how many opinions are held out, and how many were
        left otherwise.
    """
    judged: dict[str, Comparisons] = {}
    learnt: dict[str, Judgements] = {}
    left = {kind: opinions.take(opinions.kind == kind) for kind in (THUMB, RATING)}
    num_held: dict[int, int] = {}
    num_left = len(opinions) + 1
    while num_left > (num_left := sum(map(len, left.values()))):
        for kind, own in left.items():
            if not len(own):
                continue
            dealer = dealer_beside(beside(splits, judged), beside(judgements, learnt))
            held = dealer.is_held(own)
            num_held.setdefault(kind, int(held.sum()))
            pairs, parts, rest = dealer.deal(own.take(~held))
            judged, learnt = beside(judged, pairs), beside(learnt, parts)
            left[kind] = Judgements.concat([own.take(held), rest])
    return judged, learnt, sum(num_held.values()), num_left - sum(num_held.values())


_Part = TypeVar("_Part", Comparisons, Judgements)


def beside(some: Mapping[str, _Part], more: Mapping[str, _Part]) -> dict[str, _Part]:
    """Return the parts of both by split, one after the other."""
    return {name: some[name].concat([part[name] for part in (some, more) if name in part])
            if name in some else more[name] for name in dict.fromkeys((*some, *more))}  # fmt: skip


def unseen_users(
    users: UserTable,
    options: ComparisonSplitOptions,
    splits: Mapping[str, Comparisons],
    judgements: Mapping[str, Judgements],
    *,
    seed: int,
) -> BoolArray:
    """Return which users [U] are unseen: those who are there stay what they are, others by hash."""
    unseen = stable_unseen(users.ids, options.unseen_fraction, known_splits(splits, judgements), seed=seed)
    for name, part in judgements.items():
        unseen[part.user] = name == "support"
    return unseen


def known_splits(splits: Mapping[str, Comparisons], judgements: Mapping[str, Judgements]) -> Mapping[str, Comparisons]:
    """Return the splits, or none where there is neither a comparison nor a judgement."""
    return splits if any(len(part) for parts in (splits, judgements) for part in parts.values()) else {}


def _by_time(opinions: Judgements, places: dict[str, IntArray], ends: tuple[float, float]) -> dict[str, IntArray]:
    """Return the places by time, of the same unseen users and cold prompts."""
    first, second = ends
    time = opinions.time
    asked = np.sort(np.concatenate([places["support"], places["heldout"]]))
    seen = np.sort(np.concatenate([places[name] for name in ("train", "validation", "test")]))
    return {
        "train": seen[time[seen] <= first],
        "validation": seen[(time[seen] > first) & (time[seen] <= second)],
        "test": seen[time[seen] > second],
        "cold": places["cold"][time[places["cold"]] > first],
        "support": asked[time[asked] <= first],
        "heldout": asked[time[asked] > first],
    }


def with_something_learnt(splits: Mapping[str, Comparisons], learnt: Mapping[str, BoolArray]) -> dict[str, Comparisons]:
    """Drop what users without anything to learn from are judged by; `learnt` tells of whom something is [U]."""
    needed = {"heldout": "support", "validation": "train", "test": "train", "cold": "train"}
    return {name: part.take(learnt[needed[name]][part.user]) if name in needed else part
            for name, part in splits.items()}  # fmt: skip


def speaking(
    num_users: int, splits: Mapping[str, Comparisons], judgements: Mapping[str, Judgements]
) -> dict[str, BoolArray]:
    """Return of whom there is something in ``train`` and in ``support`` [U]."""
    return {
        name: occurring(num_users, *(part[name].user for part in (splits, judgements) if name in part))
        for name in ("train", "support")
    }


def held_out(splits: Mapping[str, Comparisons], judged: Judgements, num_responses: int) -> BoolArray:
    """Return which judgements [N] are of a response that is held out of its user's."""
    held = [part.user * num_responses + end for name in JUDGING if name in splits
            for part in (splits[name],) for end in (part.chosen, part.rejected)]  # fmt: skip
    keys = np.unique(np.concatenate([np.zeros(0, np.int64), *held]))
    mask: BoolArray = np.isin(judged.user * num_responses + judged.response, keys)
    mask |= judged.is_of_two & np.isin(judged.user * num_responses + judged.other, keys)
    return mask
