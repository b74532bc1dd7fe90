"""Memory that runs out, as a message that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from copl.errors import TrainingError

_ADVICE = (
    "lower reward.batch_size and raise reward.gradient_accumulation, lower reward.max_length, set "
    "reward.gradient_checkpointing, reward.trainable_layers or reward.mode=frozen; nothing was saved"
)
# torch, which is not loaded for this, has a class of its own only for what happens on an accelerator
_ON_ACCELERATOR = "OutOfMemoryError"
_ON_PROCESSOR = ("can't allocate memory", "not enough memory", "size calculation overflowed")


@contextmanager
def told_when_memory_is_short(doing: str, advice: str = _ADVICE) -> Iterator[None]:
    """Turn an allocation that fails while `doing` something into a `TrainingError` with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        on_accelerator = type(error).__name__ == _ON_ACCELERATOR
        if isinstance(error, MemoryError) or on_accelerator or any(m in str(error) for m in _ON_PROCESSOR):
            raise TrainingError(f"memory exhausted in {doing}; {advice}") from error
        raise
