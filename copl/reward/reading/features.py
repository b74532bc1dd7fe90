"""Frozen features: the pooled hidden states of the backbone without adapters.

`copl.reward.reading.frozen_texts` keeps them as a stage that all methods share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, final

import numpy as np
import torch
from attrs import evolve, frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from copl.interfaces import Progress
from copl.records import ResponseTable
from copl.reward.backbones.loaded import EncodedResponses, LoadedBackbone, collate, encode_responses, pool
from copl.reward.reading.cached import FrozenTrunk, HiddenCache
from copl.reward.reading.memory import told_when_memory_is_short
from copl.system.files import write_atomically

if TYPE_CHECKING:
    from copl.records import IntArray

_TOKENS_PER_BATCH = 4096
_FILE = "frozen.safetensors"


class Read(Protocol):
    """Reads texts by the frozen backbone."""

    def __call__(self, responses: ResponseTable, rows: IntArray, /) -> Tensor:
        """Return the frozen features [N, H] of the responses at `rows` [N]."""
        ...


class SharedFeatures(Protocol):
    """Frozen features of the texts of a data set that are computed once for many."""

    def __call__(self, rows: IntArray, read: Read, /) -> Tensor:
        """Return the features [N, H] of the responses at `rows` [N], reading what is still to be read by `read`."""
        ...


@final
@frozen(eq=False)
class FrozenPass:
    """What one pass of the frozen backbone over all responses leaves.

    Attributes:
        pooled: pooled hidden states [R, H], float32.
        kept: hidden states below the adapted layers, where there is a trunk.
    """

    pooled: Tensor
    kept: HiddenCache | None


def length_batches(lengths: IntArray, tokens: int = _TOKENS_PER_BATCH) -> Iterator[IntArray]:
    """Yield places of texts of similar length, as many as fit into `tokens` with padding."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, tokens // max(1, int(lengths[order[start]])))
        yield np.ascontiguousarray(order[start : start + count])
        start += count


@final
@frozen(eq=False)
class _Keep:
    """What is kept of a pass beside the features.

    Attributes:
        trunk: the layers whose output is kept.
        cache: where it goes.
        place: the place of each text in the cache, -1 for a text that is not to be kept [N].
    """

    trunk: FrozenTrunk
    cache: HiddenCache
    place: IntArray

    def put(self, places: IntArray, states: Tensor, attention_mask: Tensor) -> None:
        """Keep the states [B, L, H] of the texts at `places` [B]."""
        goal = self.place[places]
        here = np.flatnonzero(goal >= 0)
        wanted = torch.from_numpy(here)
        self.cache.put(goal[here], states[wanted.to(states.device)], attention_mask[wanted])


def frozen_pass(
    backbone: LoadedBackbone,
    encoded: EncodedResponses,
    trunk: FrozenTrunk | None,
    *,
    directory: Path,
    progress: Progress,
    shared: SharedFeatures | None = None,
    rows: IntArray | None = None,
    resumable: bool = False,
) -> FrozenPass:
    """Run the backbone, before it carries adapters, over all texts, and keep what adapters on its top layers need.

    Hidden states are as large as all tokens together and serve one training, so they are not shared as features are.
    Where the features are still to be computed, the hidden states are kept in the same pass; where they are there
    already, only the layers below the adapted ones are run.

    Args:
        backbone: the backbone.
        encoded: the texts.
        trunk: the frozen layers whose output is to be kept, if any.
        directory: where hidden states go that do not fit into memory.
        progress: where to show progress.
        shared: takes the features from where they are computed once for many; None computes those of `encoded` alone.
        rows: the row of each text in the table that `shared` reads [R]; 0 to R - 1 unless given.
        resumable: whether to leave what there is with a trunk in `directory` too, and to take it from there.

    Raises:
        TrainingError: memory is exhausted.
    """
    if trunk is None:
        return FrozenPass(_features(backbone, encoded, None, shared, rows, progress), None)
    kept = HiddenCache(encoded.lengths, backbone.state_size, backbone.model.dtype, directory)
    name = _digest(backbone, encoded, trunk)
    left = _restored(directory / _FILE, name, kept) if resumable else None
    if left is None:
        pooled = _features(backbone, encoded, _Keep(trunk, kept, np.arange(len(encoded))), shared, rows, progress)
    elif shared is None:
        pooled = left
    else:  # asked for all the same: where there are several processes, they wait for one another there
        pooled = _features(backbone, encoded, None, shared, rows, progress)
    if resumable and left is None:
        _leave(directory / _FILE, name, pooled, kept)
    return FrozenPass(pooled, kept)


