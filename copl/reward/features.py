"""Frozen features: the pooled hidden states of the backbone without adapters, once for each distinct response."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from copl.interfaces import Progress
from copl.reward.backbone import EncodedResponses, LoadedBackbone, collate, pool
from copl.reward.cached import FrozenTrunk, HiddenCache

if TYPE_CHECKING:
    from copl.records import IntArray

_TOKENS_PER_BATCH = 4096


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
) -> FrozenPass:
    """Run the backbone, before it carries adapters, over all texts.

    Args:
        backbone: the backbone.
        encoded: the texts.
        trunk: the frozen layers whose output is to be kept, if any.
        directory: where hidden states go that do not fit into memory.
        progress: where to show progress.
    """
    model = backbone.model
    pooled = torch.zeros(len(encoded), backbone.hidden_size)
    kept = None if trunk is None else HiddenCache(encoded.lengths, backbone.hidden_size, model.dtype, directory)
    with progress.task("reading responses", len(encoded)) as task:
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
    return FrozenPass(pooled, kept)
