"""What newcomers say, in the rows of what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, final

import attrs
import numpy as np
import torch
from attrs import frozen

from copl.records import Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable, response_key
from copl.records.evidence import LEVEL_KEYS, learnt_from
from copl.system.converters import latest_of, number_rows, renumbering

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import BoolArray, FloatArray, IntArray

COMPARISONS_PER_BLOCK = 256
"""Comparisons of newcomers worked on at once; against 100,000 seen users that is about 200 MB."""
_COMPARISONS_IN_EMBEDDING_SPACE = 4096
_CERTAIN = 1e6
"""A weight that leaves no doubt; a greater one would leave none of the prior's digits."""


@final
@frozen(eq=False)
class MatchedSupport:
    """The newcomers' comparisons that say something, sorted by newcomer.

    A response that is not trained is embedded by its text, where the encoder has read texts and somebody has read this
    one; otherwise the mean of all trained responses stands in, the best guess about a response of which nothing is
    known. A comparison of two such responses says nothing and is left out. What a seen user said in training is there
    as well, before what they say now.

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
        new = renumbering(newcomers, len(self))
        keep = np.flatnonzero(new[self.newcomer] >= 0)
        return MatchedSupport(
            tuple(self.user_ids[row] for row in newcomers.tolist()),
            new[self.newcomer[keep]],
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


def nothing_said(users: UserTable) -> ComparisonSet:
    """Return a set in which each of some users is there, and says nothing."""
    rows = np.arange(len(users))
    one = np.zeros_like(rows)
    return ComparisonSet(users, ResponseTable([""], [""]), Comparisons(rows, one, one, np.zeros(len(users))))


def match(support: ComparisonSet, trained: NodeEmbeddings, *, with_training: bool = True) -> MatchedSupport:
    """Find the newcomers' comparisons among the trained responses, by response key, and by text where there is one.

    Comparisons of weight 0 and of a response with itself are left out; their users stay, and so do those whose
    judgements imply nothing. Where levels were trained, thumbs are set against them (`copl.records.evidence`). For a
    seen user the training comparisons are added, but for those that the same user has said otherwise since; not so with
    `with_training` false, where the users are none.
    """
    rows, num_responses = support.comparisons, len(trained.response_keys)
    known = trained.response_rows
    trained_levels = [level for level, key in enumerate(LEVEL_KEYS) if key in known]
    if len(support.judgements) and trained_levels:
        rows = learnt_from(support, alone=True)
    users = np.unique(np.concatenate([rows.user, support.judgements.user]))
    newcomer = np.searchsorted(users, rows.user)
    user_ids = tuple(support.users.ids[row] for row in users.tolist())
    used, position = np.unique(np.concatenate([rows.chosen, rows.rejected]), return_inverse=True)
    levels = used >= len(support.responses)
    keys = _keys(support.responses, used[~levels])
    for level in (used[levels] - len(support.responses)).tolist():  # the nearest one that was trained
        keys.append(LEVEL_KEYS[min(trained_levels, key=lambda other: abs(other - level))])
    places = np.array([known.get(key, num_responses) for key in keys], dtype=np.int64)
    unknown = (places == num_responses) & ~levels
    table = _Table.of(trained, support, used[unknown])
    places[unknown] = table.of_texts
    chosen, rejected = places[position].reshape(2, -1)
    own, said = _said_in_training(user_ids if with_training else (), trained)
    everything = Comparisons.concat([said, attrs.evolve(rows, chosen=chosen, rejected=rejected)])
    everything = attrs.evolve(everything, user=np.concatenate([own, newcomer]).astype(np.int64))
    stands = np.flatnonzero(_stands(everything, len(said), [known[LEVEL_KEYS[level]] for level in trained_levels]))
    everything = everything.take(stands)
    return _matched(user_ids, everything.user, everything, table)


def _stands(rows: Comparisons, num_trained: int, levels: Sequence[int]) -> BoolArray:
    """Return which of what users said in training, the first rows, and since stands: the later of the same [K].

    Without times what was said since is the later. What is said of a response and any level is the same.
    """
    if not num_trained or len(rows) == num_trained:
        return np.ones(len(rows), dtype=np.bool_)
    ends = [np.where(np.isin(end, levels), -1, end) + 1 for end in (rows.chosen, rows.rejected)]
    subject = number_rows(rows.user, np.minimum(*ends), np.maximum(*ends))
    time = rows.time.copy()
    time[num_trained:] = np.nan_to_num(time[num_trained:], nan=np.inf)
    since = np.zeros(len(rows), dtype=np.bool_)
    since[num_trained:] = (rows.weight > 0)[num_trained:] & (ends[0] != ends[1])[num_trained:]
    in_training = latest_of(subject[:num_trained], time[:num_trained], len(rows))[subject]
    afterwards = latest_of(subject[since], time[since], len(rows))[subject]
    stands: BoolArray = np.where(since, time >= in_training, ~((afterwards > -np.inf) & (in_training <= afterwards)))
    return stands


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
    return _matched(user_ids, newcomer, rows, _Table.of(trained, None, np.zeros(0, dtype=np.int64)))


def _matched(user_ids: tuple[str, ...], newcomer: IntArray, rows: Comparisons, table: _Table) -> MatchedSupport:
    keep = np.flatnonzero((rows.chosen != rows.rejected) & (rows.weight > 0))
    keep = keep[np.argsort(newcomer[keep], kind="stable")]
    chosen, rejected = rows.chosen[keep], rows.rejected[keep]
    difference = table.rows(chosen) - table.rows(rejected)
    return MatchedSupport(
        user_ids,
        newcomer[keep],
        np.minimum(chosen, table.num_trained),
        np.minimum(rejected, table.num_trained),
        np.minimum(rows.weight[keep], _CERTAIN),
        difference[:, :-1],
        difference[:, -1],
    )


@final
@frozen(eq=False)
class _Table:
    """Embeddings with biases: of the trained responses, their mean, then responses by their texts.

    Attributes:
        trained: what the encoder has learnt.
        by_text: embeddings and biases of other responses [n, D + 1], float64; none where texts say nothing.
        of_texts: rows of these in the table, or the row of the mean [n].
    """

    trained: NodeEmbeddings
    by_text: Tensor
    of_texts: IntArray

    @classmethod
    def of(cls, trained: NodeEmbeddings, support: ComparisonSet | None, unknown: IntArray) -> _Table:
        num_trained = len(trained.response_keys)
        if trained.text_map is None or support is None or support.features is None or not len(unknown):
            nothing = torch.zeros(0, trained.responses.shape[1] + 1, dtype=torch.float64)
            return cls(trained, nothing, np.full(len(unknown), num_trained, dtype=np.int64))
        by_text = trained.text_map(support.features[torch.from_numpy(unknown)]).double()
        return cls(trained, by_text, num_trained + 1 + np.arange(len(unknown)))

    @property
    def num_trained(self) -> int:
        return len(self.trained.response_keys)

    def rows(self, places: IntArray) -> Tensor:
        """Return embeddings and biases [K, D + 1], float64."""
        trained, rows = self.trained, torch.from_numpy(places)
        values = torch.zeros(len(rows), trained.responses.shape[1] + 1, dtype=torch.float64)
        within = rows < self.num_trained
        values[within, :-1] = trained.responses.detach().cpu()[rows[within]].double()
        values[within, -1] = trained.response_bias.detach().cpu()[rows[within]].double()
        absent = rows == self.num_trained
        if absent.any() and self.num_trained:
            values[absent, :-1] = trained.responses.detach().cpu().double().mean(dim=0)
            values[absent, -1] = trained.response_bias.detach().cpu().double().mean()
        values[rows > self.num_trained] = self.by_text[rows[rows > self.num_trained] - self.num_trained - 1]
        return values


def _said_in_training(user_ids: tuple[str, ...], trained: NodeEmbeddings) -> tuple[IntArray, Comparisons]:
    """Return the training comparisons of those users who are seen, and the place of the user of each in `user_ids`."""
    places = np.full(len(trained.user_ids), -1, dtype=np.int64)
    seen = [(trained.user_rows[user], place) for place, user in enumerate(user_ids) if user in trained.user_rows]
    if not seen:
        return np.zeros(0, dtype=np.int64), Comparisons.empty()
    rows, newcomers = zip(*seen, strict=True)
    places[list(rows)] = newcomers
    own = np.flatnonzero(places[trained.comparisons.user] >= 0)
    return places[trained.comparisons.user[own]], trained.comparisons.take(own)


def _keys(responses: ResponseTable, rows: IntArray) -> list[str]:
    """Return the keys of some responses; of a large table only those are made."""
    if 4 * len(rows) < len(responses):
        return [response_key(responses.prompts[row], responses.texts[row]) for row in rows.tolist()]
    keys = responses.keys
    return [keys[row] for row in rows.tolist()]
