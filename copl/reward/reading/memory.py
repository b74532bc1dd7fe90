"""Memory that runs out, as a message that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from copl.errors import TrainingError

_ADVICE = (
    "lower reward.batch_size and raise reward.gradient_accumulation, lower reward.max_length, set "
    "reward.gradient_checkpointing, reward.trainable_layers or reward.mode=frozen; nothing was saved"
)
# torch has a class of its own only for what happens on an accelerator
_ON_PROCESSOR = ("can't allocate memory", "not enough memory")


@contextmanager
def told_when_memory_is_short(doing: str) -> Iterator[None]:
    """Turn an allocation that fails while `doing` something into a `TrainingError` with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(m in str(error) for m in _ON_PROCESSOR):
            raise TrainingError(f"memory exhausted in {doing}; {_ADVICE}") from error
        raise
