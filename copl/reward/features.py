"""Frozen features: the pooled hidden states of the backbone without adapters, once for each distinct response."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from copl.files import write_atomically
from copl.interfaces import Progress
from copl.records import ResponseTable
from copl.reward.backbone import EncodedResponses, LoadedBackbone, collate, encode_responses, pool
from copl.reward.cached import FrozenTrunk, HiddenCache
from copl.reward.memory import told_when_memory_is_short

if TYPE_CHECKING:
    from copl.records import IntArray

_TOKENS_PER_BATCH = 4096
_FILE = "frozen.safetensors"


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


@torch.no_grad()
def frozen_pass(
    backbone: LoadedBackbone,
    encoded: EncodedResponses,
    trunk: FrozenTrunk | None,
    *,
    directory: Path,
    progress: Progress,
    resumable: bool = False,
) -> FrozenPass:
    """Run the backbone, before it carries adapters, over all texts.

    Args:
        backbone: the backbone.
        encoded: the texts.
        trunk: the frozen layers whose output is to be kept, if any.
        directory: where hidden states go that do not fit into memory.
        progress: where to show progress.
        resumable: whether to leave the result in `directory` too, and to take it from there where it is.

    Raises:
        TrainingError: memory is exhausted.
    """
    model, name = backbone.model, _digest(backbone, encoded, trunk)
    pooled = torch.zeros(len(encoded), backbone.hidden_size)
    kept = None if trunk is None else HiddenCache(encoded.lengths, backbone.hidden_size, model.dtype, directory)
    if resumable and _read(directory / _FILE, name, pooled, kept):
        return FrozenPass(pooled, kept)
    reading = told_when_memory_is_short("reading responses")
    with reading, progress.task("reading responses", len(encoded)) as task:
        for places in length_batches(encoded.lengths):
            tokens = collate(encoded, places)
            inputs = {
                "input_ids": tokens.input_ids.to(model.device),
                "attention_mask": tokens.attention_mask.to(model.device),
            }
            if trunk is None or kept is None:
                hidden = model(**inputs).last_hidden_state
            else:
                with trunk.keeping() as states:
                    hidden = model(**inputs).last_hidden_state
                kept.put(places, states[0], tokens.attention_mask)
            pooled[torch.from_numpy(places)] = pool(hidden, inputs["attention_mask"], backbone.pooling).float().cpu()
            task.advance(len(places))
    if resumable:
        _write(directory / _FILE, name, pooled, kept)
    return FrozenPass(pooled, kept)


def _digest(backbone: LoadedBackbone, encoded: EncodedResponses, trunk: FrozenTrunk | None) -> str:
    """A name for the result of a pass; the weights are those that the directory was made for."""
    digest = hashlib.sha256(encoded.ids.tobytes())
    digest.update(encoded.offsets.tobytes())
    layers = None if trunk is None else trunk.layers
    digest.update(repr((layers, backbone.pooling, backbone.hidden_size, str(backbone.model.dtype))).encode())
    return digest.hexdigest()


def _write(path: Path, name: str, pooled: Tensor, kept: HiddenCache | None) -> None:
    """Leave what was computed; hidden states that are in a file are there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"pooled": pooled}
    if kept is not None and kept.in_memory:
        tensors["hidden"] = kept.flat
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata={"of": name}))


def _read(path: Path, name: str, pooled: Tensor, kept: HiddenCache | None) -> bool:
    """Fill in what an earlier run left, where it did."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("of") != name:
                return False
            pooled.copy_(file.get_tensor("pooled"))
            if kept is not None and kept.in_memory:
                kept.flat.copy_(file.get_tensor("hidden"))
    except (OSError, SafetensorError):  # none, or a damaged one: computed again
        return False
    return True


def pooled_features(
    backbone: LoadedBackbone, responses: ResponseTable, rows: IntArray, *, max_length: int, progress: Progress
) -> Tensor:
    """Return the frozen features [N, H] of some responses: what a method builds on that trains no adapter.

    Args:
        backbone: the backbone; moved to the accelerator where there is one.
        responses: the responses.
        rows: which of them [N]; each is read once, so repeated rows are repeated work.
        max_length: limit in tokens of prompt and response together.
        progress: where to show progress.

    Raises:
        BackboneError: the chat template refuses a prompt, or the limit leaves no room for a response.
    """
    if torch.cuda.is_available():
        backbone.model.to("cuda")
    encoded = encode_responses(backbone, responses, rows, max_length)
    return frozen_pass(backbone, encoded, None, directory=Path(), progress=progress).pooled
