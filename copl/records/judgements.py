"""What users say otherwise than by choosing one of two responses: ties, thumbs and ratings, as columns.

Shapes: N judgements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import evolve, field, frozen

from copl.system.converters import flag_array, float_array, int_array, number_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from copl.records.tables import BoolArray, FloatArray, IntArray

KINDS: Mapping[str, str] = {
    "tie": "two responses are alike to the user, and may be good",
    "both_bad": "two responses are alike to the user, and neither is good enough",
    "thumb": "one response is good enough (1) or not (-1)",
    "rating": "one response on the user's own ordered scale; higher is better",
}
"""The kinds of judgements; a kind is its place here."""

TIE, BOTH_BAD, THUMB, RATING = range(len(KINDS))

COMPARISON = len(KINDS)
"""Kind of a word that is a comparison, the first response being chosen; no judgement is of this kind."""


@final
@frozen(eq=False)
class Judgements:
    """Judgements as columns; rows refer to a `UserTable` and a `ResponseTable` kept beside them.

    Attributes:
        kind: place in `KINDS` [N].
        user: row of the user [N].
        response: row of the response, or of the first of two [N].
        other: row of the second of two; -1 where there is one response [N].
        value: 1 or -1 for a thumb, the rating, 0 for two responses [N].
        weight: weight of each judgement, 1 by default [N].
        time: when it was given, in seconds since 1970 (UTC); NaN unknown [N].
    """

    kind: NDArray[np.int8] = field(converter=flag_array)
    user: IntArray = field(converter=int_array)
    response: IntArray = field(converter=int_array)
    other: IntArray = field(converter=int_array)
    value: FloatArray = field(converter=float_array)
    weight: FloatArray = field(converter=float_array)
    time: FloatArray = field(converter=float_array)

    @weight.default
    def _ones(self) -> FloatArray:
        return np.ones(len(self.user), dtype=np.float64)

    @time.default
    def _unknown(self) -> FloatArray:
        return np.full(len(self.user), np.nan)

    def __attrs_post_init__(self) -> None:
        lengths = {len(column) for column in self.columns()}
        if len(lengths) != 1:
            raise ValueError(f"columns of judgements differ in length: {sorted(lengths)}")

    def columns(self) -> tuple[NDArray[np.int8] | IntArray | FloatArray, ...]:
        """Return the columns in the order of the attributes."""
        return self.kind, self.user, self.response, self.other, self.value, self.weight, self.time

    def __len__(self) -> int:
        return len(self.user)

    @property
    def is_of_two(self) -> BoolArray:
        """Which judgements are of two responses [N]."""
        mask: BoolArray = self.other >= 0
        return mask

    def take(self, rows: IntArray | BoolArray) -> Judgements:
        """Return the judgements at `rows` (row numbers or a mask)."""
        return Judgements(*(column[rows] for column in self.columns()))

    def renumbered(self, user: IntArray, response: IntArray) -> Judgements:
        """Return the judgements with new rows of users and of responses, given by the old ones."""
        other = np.where(self.is_of_two, response[self.other], -1)
        return evolve(self, user=user[self.user], response=response[self.response], other=other)

    def counts(self) -> dict[str, int]:
        """Return how many judgements there are of each kind that occurs."""
        numbers = np.bincount(self.kind, minlength=len(KINDS)).tolist()
        return {name: number for name, number in zip(KINDS, numbers, strict=True) if number}

    @property
    def subjects(self) -> IntArray:
        """A number for each judgement [N], equal where one user judges the same in the same way."""
        other = np.where(self.is_of_two, self.other, self.response)
        return subjects(self.kind, self.user, self.response, other)

    @classmethod
    def empty(cls) -> Judgements:
        none: list[int] = []
        return cls(none, none, none, none, none)

    @classmethod
    def concat(cls, parts: Sequence[Judgements]) -> Judgements:
        """Return all judgements of `parts`, in order."""
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate(columns) for columns in zip(*(p.columns() for p in parts), strict=True)))


def subjects(kind: IntArray | NDArray[np.int8], user: IntArray, response: IntArray, other: IntArray) -> IntArray:
    """Return a number for each of what users say [N], equal where one user says it of the same.

    That is a pair of responses, in whatever order, the thumb of a response, or its rating.

    Args:
        kind: place in `KINDS`; any other number is a comparison [N].
        user: row of the user [N].
        response: row of the response, or of the first of two [N].
        other: row of the second of two; of one response that row again [N].
    """
    sort = np.select([kind == THUMB, kind == RATING], [1, 2], 0)
    return number_rows(user, sort, np.minimum(response, other), np.maximum(response, other))


def last_said(subject: IntArray, time: FloatArray) -> BoolArray:
    """Return which of what users say [N] is the last of its subject: by time where there is one, else by the order."""
    order = np.lexsort((np.arange(len(subject)), np.nan_to_num(time, nan=-np.inf), subject))
    is_last = np.zeros(len(subject), dtype=np.bool_)
    ends = np.flatnonzero(np.diff(subject[order], append=-1))
    is_last[order[ends]] = True
    return is_last
