"""Comparisons as the algorithm takes them: one row for each user and pair of responses, sums to pairs and to users."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs
import numpy as np
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from copl.records import Comparisons, FloatArray, IntArray

_BLOCK = 1 << 17


@final
@attrs.frozen(eq=False)
class Block:
    """Users of consecutive rows, small enough for the work on their evidence to stay in memory.

    Attributes:
        users: rows of the users.
        rows: their rows of evidence.
        gather: sums rows of evidence to users [users, rows].
        edges: which rows touch the same response of the same user, + first and - second [edges, rows]; None where no
            user compares a response twice.
    """

    users: slice
    rows: slice
    gather: csr_array
    edges: csr_array | None


@final
class Evidence:
    """Comparisons summed to one row for each user and unordered pair of responses, sorted by user.

    Attributes:
        user: the user of each row [N].
        pair: the pair of each row [N].
        first, second: responses of each pair [P].
        wins: weight of the comparisons of each row in which the first response was chosen [N].
        losses: the same for the second.
        unit: what a comparison weighs that counts as one: their mean weight.
        blocks: the rows, divided by user.
    """

    def __init__(self, comparisons: Comparisons, num_users: int, num_responses: int) -> None:
        low = np.minimum(comparisons.chosen, comparisons.rejected)
        high = np.maximum(comparisons.chosen, comparisons.rejected)
        pairs, pair = np.unique(low * num_responses + high, return_inverse=True)
        self.first, self.second = np.divmod(pairs, num_responses)
        rows, row = np.unique(comparisons.user * len(pairs) + pair, return_inverse=True)
        self.user, self.pair = np.divmod(rows, len(pairs))
        self.unit = float(comparisons.weight.mean())
        weight = comparisons.weight / self.unit
        first_chosen = comparisons.chosen < comparisons.rejected
        self.wins = np.bincount(row, weight * first_chosen, len(rows))
        self.losses = np.bincount(row, weight * ~first_chosen, len(rows))
        self.num_users, self.num_responses = num_users, num_responses
        shape = len(pairs), num_users
        self._wins_of_pair = csr_array((self.wins, (self.pair, self.user)), shape=shape)
        self._losses_of_pair = csr_array((self.losses, (self.pair, self.user)), shape=shape)
        self.incidence = _incidence(self.first, self.second, num_responses)
        self.touches = abs(self.incidence)
        self.overlapping = bool((np.bincount(np.r_[self.first, self.second], minlength=num_responses) > 1).any())
        self.blocks = self._divide()

    @property
    def num_rows(self) -> int:
        return len(self.user)

    @property
    def per_user(self) -> float:
        """Weight of the comparisons of a user who has any, on average."""
        return float((self.wins + self.losses).sum() / max(len(np.unique(self.user)), 1))

    @property
    def num_pairs(self) -> int:
        return len(self.first)

    def counts(self, membership: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the wins and the losses of each pair in each group [P, K] for memberships [U, K]."""
        return self._wins_of_pair @ membership, self._losses_of_pair @ membership

    def _divide(self) -> list[Block]:
        ends = np.searchsorted(self.user, np.arange(self.num_users + 1))
        blocks, start = [], 0
        while start < self.num_users:
            stop = int(np.searchsorted(ends, ends[start] + _BLOCK, side="right")) - 1
            stop = min(max(stop, start + 1), self.num_users)
            rows = slice(int(ends[start]), int(ends[stop]))
            size = rows.stop - rows.start
            user = self.user[rows]
            gather = csr_array((np.ones(size), (user - start, np.arange(size))), shape=(stop - start, size))
            blocks.append(Block(slice(start, stop), rows, gather, self._edges(rows)))
            start = stop
        return blocks

    def _edges(self, rows: slice) -> csr_array | None:
        offset, pair = self.user[rows] * self.num_responses, self.pair[rows]
        ends = np.concatenate([offset + self.first[pair], offset + self.second[pair]])
        distinct, edge = np.unique(ends, return_inverse=True)
        if len(distinct) == len(ends):
            return None
        first, second = edge.reshape(2, -1)
        return _incidence(first, second, len(distinct))


def _incidence(first: IntArray, second: IntArray, num_rows: int) -> csr_array:
    """Return the matrix [rows, columns] with +1 at the first and -1 at the second row of each column."""
    columns = np.arange(len(first))
    values = np.concatenate([np.ones(len(first)), -np.ones(len(first))])
    return csr_array((values, (np.r_[first, second], np.r_[columns, columns])), shape=(num_rows, len(first)))