def _features(
    backbone: LoadedBackbone,
    encoded: EncodedResponses,
    keep: _Keep | None,
    shared: SharedFeatures | None,
    rows: IntArray | None,
    progress: Progress,
) -> Tensor:
    """Return the features of the texts, shared ones where there are such, and keep what is to be kept."""
    if shared is None:
        return _read(backbone, encoded, progress, keep)
    own = np.arange(len(encoded)) if rows is None else rows
    all_kept = keep is None

    def read(responses: ResponseTable, asked: IntArray) -> Tensor:
        nonlocal all_kept
        there = encode_responses(backbone, responses, asked, encoded.max_length)
        found = _read(backbone, there, progress, None if keep is None else evolve(keep, place=_places(asked, own)))
        all_kept = all_kept or bool(np.isin(own, asked).all())
        return found

    pooled = shared(own, read)
    if keep is not None and not all_kept:
        with keep.trunk.alone():
            _read(backbone, encoded, progress, keep)
    return pooled


def pooled_features(
    backbone: LoadedBackbone, responses: ResponseTable, rows: IntArray, *, max_length: int, progress: Progress
) -> Tensor:
    """Return the frozen features [N, H] of some responses.

    Args:
        backbone: the backbone; it reads on the device it is on.
        responses: the responses.
        rows: which of them [N]; each is read once, so repeated rows are repeated work.
        max_length: limit in tokens of prompt and response together.
        progress: where to show progress.

    Raises:
        BackboneError: the chat template refuses a prompt, or the limit leaves no room for a response.
        TrainingError: memory is exhausted.
    """
    return _read(backbone, encode_responses(backbone, responses, rows, max_length), progress, None)


@torch.no_grad()
def _read(backbone: LoadedBackbone, encoded: EncodedResponses, progress: Progress, keep: _Keep | None) -> Tensor:
    """Return the pooled hidden states [N, H] of all texts, float32, on the processor."""
    model = backbone.model
    pooled = torch.zeros(len(encoded), backbone.hidden_size)
    reading = told_when_memory_is_short("reading responses")
    with reading, progress.task("reading responses", len(encoded)) as task:
        for places in length_batches(encoded.lengths):
            tokens = collate(encoded, places)
            inputs = {
                "input_ids": tokens.input_ids.to(model.device),
                "attention_mask": tokens.attention_mask.to(model.device),
            }
            if keep is None:
                hidden = model(**inputs).last_hidden_state
            else:
                with keep.trunk.keeping() as states:
                    hidden = model(**inputs).last_hidden_state
                keep.put(places, states[0], tokens.attention_mask)
            pooled[torch.from_numpy(places)] = pool(hidden, inputs["attention_mask"], backbone.pooling).float().cpu()
            task.advance(len(places))
    return pooled


def _places(asked: IntArray, own: IntArray) -> IntArray:
    """Return the place in `own` of each row of `asked`, -1 where it is not there."""
    places = {row: place for place, row in enumerate(own.tolist())}
    return np.array([places.get(row, -1) for row in asked.tolist()], dtype=np.int64)


def _digest(backbone: LoadedBackbone, encoded: EncodedResponses, trunk: FrozenTrunk) -> str:
    """A name for the result of a pass; the weights are those that the directory was made for."""
    digest = hashlib.sha256(encoded.ids.tobytes())
    digest.update(encoded.offsets.tobytes())
    digest.update(repr((trunk.layers, backbone.pooling, backbone.hidden_size, str(backbone.model.dtype))).encode())
    return digest.hexdigest()


def _leave(path: Path, name: str, pooled: Tensor, kept: HiddenCache) -> None:
    """Write what was computed; hidden states that are in a file are there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"pooled": pooled, **({"hidden": kept.flat} if kept.in_memory else {})}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata={"of": name}))


def _restored(path: Path, name: str, kept: HiddenCache) -> Tensor | None:
    """Fill in the hidden states that an earlier run left and return the features, where it did."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("of") != name:
                return None
            if kept.in_memory:
                kept.flat.copy_(file.get_tensor("hidden"))
            pooled: Tensor = file.get_tensor("pooled")
    except (OSError, SafetensorError):  # none, or a damaged one: computed again
        return None
    return pooled
