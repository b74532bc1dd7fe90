"""Several processes that train one model (``torchrun``, ``accelerate launch``): who writes, and who waits.

With one process, which is the rule, every function here returns at once and loads nothing.
"""

from __future__ import annotations

import os
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


def agree(value: T) -> T:
    """Return the main process's value in every process."""
    if num_processes() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    _group()
    shared: list[T] = broadcast_object_list([value], from_process=0)
    return shared[0]


def wait() -> None:
    """Return once every process has come here."""
    if num_processes() > 1:
        _group().wait_for_everyone()


def _group() -> Any:
    """The group of all processes, which is joined where that has not happened yet."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())
