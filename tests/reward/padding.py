from __future__ import annotations

import torch

from copl.records import TokenBatch


def on_the_left(batch: TokenBatch) -> TokenBatch:
    """The same texts with their padding at the front instead of the end."""
    shift = (batch.attention_mask == 0).sum(dim=1, keepdim=True)
    width = batch.input_ids.shape[1]
    places = (torch.arange(width) - shift) % width
    return TokenBatch(batch.input_ids.gather(1, places), batch.attention_mask.gather(1, places))
