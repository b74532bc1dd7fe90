"""Data sets of what tools log: comparisons, ties, thumbs, ratings and rankings, collected row by row, then split.

Of what a user says again of the same, the last counts: by time where there is one, else by the order in which it came.
Comparisons are split as own files are. Thumbs and ratings are dealt to splits one by one, or all on one prompt
together; what is to be judged by becomes comparisons of a higher with a lower one. Ties are learnt from alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np

from copl.data.canonical import canonical_id, canonical_text, text_fault
from copl.data.making.by_time import moments, time_splits
from copl.data.making.opinions import Opinions
from copl.data.making.origin import Origin, left_out
from copl.data.making.splits import ComparisonSplitOptions
from copl.data.making.stable import STABLE_VERSION, Hashed, stable_cold, stable_splits, stable_unseen
from copl.data.making.stable_opinions import drawn_pairs, stable_parts
from copl.data.pairs import compact_all, intern_responses, intern_users
from copl.data.reading.files import unpacked_name
from copl.errors import DataError
from copl.evidence import choice_weight, implied, ranking_weight, with_implied
from copl.judgements import BOTH_BAD, KINDS, RATING, THUMB, TIE, Judgements, last_said, subjects
from copl.options import option
from copl.records import SPLITS, Comparisons, ComparisonSet, PreferenceData, UserTable

if TYPE_CHECKING:
    from copl.records import BoolArray, FloatArray, IntArray, ResponseTable

_COMPARISON = len(KINDS)
"""Kind of a row that is a comparison, the first response being chosen."""


@attrs.frozen(kw_only=True)
class CollectedOptions(ComparisonSplitOptions):
    """How what was collected becomes a data set; the base of the options of the sources that read logs."""

    path: Path = option(help="the file to read")
    eval_pairs_per_user: int = option(
        10,
        help="comparisons drawn from a user's thumbs or ratings at most for each split that measures",
        validator=attrs.validators.ge(1),
    )
    licence: str = option("", help="licence of the data, kept with the data set")
    attribution: str = option("", help="whom to name as the origin of the data, kept with the data set")


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
class Collected:
    """Collects what users say, texts in their one spelling."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, Said, str, str, float, float]] = []
        self.left_out: dict[str, int] = {}
        self.groups: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count what is left out, by reason."""
        self.left_out[reason] = self.left_out.get(reason, 0) + count

    def compare(self, said: Said, chosen: str, rejected: str, *, weight: float = 1.0) -> None:
        """Add a comparison."""
        self._add(_COMPARISON, said, chosen, rejected, 0.0, weight)

    def tie(self, said: Said, first: str, second: str, *, weight: float = 1.0, both_bad: bool = False) -> None:
        """Add a tie, of two that are bad where `both_bad` says so."""
        self._add(BOTH_BAD if both_bad else TIE, said, first, second, 0.0, weight)

    def thumb(self, said: Said, response: str, *, up: bool) -> None:
        """Add a thumb."""
        self._add(THUMB, said, response, "", 1.0 if up else -1.0, 1.0)

    def rate(self, said: Said, response: str, rating: float) -> None:
        """Add a rating."""
        self._add(RATING, said, response, "", rating, 1.0)

    def choose(self, said: Said, response: str, others: Sequence[str], *, best: bool = True) -> None:
        """Add the choice of the best, or of the worst, among several responses."""
        for other in others:
            ends = (response, other) if best else (other, response)
            self.compare(said, *ends, weight=choice_weight(len(others) + 1))

    def rank(self, said: Said, responses: Sequence[str], ranks: Sequence[float]) -> None:
        """Add a ranking: 1 is the best, and equal ranks are ties."""
        weight = ranking_weight(len(responses)) if len(responses) > 1 else 1.0
        for one, first in enumerate(responses):
            for second, other in zip(responses[one + 1 :], ranks[one + 1 :], strict=True):
                if ranks[one] == other:
                    self.tie(said, first, second, weight=weight)
                else:
                    self.compare(said, *((first, second) if ranks[one] < other else (second, first)), weight=weight)

    def _add(self, kind: int, said: Said, first: str, second: str, value: float, weight: float) -> None:
        user, first, second = canonical_id(said.user), canonical_text(first), canonical_text(second)
        of_two = kind not in (THUMB, RATING)
        texts = (user, said.prompt, first, *([second] if of_two else []))
        faults = [fault for text in texts if (fault := text_fault(text))]
        if faults:
            self.drop("with an empty text" if faults[0] == "empty text" else "with a text that cannot be kept")
        elif of_two and first == second:
            self.drop("between equal texts")
        else:
            kept = attrs.evolve(said, user=user)
            self._rows.append((kind, kept, first, second or first, value, weight * said.weight))

    def data(
        self,
        options: ComparisonSplitOptions,
        origin: Origin,
        *,
        where: Path,
        eval_pairs: int = 10,
        seed: int,
        notes: Sequence[str] = (),
    ) -> PreferenceData:
        """Split what was collected and put the data set together.

        Args:
            options: how to split.
            origin: where the data comes from.
            where: the file it was read from, for its name and for messages.
            eval_pairs: comparisons drawn from a user's thumbs or ratings at most for each split that measures.
            seed: another seed gives other splits.
            notes: findings in words.

        Raises:
            DataError: nothing is left to learn from.
        """
        if not self._rows:
            reasons = "; ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
            raise DataError(f"{where}: nothing that can be learnt from" + (f": {reasons}" if reasons else ""))
        columns = _Columns.of(self._rows)
        current = columns.current()
        self.drop("said again later by the same user of the same", int((~current).sum()))
        named = [kept[1].split for kept, is_current in zip(self._rows, current, strict=True) if is_current]
        if all(named):
            splits, judgements, dropped = columns.take(current).by_name([str(name) for name in named])
        elif any(named):
            raise DataError(f"{where}: some rows name a split and some do not; name all or none")
        else:
            splitter = _Splitter(columns.take(current), options, seed, eval_pairs)
            splits, judgements = splitter.split()
            dropped = splitter.dropped
        if not len(splits["train"]) + len(judgements["train"]):
            raise DataError(f"{where}: nothing is left to train on; lower the fractions of the other splits")
        ids = columns.users
        table = UserTable(ids, [self.groups.get(user) for user in ids])
        users, responses, splits, judgements = compact_all(table, columns.responses, splits, judgements)
        counts = Judgements.concat(list(judgements.values())).counts()
        provenance = origin.provenance(
            options,
            seed=seed,
            split="given" if all(named) else options.strategy,
            counts={"rows": len(self._rows), **counts, "kept": sum(map(len, splits.values()))},
            notes=[*notes, *left_out(self.left_out, "rows"), *left_out(dropped, "rows")],
            split_version=STABLE_VERSION,
        )
        kept = {name: part for name, part in splits.items() if len(part)}
        return PreferenceData(
            unpacked_name(where).stem,
            users,
            responses,
            kept,
            provenance,
            {name: part for name, part in judgements.items() if len(part)},
        )

    def as_set(self) -> ComparisonSet:
        """Return all that was collected, with what judgements imply, as what a newcomer says."""
        columns = _Columns.of(self._rows)
        columns = columns.take(columns.current())
        given, judged = columns.comparisons(columns.kind == _COMPARISON), columns.judgements()
        users = UserTable(columns.users, [self.groups.get(user) for user in columns.users])
        return with_implied(users, columns.responses, given, judged)


@final
@attrs.frozen(eq=False)
class _Columns:
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
    def of(cls, rows: Sequence[tuple[int, Said, str, str, float, float]]) -> _Columns:
        kind, said, first, second, value, weight = (list(column) for column in zip(*rows, strict=True))
        users, user = intern_users([one.user for one in said])
        responses, response, other = intern_responses([one.prompt for one in said], first, second)
        numbers = (np.array(column, dtype=np.float64) for column in (value, weight, [one.time for one in said]))
        return cls(users, responses, np.array(kind, dtype=np.int64), user, response, other, *numbers)

    def take(self, rows: BoolArray) -> _Columns:
        names = ("kind", "user", "response", "other", "value", "weight", "time")
        return attrs.evolve(self, **{name: getattr(self, name)[rows] for name in names})

    def comparisons(self, rows: BoolArray) -> Comparisons:
        kept = self.take(rows)
        return Comparisons(kept.user, kept.response, kept.other, kept.weight, time=kept.time)

    def judgements(self) -> Judgements:
        """Return all that is no comparison."""
        kept = self.take(self.kind != _COMPARISON)
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
            splits[name] = part.comparisons(part.kind == _COMPARISON)
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
class _Splitter:
    """Splits comparisons, judgements of two and judgements of one by the same users and prompts.

    Attributes:
        dropped: how many were dropped, by reason.
    """

    def __init__(self, columns: _Columns, options: ComparisonSplitOptions, seed: int, eval_pairs: int) -> None:
        self._columns, self._options, self._seed, self._eval_pairs = columns, options, seed, eval_pairs
        self._tables = UserTable.ungrouped(columns.users), columns.responses
        self.dropped: dict[str, int] = {}
        self._end, self._second = math.inf, math.inf
        if options.strategy == "time":
            missing = int(np.isnan(columns.time).sum())
            if missing:
                raise DataError(f"strategy=time needs a time for all, {missing:,} have none")
            self._end, self._second = moments(columns.time, options)

    def split(self) -> tuple[dict[str, Comparisons], dict[str, Judgements]]:
        """Return comparisons and judgements by split."""
        kind = self._columns.kind
        splits = self._comparisons(self._columns.take(kind == _COMPARISON))
        judgements = {name: [part] for name, part in self._of_two(self._columns.take(kind <= BOTH_BAD)).items()}
        for sort in (THUMB, RATING):
            of_one = self._columns.take(kind == sort)
            if not len(of_one.user):
                continue
            pairs, learnt = self._of_one(of_one)
            for name, part in pairs.items():
                splits[name] = Comparisons.concat([splits.get(name, Comparisons.empty()), part])
            for name, own in learnt.items():
                judgements[name].append(own)
        joined = {name: Judgements.concat(parts) for name, parts in judgements.items()}
        return self._with_evidence(splits, joined), joined

    def _comparisons(self, rows: _Columns) -> dict[str, Comparisons]:
        comparisons = rows.comparisons(rows.kind == _COMPARISON)
        rows_of_tables = ComparisonSet(*self._tables, comparisons)
        if self._timed:
            split = time_splits(rows_of_tables, self._options, seed=self._seed, ends=(self._end, self._second))
        else:
            split = stable_splits(rows_of_tables, self._options, seed=self._seed)
        self.dropped |= split.dropped
        return {name: split.splits.get(name, Comparisons.empty()) for name in SPLITS}

    def _of_two(self, rows: _Columns) -> dict[str, Judgements]:
        users, responses = self._tables
        by_prompt = self._options.cold_by == "prompt"
        cold = stable_cold(responses, self._options.cold_fraction, {}, by_prompt=by_prompt, seed=self._seed)
        unseen = stable_unseen(users.ids, self._options.unseen_fraction, {}, seed=self._seed)[rows.user]
        usable = ~(cold[rows.response] | cold[rows.other]) & (rows.time <= self._end if self._timed else True)
        self.dropped["ties on cold prompts, or of after training"] = int((~usable).sum())
        judged = Judgements(rows.kind, rows.user, rows.response, rows.other, rows.value, rows.weight, rows.time)
        return {"train": judged.take(usable & ~unseen), "support": judged.take(usable & unseen)}

    @property
    def _timed(self) -> bool:
        return self._options.strategy == "time"

    def _of_one(self, rows: _Columns) -> tuple[dict[str, Comparisons], dict[str, Judgements]]:
        """Return comparisons to judge by and judgements to learn from, of thumbs or of ratings."""
        users, responses = self._tables
        numbers: dict[str, int] = {}
        prompt = np.array([numbers.setdefault(text, len(numbers)) for text in responses.prompts], dtype=np.int64)
        own = prompt[rows.response]
        opinions = Opinions.of(
            rows.user, rows.response, rows.value, own, num_users=len(users), num_responses=len(responses), margin=1e-9
        )
        # a thumb may be the only one for its prompt: those of all prompts are compared
        opinions = attrs.evolve(opinions, block=rows.user, stratum=np.arange(len(rows.user)))
        tables = ComparisonSet(*self._tables, Comparisons.empty())
        parts, _, _ = stable_parts(opinions, tables, self._options, seed=self._seed)
        places = {name: part.stratum for name, part in parts.items()}
        if self._timed:
            places = self._by_time(rows, places)
        kind = int(rows.kind[0])
        learnt = {}
        for name in ("train", "support"):
            at = places[name]
            learnt[name] = Judgements(
                np.full(len(at), kind), rows.user[at], rows.response[at], np.full(len(at), -1), rows.value[at],
                rows.weight[at], rows.time[at],
            )  # fmt: skip
        hashed, limit = Hashed.of(tables, self._seed), self._eval_pairs
        mask = np.zeros(len(rows.user), dtype=np.bool_)
        judged = {}
        for name in SPLITS:
            if name not in learnt:
                mask[:] = False
                mask[places[name]] = True
                judged[name] = drawn_pairs(opinions.take(mask), hashed, limit)
        return judged, learnt

    def _by_time(self, rows: _Columns, places: dict[str, IntArray]) -> dict[str, IntArray]:
        """Return the places by time, of the same unseen users and cold prompts."""
        asked = np.concatenate([places["support"], places["heldout"]])
        seen = np.concatenate([places[name] for name in ("train", "validation", "test")])
        time, later = rows.time, places["cold"][rows.time[places["cold"]] > self._end]
        self.dropped["cold, but before what is judged"] = len(places["cold"]) - len(later)
        return {
            "train": seen[time[seen] <= self._end],
            "validation": seen[(time[seen] > self._end) & (time[seen] <= self._second)],
            "test": seen[time[seen] > self._second],
            "cold": later,
            "support": asked[time[asked] <= self._end],
            "heldout": asked[time[asked] > self._end],
        }

    def _with_evidence(
        self, splits: dict[str, Comparisons], judgements: dict[str, Judgements]
    ) -> dict[str, Comparisons]:
        """Drop what users without anything to learn from are judged by."""
        num_users = len(self._columns.users)
        known = {}
        for name in ("train", "support"):
            users = [splits[name].user, judgements[name].user]
            known[name] = np.bincount(np.concatenate(users), minlength=num_users) > 0
        needed = {"heldout": "support", "validation": "train", "test": "train", "cold": "train"}
        kept = {
            name: part.take(known[needed[name]][part.user]) if name in needed else part for name, part in splits.items()
        }
        lost = sum(map(len, splits.values())) - sum(map(len, kept.values()))
        self.dropped["comparisons of users left without anything to learn from"] = lost
        return kept


def seconds(value: Any) -> float:
    """Return a time of a log in seconds since 1970, NaN where there is none that can be read."""
    from copl.data.canonical import ValueFaultError
    from copl.data.reading.values import timestamp

    try:
        read = timestamp(value)
    except ValueFaultError:
        return math.nan
    return math.nan if read is None else read[0]
