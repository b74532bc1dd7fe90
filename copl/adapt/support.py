"""What newcomers say, in the rows of what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen

from copl.records import ComparisonSet, NodeEmbeddings

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray, IntArray

COMPARISONS_PER_BLOCK = 256
"""Comparisons of newcomers worked on at once; against 100,000 seen users that is about 200 MB."""


@final
@frozen(eq=False)
class MatchedSupport:
    """The newcomers' comparisons that say something, sorted by newcomer.

    A comparison is kept when at least one of its two responses is trained. The other one, if it is new, is stood in by
    the mean of all trained responses: the best guess about a response of which nothing is known.

    Attributes:
        user_ids: ids of the newcomers [N], in the order of their table.
        newcomer: row in `user_ids` of each comparison kept [K], ascending.
        chosen: trained row of the chosen response [K]; R where it is not trained.
        weight: weight of the comparison [K], positive.
        differences: e_chosen - e_rejected [K, D], float64.
        bias: b_chosen - b_rejected [K], float64.
    """

    user_ids: tuple[str, ...]
    newcomer: IntArray
    chosen: IntArray
    weight: FloatArray
    differences: Tensor
    bias: Tensor

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def counts(self) -> IntArray:
        """Number of comparisons kept of each newcomer [N]."""
        return np.bincount(self.newcomer, minlength=len(self)).astype(np.int64)

    def take(self, newcomers: IntArray) -> MatchedSupport:
        """Return the part of these newcomers (ascending rows), renumbered from 0."""
        renumbered = np.full(len(self), -1, dtype=np.int64)
        renumbered[newcomers] = np.arange(len(newcomers))
        keep = np.flatnonzero(renumbered[self.newcomer] >= 0)
        return MatchedSupport(
            tuple(self.user_ids[row] for row in newcomers.tolist()),
            renumbered[self.newcomer[keep]],
            self.chosen[keep],
            self.weight[keep],
            self.differences[torch.from_numpy(keep)],
            self.bias[torch.from_numpy(keep)],
        )

    def blocks(self) -> Iterator[tuple[IntArray, MatchedSupport]]:
        """Yield all newcomers in consecutive blocks: their rows, and their part of the support.

        A block holds about `COMPARISONS_PER_BLOCK` comparisons, and at least one newcomer.
        """
        ends = np.cumsum(np.maximum(self.counts, 1))
        start = 0
        while start < len(self):
            full = (ends[start - 1] if start else 0) + COMPARISONS_PER_BLOCK
            stop = max(int(np.searchsorted(ends, full, side="right")), start + 1)
            newcomers = np.arange(start, stop)
            yield newcomers, self.take(newcomers)
            start = stop


def match(support: ComparisonSet, trained: NodeEmbeddings) -> MatchedSupport:
    """Find the newcomers' comparisons among the trained responses, by response key.

    Comparisons of weight 0 and those whose responses are both new, or the same, are left out; their users stay.
    """
    rows = support.comparisons
    num_responses = len(trained.response_keys)
    users, newcomer = np.unique(rows.user, return_inverse=True)
    used, position = np.unique(np.concatenate([rows.chosen, rows.rejected]), return_inverse=True)
    keys, known = support.responses.keys, trained.response_rows
    found = np.array([known.get(keys[row], num_responses) for row in used.tolist()], dtype=np.int64)
    chosen, rejected = found[position].reshape(2, -1)
    keep = np.flatnonzero((chosen != rejected) & (rows.weight > 0))
    keep = keep[np.argsort(newcomer[keep], kind="stable")]
    chosen, rejected = chosen[keep], rejected[keep]
    bias = trained.response_bias[:, None]
    return MatchedSupport(
        tuple(support.users.ids[row] for row in users.tolist()),
        newcomer[keep].astype(np.int64),
        chosen,
        rows.weight[keep],
        _rows_or_mean(trained.responses, chosen) - _rows_or_mean(trained.responses, rejected),
        (_rows_or_mean(bias, chosen) - _rows_or_mean(bias, rejected))[:, 0],
    )


def _rows_or_mean(table: Tensor, rows: IntArray) -> Tensor:
    """Return the rows of `table` in float64; the row after the last one is the mean of all."""
    absent = torch.from_numpy(rows == len(table))
    if not len(table):
        return torch.zeros(len(rows), table.shape[1], dtype=torch.float64)
    values = table.detach().cpu()[torch.from_numpy(rows).clamp(max=len(table) - 1)].double()
    if absent.any():
        values[absent] = table.detach().cpu().double().mean(dim=0)
    return values
