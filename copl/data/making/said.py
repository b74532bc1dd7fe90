"""What was collected as columns, and its splits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import attrs
import numpy as np

from copl.data.making.by_time import moments, time_splits
from copl.data.making.dealing import (
    LEFT,
    Dealer,
    beside,
    deal_all,
    held_out,
    speaking,
    unseen_users,
    with_something_learnt,
)
from copl.data.making.splits import ComparisonSplitOptions
from copl.data.making.stable import stable_cold, stable_splits
from copl.data.pairs import intern_responses, intern_users
from copl.errors import DataError
from copl.records import SPLITS, Comparisons, ComparisonSet, UserTable
from copl.records.evidence import implied
from copl.records.judgements import BOTH_BAD, COMPARISON, Judgements, last_said, subjects

if TYPE_CHECKING:
    from copl.records import BoolArray, FloatArray, IntArray, ResponseTable


@final
@attrs.frozen
class Said:
    """Who said it, to which prompt, when (seconds since 1970, NaN unknown), how much it counts, and its split."""

    user: str
    prompt: str
    time: float = math.nan
    weight: float = 1.0
    split: str | None = None


@final
@attrs.frozen(eq=False)
class SaidColumns:
    """What was collected as columns [N]; kind, user, response and other are codes."""

    users: tuple[str, ...]
    responses: ResponseTable
    kind: IntArray
    user: IntArray
    response: IntArray
    other: IntArray
    value: FloatArray
    weight: FloatArray
    time: FloatArray

    @classmethod
    def of(cls, rows: Sequence[tuple[int, Said, str, str, float, float]]) -> SaidColumns:
        kind, said, first, second, value, weight = (list(column) for column in zip(*rows, strict=True))
        users, user = intern_users([one.user for one in said])
        responses, response, other = intern_responses([one.prompt for one in said], first, second)
        numbers = (np.array(column, dtype=np.float64) for column in (value, weight, [one.time for one in said]))
        return cls(users, responses, np.array(kind, dtype=np.int64), user, response, other, *numbers)

    def take(self, rows: BoolArray) -> SaidColumns:
        names = ("kind", "user", "response", "other", "value", "weight", "time")
        return attrs.evolve(self, **{name: getattr(self, name)[rows] for name in names})

    def comparisons(self, rows: BoolArray) -> Comparisons:
        kept = self.take(rows)
        return Comparisons(kept.user, kept.response, kept.other, kept.weight, time=kept.time)

    def judgements(self) -> Judgements:
        """Return all that is no comparison."""
        kept = self.take(self.kind != COMPARISON)
        other = np.where(kept.kind <= BOTH_BAD, kept.other, -1)
        return Judgements(kept.kind, kept.user, kept.response, other, kept.value, kept.weight, kept.time)

    def by_name(self, names: Sequence[str]) -> tuple[dict[str, Comparisons], dict[str, Judgements], dict[str, int]]:
        """Return comparisons and judgements by the splits that rows name, and what was dropped.

        What is judged by becomes comparisons; ties cannot be judged by.
        """
        named = np.array(names)
        unseen = np.isin(named, ("support", "heldout"))
        both = np.intersect1d(self.user[unseen], self.user[~unseen])
        if len(both):
            raise DataError(f"split: user {self.users[int(both[0])]!r} is both seen and unseen")
        splits, judgements, num_ties = {}, {}, 0
        for name in SPLITS:
            part = self.take(named == name)
            splits[name] = part.comparisons(part.kind == COMPARISON)
            judgements[name] = part.judgements()
            if name not in ("train", "support"):
                ties = judgements[name].is_of_two
                num_ties += int(ties.sum())
                pairs = implied(judgements[name].take(~ties))
                splits[name] = Comparisons.concat([splits[name], attrs.evolve(pairs, weight=np.ones(len(pairs)))])
                judgements[name] = Judgements.empty()
        return splits, judgements, {"ties in a split that is judged by": num_ties}

    def current(self) -> BoolArray:
        """Return which rows [N] the same user has not said again later, of the same pair or the same response."""
        return last_said(subjects(self.kind, self.user, self.response, self.other), self.time)


@final
class SaidSplitter:
    """Splits comparisons, judgements of two and judgements of one by the same users and prompts.

    Attributes:
        dropped: how many were dropped, by reason.
        moments: the end of training and that of validation, where the future is judged by the past.
    """

    def __init__(self, columns: SaidColumns, options: ComparisonSplitOptions, seed: int, eval_pairs: int) -> None:
        self._columns, self._options, self._seed, self._eval_pairs = columns, options, seed, eval_pairs
        self._tables = UserTable.ungrouped(columns.users), columns.responses
        self.dropped: dict[str, int] = {}
        self.moments: tuple[float, float] | None = None
        self._end, self._second = math.inf, math.inf
        if options.strategy == "time":
            self._end, self._second = self.moments = moments(columns.time, options)

    def split(self) -> tuple[dict[str, Comparisons], dict[str, Judgements]]:
        """Return comparisons and judgements by split."""
        kind = self._columns.kind
        splits = self._comparisons(self._columns.take(kind == COMPARISON))
        joined = self._of_two(self._columns.take(kind <= BOTH_BAD), splits)
        ends = (self._end, self._second) if self._timed else None
        judged, learnt, num_held, num_left = deal_all(
            self._columns.take(kind > BOTH_BAD).judgements(),
            lambda known, said: Dealer(*self._tables, self._options, self._eval_pairs, self._seed, known, said, ends),
            splits,
            joined,
        )
        splits, joined = beside(splits, judged), beside(joined, learnt)
        if len(self._columns.user[kind > BOTH_BAD]):
            self.dropped |= {LEFT: num_left, "of responses held out of the same user's": num_held}
        return self._with_evidence(splits, joined), joined

    def _comparisons(self, rows: SaidColumns) -> dict[str, Comparisons]:
        comparisons = rows.comparisons(rows.kind == COMPARISON)
        rows_of_tables = ComparisonSet(*self._tables, comparisons)
        if self._timed:
            split = time_splits(rows_of_tables, self._options, seed=self._seed, ends=(self._end, self._second))
        else:
            split = stable_splits(rows_of_tables, self._options, seed=self._seed)
        self.dropped |= split.dropped
        return {name: split.splits.get(name, Comparisons.empty()) for name in SPLITS}

    def _of_two(self, rows: SaidColumns, splits: Mapping[str, Comparisons]) -> dict[str, Judgements]:
        users, responses = self._tables
        by_prompt = self._options.cold_by == "prompt"
        cold = stable_cold(responses, self._options.cold_fraction, {}, by_prompt=by_prompt, seed=self._seed)
        unseen = unseen_users(users, self._options, splits, {}, seed=self._seed)[rows.user]
        usable = ~(cold[rows.response] | cold[rows.other]) & (rows.time <= self._end if self._timed else True)
        self.dropped["ties on cold prompts, or of after training"] = int((~usable).sum())
        judged = Judgements(rows.kind, rows.user, rows.response, rows.other, rows.value, rows.weight, rows.time)
        if self._options.strategy == "response":  # no two splits of a user share a response
            held = usable & held_out(splits, judged, len(responses))
            self.dropped["ties of responses held out of the same user's"] = int(held.sum())
            usable &= ~held
        return {"train": judged.take(usable & ~unseen), "support": judged.take(usable & unseen)}

    @property
    def _timed(self) -> bool:
        return self._options.strategy == "time"

    def _with_evidence(
        self, splits: dict[str, Comparisons], judgements: dict[str, Judgements]
    ) -> dict[str, Comparisons]:
        """Drop what users without anything to learn from are judged by."""
        kept = with_something_learnt(splits, speaking(len(self._columns.users), splits, judgements))
        lost = sum(map(len, splits.values())) - sum(map(len, kept.values()))
        self.dropped["comparisons of users left without anything to learn from"] = lost
        return kept
