"""A data set as records: its splits, what a stage receives of one, and what is to be scored.

Shapes: N comparisons or requests, R responses, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np
from attrs import evolve, field, frozen

from copl.records.evidence import implied
from copl.records.judgements import Judgements
from copl.records.tables import BoolArray, Comparisons, IntArray, ResponseTable, UserTable
from copl.system.converters import int_array, number_rows

if TYPE_CHECKING:
    from torch import Tensor


SPLITS: Mapping[str, str] = {
    "train": "comparisons of seen users that the model learns from",
    "validation": "comparisons of seen users that choose options and stop training",
    "test": "held-out comparisons of seen users",
    "cold": "comparisons of seen users on responses or prompts never trained on",
    "support": "the few comparisons that unseen users give",
    "heldout": "comparisons that unseen users are judged by",
}
"""The splits a data set may have, with what each is for."""


@final
@frozen(eq=False)
class ComparisonSet:
    """Comparisons together with the tables their rows refer to: what a stage receives.

    Attributes:
        users: the users referred to.
        responses: the responses referred to.
        comparisons: the comparisons.
        features: frozen features of the responses' texts [R, F], where somebody has read them; rows of responses that
            nothing refers to may be anything.
        judgements: what the same users said otherwise.
        num_given: how many of the comparisons, the first ones, are not implied by the judgements; None for all.
    """

    users: UserTable
    responses: ResponseTable
    comparisons: Comparisons
    features: Tensor | None = None
    judgements: Judgements = field(factory=Judgements.empty)
    num_given: int | None = None

    def __len__(self) -> int:
        return len(self.comparisons)

    @property
    def says_nothing(self) -> bool:
        """Whether there is neither a comparison nor a judgement."""
        return not len(self.comparisons) and not len(self.judgements)

    @property
    def given(self) -> Comparisons:
        """The comparisons that are not implied by the judgements."""
        return self.comparisons if self.num_given is None else self.comparisons.take(np.arange(self.num_given))

    @property
    def told_apart(self) -> BoolArray:
        """Which comparisons say that one of two responses to the same prompt is better than the other [N].

        Judgements imply others as well: thumbs and ratings compare responses to different prompts, and a tie goes both
        ways. They have a meaning as numbers, and none to a person who reads them.
        """
        rows, prompts = self.comparisons, self.responses.prompt_rows
        ends = np.concatenate([rows.chosen, rows.rejected]), np.concatenate([rows.rejected, rows.chosen])
        said, reverse = np.split(number_rows(np.tile(rows.user, 2), *ends), 2)
        mask: BoolArray = (prompts[rows.chosen] == prompts[rows.rejected]) & ~np.isin(said, reverse)
        return mask

    @property
    def speakers(self) -> tuple[str, ...]:
        """Ids of the users who have compared or judged something, in the order of the table."""
        rows = np.unique(np.concatenate([self.comparisons.user, self.judgements.user]))
        return tuple(self.users.ids[row] for row in rows.tolist())

    def of_user(self, user_id: str) -> ComparisonSet:
        """Return what one user says; nothing where the user is not there. The responses stay as they are."""
        row = self.users.rows.get(user_id, -1)
        group = self.users.groups[row] if row >= 0 else None
        own = self._of(self.comparisons.user == row, self.judgements.user == row)
        users, responses = np.zeros(len(self.users), dtype=np.int64), np.arange(len(self.responses))
        return evolve(
            own,
            users=UserTable([user_id], [group]),
            comparisons=own.comparisons.renumbered(users, responses),
            judgements=own.judgements.renumbered(users, responses),
        )

    def take(self, rows: IntArray | BoolArray) -> ComparisonSet:
        """Return the set with some of the comparisons (ascending rows or a mask), and all judgements.

        Where there are judgements, what they imply follows from all of them still.
        """
        return self._of(rows, np.ones(len(self.judgements), dtype=np.bool_))

    def _of(self, rows: IntArray | BoolArray, judged: BoolArray) -> ComparisonSet:
        given = self.num_given
        if given is not None:
            given = int(np.count_nonzero(np.arange(len(self))[rows] < given))
        return evolve(
            self, comparisons=self.comparisons.take(rows), judgements=self.judgements.take(judged), num_given=given
        )


def with_implied(
    users: UserTable,
    responses: ResponseTable,
    given: Comparisons,
    judged: Judgements,
    features: Tensor | None = None,
) -> ComparisonSet:
    """Return what users say as one set: the comparisons they gave, followed by what their judgements imply.

    Args:
        users: the users referred to.
        responses: the responses referred to.
        given: the comparisons that were given.
        judged: the judgements.
        features: frozen features of the responses' texts [R, F], where somebody has read them.
    """
    if not len(judged):
        return ComparisonSet(users, responses, given, features)
    whole = Comparisons.concat([given, implied(judged, len(given))])
    return ComparisonSet(users, responses, whole, features, judged, len(given))


@final
@frozen(eq=False)
class PreferenceData:
    """A data set: users, responses and the comparisons of each split.

    Attributes:
        name: short name, for tables.
        users: all users, seen and unseen.
        responses: all responses of all splits.
        splits: comparisons by split name (see `SPLITS`); a split without comparisons may be missing.
        provenance: where the data came from: source, options, counts, licence, versions; plain JSON values.
        judgements: ties, thumbs and ratings by split name.
    """

    name: str
    users: UserTable
    responses: ResponseTable
    splits: Mapping[str, Comparisons]
    provenance: Mapping[str, Any] = field(factory=dict)
    judgements: Mapping[str, Judgements] = field(factory=dict)

    def split(self, name: str) -> ComparisonSet:
        """Return one split with the tables of the data set; empty where the data set has no such split.

        What judgements imply as comparisons (`copl.records.evidence.implied`) follows those that are given.
        """
        if name in self.judgements:
            return self._judged[name]
        return ComparisonSet(self.users, self.responses, self.splits.get(name, Comparisons.empty()))

    @cached_property
    def _judged(self) -> Mapping[str, ComparisonSet]:
        """The splits that have judgements, with what these imply."""
        return {
            name: with_implied(self.users, self.responses, self.splits.get(name, Comparisons.empty()), judged)
            for name, judged in self.judgements.items()
        }

    def digest(self, *splits: str) -> str:
        """Return a hash of the named splits, with the ids and keys of all users and responses."""
        digest = hashlib.sha256()
        for names in (self.users.ids, self.responses.keys):
            digest.update("\x00".join(names).encode("utf-8", "surrogatepass"))
            digest.update(b"\x01")
        for split in splits:
            rows = self.split(split).comparisons
            digest.update(split.encode())
            for column in (rows.user, rows.chosen, rows.rejected, rows.weight):
                digest.update(column.tobytes())
            if np.isfinite(rows.time).any():
                digest.update(rows.time.tobytes())
            for values in self.judgements.get(split, Judgements.empty()).columns():
                digest.update(values.tobytes())
        return digest.hexdigest()

    def present(self) -> Iterator[str]:
        """Yield the names of the splits that hold comparisons, in the order of `SPLITS`."""
        return (name for name in SPLITS if len(self.splits.get(name, ())) > 0)

    def evidence(self) -> Iterator[str]:
        """Yield the names of the splits that hold comparisons or judgements, in the order of `SPLITS`."""
        parts = (self.splits, self.judgements)
        return (name for name in SPLITS if any(len(part.get(name, ())) for part in parts))


@final
@frozen(eq=False)
class ScoreRequests:
    """Pairs of a user and a response to be scored.

    Attributes:
        users: the users referred to.
        responses: the responses referred to.
        user: row of the user of each request [N].
        response: row of the response of each request [N].
    """

    users: UserTable
    responses: ResponseTable
    user: IntArray = field(converter=int_array)
    response: IntArray = field(converter=int_array)

    def __len__(self) -> int:
        return len(self.user)
