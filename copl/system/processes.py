"""Several processes that train one model (``torchrun``, ``accelerate launch``): who writes, and who waits.

With one process, which is the rule, every function here returns at once and loads nothing.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def num_processes() -> int:
    """Return how many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if num_processes() > 1 else 0


def is_main() -> bool:
    """Return whether this is the process that writes."""
    return rank() == 0


@cache
def weights_are_split() -> bool:
    """Return whether the frozen weights are split up among the processes (FSDP), as the launcher asks for.

    ``accelerate launch --use_fsdp`` sets ACCELERATE_USE_FSDP, and so can who uses ``torchrun``. The variable is taken
    out of the environment here: Accelerate would split up what is trained as well (and nothing at all where there is
    no accelerator), and transformers would load weights in one process alone.
    """
    asked = os.environ.pop("ACCELERATE_USE_FSDP", "").lower() in ("true", "1")
    return asked and num_processes() > 1


def agree(value: T) -> T:
    """Return the main process's value in every process."""
    if num_processes() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    _group()
    shared: list[T] = broadcast_object_list([value], from_process=0)
    return shared[0]


def gathered(value: T) -> list[T]:
    """Return the values of all processes, in their order, in every process."""
    if num_processes() == 1:
        return [value]
    from accelerate.utils import gather_object

    _group()
    values: list[T] = gather_object([value])
    return values


def wait() -> None:
    """Return once every process has come here."""
    if num_processes() > 1:
        _group().wait_for_everyone()


def _group() -> Any:
    """The group of all processes, which is joined where that has not happened yet."""
    import torch
    from accelerate import PartialState

    weights_are_split()  # asked before anything of Accelerate or transformers looks
    return PartialState(cpu=not torch.cuda.is_available())
