"""Passes of the frozen backbone over texts: all of its layers, those below the adapted ones, or those above alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from copl.interfaces import Progress
from copl.reward.backbones.loaded import EncodedResponses, LoadedBackbone, collate, pool
from copl.reward.reading.kept import UnevenRows
from copl.reward.reading.memory import told_when_memory_is_short
from copl.reward.reading.trunk import FrozenTrunk

if TYPE_CHECKING:
    from copl.records import IntArray

_TOKENS_PER_BATCH = 4096
_BYTES_AT_ONCE = 64 << 20


@final
@frozen(eq=False)
class Read:
    """What a pass made of some texts.

    Attributes:
        places: which texts [B].
        pooled: their pooled hidden states [B, H], float32; None where the upper layers were left out.
        states: hidden states of all their tokens below the adapted layers [S, H]; None where they are not wanted.
    """

    places: IntArray
    pooled: Tensor | None
    states: Tensor | None


def length_batches(lengths: IntArray, tokens: int = _TOKENS_PER_BATCH) -> Iterator[IntArray]:
    """Yield places of texts of similar length, as many as fit into `tokens` with padding."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, tokens // max(1, int(lengths[order[start]])))
        yield np.ascontiguousarray(order[start : start + count])
        start += count


def whole_pass(backbone: LoadedBackbone, encoded: EncodedResponses, trunk: FrozenTrunk | None) -> Iterator[Read]:
    """Run all layers over the texts, and keep the states below the adapted ones where there is a `trunk`."""
    for places, inputs in _batches(backbone, encoded):
        with ExitStack() as stack:
            kept = None if trunk is None else stack.enter_context(trunk.keeping())
            hidden = backbone.model(**inputs).last_hidden_state
        states = None if kept is None else kept[0][inputs["attention_mask"].bool()].cpu()
        yield Read(places, _pooled(backbone, hidden, inputs), states)


def lower_pass(backbone: LoadedBackbone, encoded: EncodedResponses, trunk: FrozenTrunk) -> Iterator[Read]:
    """Run the layers below the adapted ones alone."""
    for places, inputs in _batches(backbone, encoded):
        with trunk.alone(), trunk.keeping() as kept:
            backbone.model(**inputs)
        yield Read(places, None, kept[0][inputs["attention_mask"].bool()].cpu())


def upper_pass(
    backbone: LoadedBackbone, encoded: EncodedResponses, trunk: FrozenTrunk, states: UnevenRows
) -> Iterator[Read]:
    """Go on from the states of the texts, which are there already."""
    for places, inputs in _batches(backbone, encoded):
        kept = states.padded_to(places, inputs["attention_mask"].shape[1]).to(backbone.model.device)
        with trunk.replaying(kept):
            hidden = backbone.model(**inputs).last_hidden_state
        yield Read(places, _pooled(backbone, hidden, inputs), None)


@torch.no_grad()
def take(reads: Iterator[Read], count: int, progress: Progress, put: Callable[[Read], None]) -> None:
    """Go through a pass over `count` texts and `put` what it makes away, a few megabytes at a time.

    Raises:
        TrainingError: memory is exhausted.
    """
    waiting: list[Read] = []
    size = 0
    with told_when_memory_is_short("reading responses"), progress.task("reading responses", count) as task:
        for read in reads:
            waiting.append(read)
            size += sum(part.nbytes for part in (read.pooled, read.states) if part is not None)
            if size >= _BYTES_AT_ONCE:
                put(_joined(waiting))
                waiting, size = [], 0
            task.advance(len(read.places))
        if waiting:
            put(_joined(waiting))


def _batches(backbone: LoadedBackbone, encoded: EncodedResponses) -> Iterator[tuple[IntArray, dict[str, Tensor]]]:
    device = backbone.model.device
    for places in length_batches(encoded.lengths):
        tokens = collate(encoded, places)
        yield places, {"input_ids": tokens.input_ids.to(device), "attention_mask": tokens.attention_mask.to(device)}


def _pooled(backbone: LoadedBackbone, hidden: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    return pool(hidden, inputs["attention_mask"], backbone.pooling).float().cpu()


def _joined(reads: list[Read]) -> Read:
    pooled = [read.pooled for read in reads if read.pooled is not None]
    states = [read.states for read in reads if read.states is not None]
    places = np.concatenate([read.places for read in reads])
    return Read(places, torch.cat(pooled) if pooled else None, torch.cat(states) if states else None)


def by_texts(rows: IntArray, at_once: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield some of the distinct texts at a time, in order, with the places in `rows` of those that ask for them."""
    texts, text = np.unique(rows, return_inverse=True)
    order = np.argsort(text.reshape(-1), kind="stable")
    ends = np.searchsorted(text.reshape(-1)[order], np.arange(len(texts)), side="right")
    for start in range(0, len(texts), at_once):
        some = texts[start : start + at_once]
        yield some, order[(ends[start - 1] if start else 0) : ends[start + len(some) - 1]]
