"""Finding the modules of a backbone that LoRA adapts, by looking at their names."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from copl.errors import BackboneError, suggest

# Query and value projections as the architectures name them, fused projections last. The first that exist are taken.
_CONVENTIONS: tuple[tuple[str, ...], ...] = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q_lin", "v_lin"),
    ("query_proj", "value_proj"),
    ("q", "v"),
    ("Wq", "Wv"),
    ("q_proj", "kv_b_proj"),
    ("q_b_proj", "kv_b_proj"),
    ("Wqkv",),
    ("query_key_value",),
    ("qkv_proj",),
    ("c_attn",),
    ("in_proj",),
)


def _linear_paths(model: nn.Module) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, nn.Linear) or _is_transposed(module)]


def _is_transposed(module: nn.Module) -> bool:
    """Whether a module is GPT-2's linear layer, which keeps its weight as [in, out]."""
    code = sys.modules.get("transformers.pytorch_utils")  # whoever has made such a module has imported it
    return code is not None and isinstance(module, code.Conv1D)


def linear_module_names(model: nn.Module) -> list[str]:
    """Return the last names of all linear modules of `model`, each once, in order: ``q_proj``, ``down_proj``, ..."""
    return list(dict.fromkeys(path.rpartition(".")[2] for path in _linear_paths(model)))


def _matches(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


@contextmanager
def modules_called_otherwise(model: nn.Module, rows: int) -> Iterator[set[str]]:
    """Collect the names of linear modules that are called with something else than a row for each of `rows` texts.

    DeBERTa projects its relative positions by the same modules as the tokens, and some models put the tokens first: a
    mask for each text fits neither.
    """
    names: set[str] = set()

    def note(path: str, inputs: tuple[Any, ...]) -> None:
        if inputs and len(inputs[0]) != rows:
            names.add(path.rpartition(".")[2])

    with ExitStack() as stack:
        for path in _linear_paths(model):
            module = model.get_submodule(path)
            hook = module.register_forward_pre_hook(lambda _, inputs, path=path: note(path, inputs))
            stack.callback(hook.remove)
        yield names


def default_target_modules(model: nn.Module, *, without: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of the query and value projections of `model`; nothing where none of the usual names occurs.

    Args:
        model: the transformer.
        without: names that cannot be adapted.
    """
    present = set(linear_module_names(model))
    for names in _CONVENTIONS:
        fit = tuple(name for name in names if name not in without)
        if fit and present.issuperset(names):
            return fit
    return ()


def require_target_modules(model: nn.Module, names: Iterable[str], *, without: Collection[str] = ()) -> None:
    """Check that there are target modules, each the name of a linear module of `model` that can be adapted.

    Args:
        model: the transformer.
        names: the target modules.
        without: names that cannot be adapted, from `modules_called_otherwise`.

    Raises:
        BackboneError: there are none, or one fault for each name that does not, listing the names that do.
    """
    paths, names = _linear_paths(model), tuple(names)
    present = [name for name in linear_module_names(model) if name not in without]
    if not names:
        raise BackboneError(
            f"cannot tell which modules of {type(model).__name__} to adapt; "
            f"set mixture.target_modules to some of its linear modules: {', '.join(sorted(present)) or '(it has none)'}"
        )
    faults = [
        f"target module {name!r} is not in {type(model).__name__}{suggest(name, present)}; "
        f"its linear modules are {', '.join(sorted(present)) or '(none)'}"
        for name in names
        if not any(_matches(path, name) for path in paths)
    ]
    faults += [
        f"target module {name!r} of {type(model).__name__} does not read text after text, so it cannot differ between "
        f"users; others are {', '.join(sorted(present)) or '(none)'}"
        for name in names
        if name in without
    ]
    if faults:
        raise BackboneError(faults)


def layers_of(model: nn.Module, names: Iterable[str]) -> tuple[list[str], set[int]]:
    """Return the names of the module lists that hold the target modules, such as ``layers``, and their places there."""
    wanted = tuple(names)
    matches = (
        re.match(r"(?:.*?\.)??([^.]+)\.(\d+)\.", path)
        for path in _linear_paths(model)
        if any(_matches(path, name) for name in wanted)
    )
    places = [(match.group(1), int(match.group(2))) for match in matches if match]
    return list(dict.fromkeys(name for name, _ in places)), {index for _, index in places}


def stored_transposed(model: nn.Module, names: Iterable[str]) -> bool:
    """Return whether the target modules keep their weight as [in, out], as GPT-2's do."""
    wanted = tuple(names)
    return any(
        _is_transposed(module) and any(_matches(path, name) for name in wanted)
        for path, module in model.named_modules()
    )
