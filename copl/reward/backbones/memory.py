"""What a causal model keeps of the tokens it has read, under the name that the installed transformers has for it."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def memory_argument() -> str:
    """Return the name of the argument, and of the output: `cache` since transformers 5.24, `past_key_values` before."""
    from transformers.utils import ModelOutput

    # Outputs have the former name as a property from the version on that renamed it.
    return "cache" if hasattr(ModelOutput, "past_key_values") else "past_key_values"


def memory_of(output: Any) -> Any:
    """Return what the model keeps of the tokens behind an output, None where it keeps nothing."""
    return output.get(memory_argument())
