"""Comparisons as training batches: which ones come when, and the tensors of each batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import asdict
from torch import Tensor

from copl.records import Comparisons
from copl.reward.backbones.loaded import EncodedResponses, collate
from copl.reward.reading.kept import UnevenRows
from copl.reward.reading.packing import pack_pairs, packed_states

if TYPE_CHECKING:
    from copl.records import IntArray

_BATCHES_PER_POOL = 50
_ROUTES_PER_BATCH = 4
_PART = 8
_WORTH_DIVIDING = 0.85
_WORTH_SHARING = 0.75  # what packing and batches of similar length may save instead


def routed_epoch(
    lengths: IntArray, batch_size: int, rng: np.random.Generator, *, buckets: bool = True
) -> list[IntArray]:
    """Return one epoch of batches of equal size and similar length, each comparison reading texts of its own.

    Pools of 50 batches are drawn at random, sorted by length and cut; the batches of all pools come in random order.
    What is left at the end is a smaller batch.

    Args:
        lengths: tokens of the longer response of each comparison, or of both if they are packed [N].
        batch_size: comparisons in a batch.
        rng: where randomness comes from.
        buckets: whether to sort by length at all.
    """
    stream, batches = rng.permutation(len(lengths)), []
    for start in range(0, len(stream), batch_size * _BATCHES_PER_POOL):
        drawn = stream[start : start + batch_size * _BATCHES_PER_POOL]
        if buckets:
            drawn = drawn[np.argsort(lengths[drawn], kind="stable")]
        batches += [drawn[cut : cut + batch_size] for cut in range(0, len(drawn), batch_size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def shared_epoch(
    comparisons: Comparisons, routes: IntArray, groups: IntArray, batch_size: int, rng: np.random.Generator
) -> list[IntArray]:
    """Return one epoch of batches that read a text once for all comparisons of a route among a few texts.

    Users of one route have the same experts, so they share the hidden states of a text. All comparisons of a route
    within a prompt stay together. Where a prompt has more than `batch_size` texts, or texts of several prompts are
    compared, the texts are dealt at random into blocks, and what lies between two blocks stays together; blocks are
    small enough for a batch to hold four routes, if there are so many. Such units are drawn at random, of whatever
    route, until they read 2 `batch_size` texts, as many as a batch of `routed_epoch`; they serve many times as many
    comparisons.

    Args:
        comparisons: the comparisons.
        routes: the route of each user [U].
        groups: the prompt of each text [R].
        batch_size: half the number of texts that a batch reads at most.
        rng: where randomness comes from.
    """
    own, units, batches = routes[comparisons.user], [], []
    present = np.unique(own)
    block_size = max(1, batch_size // min(len(present), _ROUTES_PER_BATCH))
    for route in present:
        rows = np.flatnonzero(own == route)
        units += [rows[unit] for unit in _units(comparisons.take(rows), groups, block_size, batch_size, rng)]
    batch: list[IntArray] = []
    free = 2 * batch_size
    for place in rng.permutation(len(units)):
        unit = units[place]
        texts = len(np.union1d(comparisons.chosen[unit], comparisons.rejected[unit]))
        if texts > free:
            batches.append(np.concatenate(batch))
            batch, free = [], 2 * batch_size
        batch.append(unit)
        free -= texts
    return [*batches, np.concatenate(batch)] if batch else []


def sharing_pays(comparisons: Comparisons, routes: IntArray, groups: IntArray, batch_size: int) -> bool:
    """Whether an epoch of `shared_epoch` takes clearly fewer batches than one of `routed_epoch`."""
    shared = shared_epoch(comparisons, routes, groups, batch_size, np.random.default_rng(0))
    return len(shared) <= _WORTH_SHARING * len(comparisons) / batch_size


def _units(
    comparisons: Comparisons, groups: IntArray, block_size: int, batch_size: int, rng: np.random.Generator
) -> list[IntArray]:
    """Split the comparisons of a route into what stays together: none reads more than 2 `batch_size` texts."""
    texts, places = np.unique(np.stack([comparisons.chosen, comparisons.rejected]), return_inverse=True)
    places = places.reshape(2, -1)
    prompts = groups[texts]
    low, high = np.sort(_blocks(prompts, block_size, batch_size, rng)[places], axis=0)
    first, second = prompts[places]
    whole = np.where((low == high) & (first == second), first, -1)
    _, unit = np.unique(np.stack([low, high, whole]), axis=1, return_inverse=True)
    order = np.argsort(unit.reshape(-1), kind="stable")
    units: list[IntArray] = np.split(order, np.flatnonzero(np.diff(unit.reshape(-1)[order])) + 1)
    return units


def _blocks(groups: IntArray, size: int, whole: int, rng: np.random.Generator) -> IntArray:
    """Deal texts into blocks of `size` in random order, prompt after prompt; none of up to `whole` texts is split."""
    rank = rng.permutation(int(groups.max()) + 1)[groups]
    order = np.lexsort((rng.random(len(groups)), rank))
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))
    block, current, free = np.empty(len(groups), dtype=np.int64), 0, size
    for texts in np.split(order, starts[1:]):
        if len(texts) > free and len(texts) <= whole:
            current, free = current + 1, max(size, len(texts))
        for text in texts:
            if free == 0:
                current, free = current + 1, size
            block[text] = current
            free -= 1
    return block


def scheduled(epoch: Callable[[], list[IntArray]], num_batches: int) -> list[IntArray]:
    """Return the batches of a training run in their order, known before it begins, so that a resumed one can skip.

    Args:
        epoch: draws the batches of one epoch.
        num_batches: how many there are to be.
    """
    batches: list[IntArray] = []
    while len(batches) < num_batches:
        batches += epoch()
    return batches[:num_batches]


def tokens_in_a_row(encoded: EncodedResponses, comparisons: Comparisons, *, packed: bool) -> IntArray:
    """Return how many tokens each comparison makes the backbone read in a row: its longer text, or both [N]."""
    chosen, rejected = encoded.lengths[comparisons.chosen], encoded.lengths[comparisons.rejected]
    if not packed:
        return np.maximum(chosen, rejected)
    prompts = encoded.prompt_lengths
    lengths: IntArray = chosen + rejected - np.minimum(prompts[comparisons.chosen], prompts[comparisons.rejected])
    return lengths


@final
class PairCollator:
    """Makes the tensors of a batch of comparisons: every text once for all users who share its hidden states.

    Args:
        encoded: the texts, by response row.
        comparisons: the comparisons; `user` refers to rows of `users`.
        users: user embeddings [U, D].
        routes: the route of each user [U]; users of one route share the hidden states of a text. None where a
            comparison reads texts of its own.
        kept: hidden states to go on from, where only the top layers are adapted.
        packed: whether the two texts of a comparison go into one sequence.
    """

    def __init__(
        self,
        encoded: EncodedResponses,
        comparisons: Comparisons,
        users: Tensor,
        *,
        routes: IntArray | None,
        kept: UnevenRows | None,
        packed: bool = False,
    ) -> None:
        self._encoded = encoded
        self._comparisons = comparisons
        self._users = users
        self._routes = routes
        self._kept = kept
        self._packed = packed

    def __call__(self, rows: IntArray) -> dict[str, Tensor]:
        """Return the arguments of `BradleyTerryObjective` for rows of the comparisons."""
        batch = self._comparisons.take(rows)
        tensors = who_judges(batch, self._users)
        if self._packed:
            pairs, shared = pack_pairs(self._encoded, batch.chosen, batch.rejected)
            if self._kept is not None:
                tensors["kept"] = packed_states(self._kept, pairs, batch.chosen, batch.rejected, shared)
            return tensors | asdict(pairs)
        texts = np.concatenate([batch.chosen, batch.rejected])
        first = place = np.arange(len(texts))
        if self._routes is not None:
            own = np.tile(self._routes[batch.user], 2)
            readings = np.stack([texts, own])
            _, first, place = np.unique(readings, axis=1, return_index=True, return_inverse=True)
            texts = texts[first]
        tokens = collate(self._encoded, texts)
        tensors |= {
            "input_ids": tokens.input_ids,
            "attention_mask": tokens.attention_mask,
            "place": torch.from_numpy(place.reshape(-1).astype(np.int64)),
            "reader": torch.from_numpy(first % len(batch)),
        }
        if self._kept is not None:
            tensors["kept"] = self._kept.padded(texts, tokens.attention_mask)
        return tensors


@final
class FeatureCollator:
    """Makes the tensors of a batch of comparisons whose texts are known by their frozen features.

    Args:
        pooled: pooled hidden states of the texts [R, H].
        comparisons: the comparisons; `user` refers to rows of `users`.
        users: user embeddings [U, D].
    """

    def __init__(self, pooled: Tensor, comparisons: Comparisons, users: Tensor) -> None:
        self._pooled = pooled
        self._comparisons = comparisons
        self._users = users

    def __call__(self, rows: IntArray) -> dict[str, Tensor]:
        """Return the arguments of `BradleyTerryObjective` for rows of the comparisons."""
        batch = self._comparisons.take(rows)
        texts, place = np.unique(np.concatenate([batch.chosen, batch.rejected]), return_inverse=True)
        tensors = who_judges(batch, self._users)
        tensors["pooled"] = self._pooled[torch.from_numpy(texts)]
        tensors["place"] = torch.from_numpy(place.astype(np.int64))
        return tensors


def who_judges(batch: Comparisons, users: Tensor) -> dict[str, Tensor]:
    """The tensors of the users of some comparisons, and of the comparisons' weights."""
    rows = torch.from_numpy(batch.user)
    return {"users": users[rows], "user_rows": rows, "weight": torch.from_numpy(batch.weight).float()}


def alike(attention_mask: Tensor) -> list[Tensor]:
    """Divide the rows of a batch padded on the right into parts of similar length, where that saves much padding.

    On a processor a part costs what its tokens cost; an accelerator is quicker with the whole batch.

    Args:
        attention_mask: mask of the texts [T, L].

    Returns:
        the rows of each part; all of them in one part where dividing saves less than 15 % of the places.
    """
    every = torch.arange(len(attention_mask))
    if len(every) <= _PART or attention_mask.device.type != "cpu":
        return [every]
    lengths = attention_mask.sum(dim=1)
    parts = list(torch.split(lengths.argsort(stable=True), _PART))
    places = sum(len(part) * int(lengths[part].max()) for part in parts)
    return parts if places <= _WORTH_DIVIDING * attention_mask.numel() else [every]
