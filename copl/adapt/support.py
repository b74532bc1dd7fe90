"""What newcomers say, in the rows of what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen

from copl.records import Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, response_key

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray, IntArray

COMPARISONS_PER_BLOCK = 256
"""Comparisons of newcomers worked on at once; against 100,000 seen users that is about 200 MB."""
_COMPARISONS_IN_EMBEDDING_SPACE = 4096


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
        rejected: trained row of the other response [K]; R where it is not trained.
        weight: weight of the comparison [K], positive.
        differences: e_chosen - e_rejected [K, D], float64.
        bias: b_chosen - b_rejected [K], float64.
    """

    user_ids: tuple[str, ...]
    newcomer: IntArray
    chosen: IntArray
    rejected: IntArray
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
            self.rejected[keep],
            self.weight[keep],
            self.differences[torch.from_numpy(keep)],
            self.bias[torch.from_numpy(keep)],
        )

    def blocks(self, num_comparisons: int = COMPARISONS_PER_BLOCK) -> Iterator[tuple[IntArray, MatchedSupport]]:
        """Yield all newcomers in consecutive blocks: their rows, and their part of the support.

        A block holds about `num_comparisons` comparisons, and at least one newcomer.
        """
        ends = np.cumsum(np.maximum(self.counts, 1))
        start = 0
        while start < len(self):
            full = (ends[start - 1] if start else 0) + num_comparisons
            stop = max(int(np.searchsorted(ends, full, side="right")), start + 1)
            newcomers = np.arange(start, stop)
            yield newcomers, self.take(newcomers)
            start = stop

    def by_length(self) -> Iterator[tuple[IntArray, MatchedSupport]]:
        """Yield the newcomers with comparisons in blocks of similar numbers, so that `padded` pads little."""
        size = np.ceil(np.log2(np.maximum(self.counts, 1))).astype(np.int64)
        for value in np.unique(size):
            rows = np.flatnonzero((size == value) & (self.counts > 0))
            for newcomers, part in self.take(rows).blocks(_COMPARISONS_IN_EMBEDDING_SPACE):
                yield rows[newcomers], part

    def padded(self) -> PaddedSupport:
        """Return the comparisons as one row a newcomer."""
        counts = self.counts
        place = np.arange(len(self.newcomer)) - np.repeat(np.cumsum(counts) - counts, counts)
        at = torch.from_numpy(self.newcomer), torch.from_numpy(place)
        shape = len(self), int(counts.max(initial=0))
        differences = torch.zeros(*shape, self.differences.shape[1], dtype=torch.float64)
        bias, weight = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        differences[at], bias[at], weight[at] = self.differences, self.bias, torch.from_numpy(self.weight)
        return PaddedSupport(differences, bias, weight)


@final
@frozen(eq=False)
class PaddedSupport:
    """Comparisons of n newcomers, each padded to k with comparisons of weight 0.

    Attributes:
        differences: e_chosen - e_rejected [n, k, D], float64.
        bias: b_chosen - b_rejected [n, k].
        weight: weight of each comparison [n, k].
    """

    differences: Tensor
    bias: Tensor
    weight: Tensor


def match(support: ComparisonSet, trained: NodeEmbeddings) -> MatchedSupport:
    """Find the newcomers' comparisons among the trained responses, by response key.

    Comparisons of weight 0 and those whose responses are both new, or the same, are left out; their users stay.
    """
    rows = support.comparisons
    num_responses = len(trained.response_keys)
    users, newcomer = np.unique(rows.user, return_inverse=True)
    used, position = np.unique(np.concatenate([rows.chosen, rows.rejected]), return_inverse=True)
    known = trained.response_rows
    found = np.array([known.get(key, num_responses) for key in _keys(support.responses, used)], dtype=np.int64)
    chosen, rejected = found[position].reshape(2, -1)
    return matched_rows(
        tuple(support.users.ids[row] for row in users.tolist()),
        newcomer.astype(np.int64),
        Comparisons(newcomer, chosen, rejected, rows.weight),
        trained,
    )


def matched_rows(
    user_ids: tuple[str, ...], newcomer: IntArray, rows: Comparisons, trained: NodeEmbeddings
) -> MatchedSupport:
    """Return the support of comparisons whose responses are rows of `trained`, R where they are none of its.

    Args:
        user_ids: ids of the newcomers [N].
        newcomer: row in `user_ids` of each comparison [K].
        rows: the comparisons [K]; their column of users is not looked at.
        trained: what the encoder has learnt.
    """
    keep = np.flatnonzero((rows.chosen != rows.rejected) & (rows.weight > 0))
    keep = keep[np.argsort(newcomer[keep], kind="stable")]
    chosen, rejected = rows.chosen[keep], rows.rejected[keep]
    bias = trained.response_bias[:, None]
    return MatchedSupport(
        user_ids,
        newcomer[keep],
        chosen,
        rejected,
        rows.weight[keep],
        _rows_or_mean(trained.responses, chosen) - _rows_or_mean(trained.responses, rejected),
        (_rows_or_mean(bias, chosen) - _rows_or_mean(bias, rejected))[:, 0],
    )


def _keys(responses: ResponseTable, rows: IntArray) -> list[str]:
    """Return the keys of some responses; of a large table only those are made."""
    if 4 * len(rows) < len(responses):
        return [response_key(responses.prompts[row], responses.texts[row]) for row in rows.tolist()]
    keys = responses.keys
    return [keys[row] for row in rows.tolist()]


def _rows_or_mean(table: Tensor, rows: IntArray) -> Tensor:
    """Return the rows of `table` in float64; the row after the last one is the mean of all."""
    absent = torch.from_numpy(rows == len(table))
    if not len(table):
        return torch.zeros(len(rows), table.shape[1], dtype=torch.float64)
    values = table.detach().cpu()[torch.from_numpy(rows).clamp(max=len(table) - 1)].double()
    if absent.any():
        values[absent] = table.detach().cpu().double().mean(dim=0)
    return values
