"""Optimisers of torch without its compiler, which the first one in a process brings in: 2.4 s of processor.

torch wraps the methods below so that its compiler leaves them alone, and imports the compiler to say so. Nothing here
is compiled, and one who trains a small graph, or adapts one user, waits longer for that import than for the work.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch.optim import Optimizer

    Kind = TypeVar("Kind", bound=Optimizer)

_WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def eager(kind: type[Kind]) -> type[Kind]:
    """Return a class of optimisers that does what `kind` does, step by step, and is one of its kind."""
    import torch

    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED}
    step = torch.no_grad()(inspect.unwrap(kind.step))  # what wraps the step turns gradients off as well
    return type(kind.__name__, (kind,), {**methods, "step": step})
