"""Users, responses and comparisons as columns: the tables, and the rows that refer to them.

Shapes: U users, R responses, N comparisons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TypeAlias, final

import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from copl.system.converters import flag_array, float_array, int_array, number_names, optional_strings, strings

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]

NOBODY = ""
"""An id that no user of a data set has: what is asked for it is answered for the average user."""


def response_key(prompt: str, text: str) -> str:
    """Return the key of a response: a hash of its prompt and text, equal wherever the same response occurs."""
    digest = hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16)
    digest.update(b"\x00")
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@final
@frozen(eq=False)
class UserTable:
    """Users in a fixed order.

    Attributes:
        ids: the users' own ids, unique.
        groups: each user's known group, or None; for evaluation and plots, never for training (but by an oracle).
    """

    ids: tuple[str, ...] = field(converter=strings)
    groups: tuple[str | None, ...] = field(converter=optional_strings)

    def __attrs_post_init__(self) -> None:
        if len(self.ids) != len(self.groups):
            raise ValueError(f"{len(self.ids)} user ids but {len(self.groups)} groups")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("user ids are not unique")

    @classmethod
    def ungrouped(cls, ids: Sequence[str]) -> UserTable:
        return cls(ids, (None,) * len(ids))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Row of each user id."""
        return {user: row for row, user in enumerate(self.ids)}


@final
@frozen(eq=False)
class ResponseTable:
    """Responses in a fixed order; a response is identified by its prompt and its text together.

    Attributes:
        prompts: the prompt of each response: text, or chat messages in the form of `copl.data.chat`.
        texts: the text of each response.
    """

    prompts: tuple[str, ...] = field(converter=strings)
    texts: tuple[str, ...] = field(converter=strings)

    def __attrs_post_init__(self) -> None:
        if len(self.prompts) != len(self.texts):
            raise ValueError(f"{len(self.prompts)} prompts but {len(self.texts)} texts")

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Key of each response, see `response_key`."""
        return tuple(response_key(prompt, text) for prompt, text in zip(self.prompts, self.texts, strict=True))

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Row of each response key."""
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def prompt_rows(self) -> IntArray:
        """Number of each response's prompt [R]; prompts are numbered as they first occur."""
        return number_names(self.prompts)

    def take(self, rows: IntArray) -> ResponseTable:
        """Return the responses at some rows, in their order."""
        places = rows.tolist()
        return ResponseTable([self.prompts[row] for row in places], [self.texts[row] for row in places])


@final
@frozen(eq=False)
class Comparisons:
    """Comparisons as columns; rows refer to a `UserTable` and a `ResponseTable` kept beside them.

    Attributes:
        user: row of the user [N].
        chosen: row of the response the user preferred [N].
        rejected: row of the other response [N].
        weight: weight of each comparison, 1 by default [N].
        controversial: 1 where users are known to disagree on this pair, 0 where not, -1 unknown [N].
        time: when each was made, in seconds since 1970 (UTC); NaN unknown [N].
    """

    user: IntArray = field(converter=int_array)
    chosen: IntArray = field(converter=int_array)
    rejected: IntArray = field(converter=int_array)
    weight: FloatArray = field(converter=float_array)
    controversial: NDArray[np.int8] = field(converter=flag_array)
    time: FloatArray = field(converter=float_array)

    @weight.default
    def _ones(self) -> FloatArray:
        return np.ones(len(self.user), dtype=np.float64)

    @controversial.default
    def _unknown(self) -> NDArray[np.int8]:
        return np.full(len(self.user), -1, dtype=np.int8)

    @time.default
    def _timeless(self) -> FloatArray:
        return np.full(len(self.user), np.nan)

    def __attrs_post_init__(self) -> None:
        lengths = {len(column) for column in self._columns()}
        if len(lengths) != 1:
            raise ValueError(f"columns of comparisons differ in length: {sorted(lengths)}")

    def _columns(self) -> tuple[IntArray | FloatArray | NDArray[np.int8], ...]:
        return self.user, self.chosen, self.rejected, self.weight, self.controversial, self.time

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: IntArray | BoolArray) -> Comparisons:
        """Return the comparisons at `rows` (row numbers or a mask)."""
        return Comparisons(*(column[rows] for column in self._columns()))

    def renumbered(self, user: IntArray, response: IntArray) -> Comparisons:
        """Return the comparisons with new rows of users and of responses, given by the old ones."""
        return evolve(self, user=user[self.user], chosen=response[self.chosen], rejected=response[self.rejected])

    def within(self, user: IntArray, response: IntArray) -> Comparisons:
        """Return the comparisons with new rows, as `renumbered`, without those of which one is -1: it is not kept."""
        new = self.renumbered(user, response)
        return new.take((new.user >= 0) & (new.chosen >= 0) & (new.rejected >= 0))

    @classmethod
    def empty(cls) -> Comparisons:
        none: list[int] = []
        return cls(none, none, none)

    @classmethod
    def concat(cls, parts: Sequence[Comparisons]) -> Comparisons:
        """Return all comparisons of `parts`, in order."""
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate(columns) for columns in zip(*(p._columns() for p in parts), strict=True)))
