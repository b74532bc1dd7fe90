"""Comparisons as training batches: which ones come when, and the tensors of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from copl.records import Comparisons
from copl.reward.backbone import EncodedResponses, collate
from copl.reward.cached import HiddenCache

if TYPE_CHECKING:
    from copl.records import IntArray

_BATCHES_PER_POOL = 50


def batch_order(lengths: IntArray, batch_size: int, num_batches: int, seed: int) -> IntArray:
    """Return which comparison is at each place of `num_batches` consecutive batches [num_batches * batch_size].

    Every comparison comes once an epoch. Batches hold comparisons of similar length: a pool of 50 batches is drawn at
    random, sorted by length, cut into batches, and these are shuffled. The whole order is known before training, so
    that a resumed run only has to skip.

    Args:
        lengths: tokens of the longer response of each comparison [N].
        batch_size: comparisons in a batch.
        num_batches: number of batches.
        seed: the same seed gives the same order.
    """
    rng = np.random.default_rng(seed)
    count = num_batches * batch_size
    epochs = [rng.permutation(len(lengths)) for _ in range(-(-count // len(lengths)))]
    stream = np.concatenate(epochs)[:count]
    pools = []
    for start in range(0, count, batch_size * _BATCHES_PER_POOL):
        pool = stream[start : start + batch_size * _BATCHES_PER_POOL]
        batches = pool[np.argsort(lengths[pool], kind="stable")].reshape(-1, batch_size)
        pools.append(batches[rng.permutation(len(batches))].ravel())
    return np.concatenate(pools)


@final
class ScheduledComparisons(Dataset[int]):
    """The comparisons in the order of training; an item is a row of the comparisons."""

    def __init__(self, order: IntArray) -> None:
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> int:
        return int(self._order[place])


@final
class PairCollator:
    """Makes the tensors of a batch of comparisons: every text once where all users share the hidden state.

    Args:
        encoded: the texts, by response row.
        comparisons: the comparisons; `user` refers to rows of `users`.
        users: user embeddings [U, D].
        shared: whether the hidden state of a text is the same for all users.
        kept: hidden states to go on from, where only the top layers are adapted.
    """

    def __init__(
        self,
        encoded: EncodedResponses,
        comparisons: Comparisons,
        users: Tensor,
        *,
        shared: bool,
        kept: HiddenCache | None,
    ) -> None:
        self._encoded = encoded
        self._comparisons = comparisons
        self._users = users
        self._shared = shared
        self._kept = kept

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the arguments of `copl.reward.objective.BradleyTerryObjective`."""
        batch = self._comparisons.take(np.asarray(rows, dtype=np.int64))
        texts = np.concatenate([batch.chosen, batch.rejected])
        place = np.arange(len(texts))
        if self._shared:
            texts, place = np.unique(texts, return_inverse=True)
        tokens = collate(self._encoded, texts)
        tensors = {
            "input_ids": tokens.input_ids,
            "attention_mask": tokens.attention_mask,
            "place": torch.from_numpy(place.astype(np.int64)),
            "users": self._users[torch.from_numpy(batch.user)],
            "weight": torch.from_numpy(batch.weight).float(),
        }
        if self._kept is not None:
            tensors["kept"] = self._kept.batch(texts, tokens.attention_mask)
        return tensors
