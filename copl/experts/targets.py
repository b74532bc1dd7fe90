"""Finding the modules of a backbone that LoRA adapts, by looking at their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn
from transformers.pytorch_utils import Conv1D

from copl.errors import BackboneError, suggest

# Query and value projections as the architectures name them, fused projections last. The first that exist are taken.
_CONVENTIONS: tuple[tuple[str, ...], ...] = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q_lin", "v_lin"),
    ("query_proj", "value_proj"),
    ("Wqkv",),
    ("query_key_value",),
    ("qkv_proj",),
    ("c_attn",),
)


def _linear_paths(model: nn.Module) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def linear_module_names(model: nn.Module) -> list[str]:
    """Return the last names of all linear modules of `model`, each once, in order: ``q_proj``, ``down_proj``, ..."""
    return list(dict.fromkeys(path.rpartition(".")[2] for path in _linear_paths(model)))


def _matches(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def default_target_modules(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the query and value projections of `model`.

    Raises:
        BackboneError: none of the usual names occurs; the message lists the names that do.
    """
    present = set(linear_module_names(model))
    for names in _CONVENTIONS:
        if present.issuperset(names):
            return names
    raise BackboneError(
        f"cannot tell which modules of {type(model).__name__} to adapt; "
        f"set target_modules to some of its linear modules: {', '.join(sorted(present)) or '(it has none)'}"
    )


def require_target_modules(model: nn.Module, names: Iterable[str]) -> None:
    """Check that every name belongs to a linear module of `model`.

    Raises:
        BackboneError: one fault for each name that does not, listing the names that do.
    """
    paths, present = _linear_paths(model), linear_module_names(model)
    faults = [
        f"target module {name!r} is not in {type(model).__name__}{suggest(name, present)}; "
        f"its linear modules are {', '.join(sorted(present)) or '(none)'}"
        for name in names
        if not any(_matches(path, name) for path in paths)
    ]
    if faults:
        raise BackboneError(faults)


def layers_of(model: nn.Module, names: Iterable[str]) -> tuple[list[str], set[int]]:
    """Return the names of the module lists that hold the target modules, such as ``layers``, and their places there."""
    wanted = tuple(names)
    found = (
        re.match(r"(?:.*?\.)??([^.]+)\.(\d+)\.", path)
        for path in _linear_paths(model)
        if any(_matches(path, name) for name in wanted)
    )
    places = [(match.group(1), int(match.group(2))) for match in found if match]
    return list(dict.fromkeys(name for name, _ in places)), {index for _, index in places}


def stored_transposed(model: nn.Module, names: Iterable[str]) -> bool:
    """Return whether the target modules keep their weight as [in, out], as GPT-2's do."""
    wanted = tuple(names)
    return any(
        isinstance(module, Conv1D) and any(_matches(path, name) for name in wanted)
        for path, module in model.named_modules()
    )
