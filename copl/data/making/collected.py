"""Data sets of what tools log: comparisons, ties, thumbs, ratings and rankings, collected row by row, then split.

Of what a user says again of the same, the last counts: by time where there is one, else by the order in which it came.
Comparisons are split as own files are, thumbs and ratings by `copl.data.making.dealing`. Ties are learnt from alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import numpy as np

from copl.data.canonical import ValueFaultError, canonical_id, canonical_text, text_fault
from copl.data.making.notes import Note, left_out
from copl.data.making.origin import ATTRIBUTION_HELP, LICENCE_HELP, Origin
from copl.data.making.said import Said, SaidColumns, SaidSplitter
from copl.data.making.splits import ComparisonSplitOptions
from copl.data.making.stable import STABLE_VERSION
from copl.data.pairs import compact_all
from copl.data.reading.files import unpacked_name
from copl.data.reading.values import timestamp
from copl.errors import DataError
from copl.options import option
from copl.records import ComparisonSet, PreferenceData, UserTable
from copl.records.dataset import with_implied
from copl.records.evidence import choice_weight, ranking_weight
from copl.records.judgements import BOTH_BAD, COMPARISON, RATING, THUMB, TIE, Judgements

if TYPE_CHECKING:
    from copl.records import BoolArray

__all__ = ["SAID_AGAIN", "Collected", "CollectedOptions", "Said"]

SAID_AGAIN = "said again later by the same user of the same"
"""Why something is left out that its user has said otherwise, or once more, since."""
_EQUAL = "between equal texts"


@attrs.frozen(kw_only=True)
class CollectedOptions(ComparisonSplitOptions):
    """How what was collected becomes a data set; the base of the options of the sources that read logs."""

    path: Path = option(help="the file to read")
    eval_pairs_per_user: int = option(
        10,
        help="comparisons drawn from a user's thumbs or ratings at most for each split that measures",
        validator=attrs.validators.ge(1),
    )
    licence: str = option("", help=LICENCE_HELP)
    attribution: str = option("", help=ATTRIBUTION_HELP)


@final
class Collected:
    """Collects what users say, texts in their one spelling."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, Said, str, str, float, float]] = []
        self.left_out: dict[str, int] = {}
        self.groups: dict[str, str] = {}
        self._num_unread_times = 0
        self._unread_time = ""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nothing(self) -> str:
        """What to say where nothing was collected."""
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        return "nothing that can be learnt from" + (f": {reasons}" if reasons else "")

    @property
    def names_splits(self) -> bool:
        """Whether any of it names the split it belongs to."""
        return any(said.split is not None for _, said, *_ in self._rows)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count what is left out, by reason."""
        self.left_out[reason] = self.left_out.get(reason, 0) + count

    def time(self, *written: object) -> float:
        """Return a time of a log in seconds since 1970, the first that is written; NaN where there is none.

        One that cannot be read is unknown, too, for what was said at it holds without it; how many, the notes say.
        """
        try:
            # 0 is what logs write where they know none
            read = next((time for value in written if value and (time := timestamp(value)) is not None), None)
        except ValueFaultError as fault:
            self._num_unread_times += 1
            self._unread_time = self._unread_time or str(fault)
            return math.nan
        return math.nan if read is None else read[0]

    @property
    def _unread_times(self) -> str:
        """What there is to say of times that cannot be read, or nothing."""
        count = self._num_unread_times
        return f"{count:,} times could not be read and are unknown, such as: {self._unread_time}." if count else ""

    def compare(self, said: Said, chosen: str, rejected: str, *, weight: float = 1.0) -> None:
        """Add a comparison."""
        self._add(COMPARISON, said, chosen, rejected, 0.0, weight)

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
        """Add the choice of the best, or of the worst, among several responses; equal texts are one."""
        distinct = {
            canonical_text(other): None for other in others if canonical_text(other) != canonical_text(response)
        }
        self._drop_equal(len(others) - len(distinct))
        for other in distinct:
            ends = (response, other) if best else (other, response)
            self.compare(said, *ends, weight=choice_weight(len(distinct) + 1))

    def rank(self, said: Said, responses: Sequence[str], ranks: Sequence[float]) -> None:
        """Add a ranking: 1 is the best, and equal ranks are ties; equal texts are one, with all of their ranks."""
        ranked: dict[str, list[float]] = {}
        for response, rank in zip(responses, ranks, strict=True):
            ranked.setdefault(canonical_text(response), []).append(rank)
        self._drop_equal(len(responses) - len(ranked))
        weight = ranking_weight(len(ranked)) if len(ranked) > 1 else 1.0
        for (first, own), (second, others) in combinations(ranked.items(), 2):
            signs = {math.copysign(1, other - one) if other != one else 0 for one in own for other in others}
            if signs == {0}:
                self.tie(said, first, second, weight=weight)
            elif len(signs) == 1:
                self.compare(said, *((first, second) if signs == {1} else (second, first)), weight=weight)
            else:
                self.drop("between texts of which one was ranked twice, above the other and not")

    def _drop_equal(self, count: int) -> None:
        if count:
            self.drop(_EQUAL, count)

    def _add(self, kind: int, said: Said, first: str, second: str, value: float, weight: float) -> None:
        user, first, second = canonical_id(said.user), canonical_text(first), canonical_text(second)
        of_two = kind not in (THUMB, RATING)
        texts = (user, said.prompt, first, *([second] if of_two else []))
        faults = [fault for text in texts if (fault := text_fault(text))]
        if faults:
            self.drop("with an empty text" if faults[0] == "empty text" else "with a text that cannot be kept")
        elif of_two and first == second:
            self.drop(_EQUAL)
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
        notes: Sequence[Note] = (),
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
            raise DataError(f"{where}: {self.nothing}")
        columns = SaidColumns.of(self._rows)
        if options.strategy == "time":
            self._require_times(columns, where)
        current = columns.current()
        self.drop(SAID_AGAIN, int((~current).sum()))
        more: dict[str, object] = {}
        named = self._named_splits(current, where)
        if named:
            splits, judgements, dropped = columns.take(current).by_name(named)
        else:
            splitter = SaidSplitter(columns.take(current), options, seed, eval_pairs)
            splits, judgements = splitter.split()
            dropped = splitter.dropped
            if splitter.moments is not None:
                more["moments"] = list(splitter.moments)
        if not len(splits["train"]) + len(judgements["train"]):
            raise DataError(f"{where}: nothing is left to train on; lower the fractions of the other splits")
        table = self._user_table(columns)
        users, responses, splits, judgements = compact_all(table, columns.responses, splits, judgements)
        counts = Judgements.concat(list(judgements.values())).counts()
        provenance = origin.provenance(
            options,
            seed=seed,
            split="given" if named else options.strategy,
            counts={"rows": len(self._rows), **counts, "kept": sum(map(len, splits.values()))},
            notes=[*notes, self._unread_times, *left_out(self.left_out, "rows"), *left_out(dropped, "rows")],
            split_version=STABLE_VERSION,
            **more,
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

    def _named_splits(self, current: BoolArray, where: Path) -> list[str]:
        """Return the split that each of the rows which are `current` names; empty where none names one."""
        named = [row[1].split for row, is_current in zip(self._rows, current, strict=True) if is_current]
        given = [name for name in named if name]
        if given and len(given) < len(named):
            raise DataError(f"{where}: some rows name a split and some do not; name all or none")
        return given

    def _require_times(self, columns: SaidColumns, where: Path) -> None:
        if missing := int(np.isnan(columns.time).sum()):
            fault = f"strategy=time needs a time for all, {missing:,} have none"
            raise DataError(f"{where}: " + "; ".join(filter(None, (fault, self._unread_times.removesuffix(".")))))

    def as_set(self) -> ComparisonSet:
        """Return all that was collected, with what judgements imply, as what a newcomer says."""
        columns = SaidColumns.of(self._rows)
        current = columns.current()
        self.drop(SAID_AGAIN, int((~current).sum()))
        columns = columns.take(current)
        given, judged = columns.comparisons(columns.kind == COMPARISON), columns.judgements()
        return with_implied(self._user_table(columns), columns.responses, given, judged)

    def _user_table(self, columns: SaidColumns) -> UserTable:
        return UserTable(columns.users, [self.groups.get(user) for user in columns.users])
