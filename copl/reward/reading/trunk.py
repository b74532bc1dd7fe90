"""Adapting only the top layers: the hidden states below them never change, so they are computed once a response.

Responses recur across users and epochs. `FrozenTrunk` runs a transformer up to its first adapted layer, and later goes
on from there; embeddings, masks and positions are the model's own, so any architecture works whose layers form one
module list and take the hidden states as first argument. `check_replay` proves that on the model at hand.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from copl.errors import BackboneError
from copl.records import TokenBatch
from copl.reward.backbones.loaded import apart

_TOLERANCE = 1e-4  # whatever the precision: the same sums in the same order
_SPECIMEN = 12  # tokens


@final
class KeptStates(threading.local):
    """Hidden states that were kept in calls of the model; each thread has those of its own calls."""

    def __init__(self) -> None:
        self._states: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, place: int) -> Tensor:
        return self._states[place]

    def append(self, states: Tensor) -> None:
        """Keep the states [B, L, H] of one more call."""
        self._states.append(states)

    def pop(self) -> Tensor:
        """Return the states of the latest call, and keep them no more."""
        return self._states.pop()


@final
class FrozenTrunk:
    """The layers of a transformer below its top `trainable_layers`.

    Args:
        model: the transformer; may carry adapters in the top layers.
        num_layers: number of its layers.
        trainable_layers: how many of the top layers are adapted.

    Raises:
        BackboneError: the layers cannot be told apart from the rest, or there are not that many.
    """

    def __init__(self, model: nn.Module, num_layers: int, trainable_layers: int) -> None:
        if not 0 < trainable_layers < num_layers:
            raise BackboneError(
                f"reward.trainable_layers is {trainable_layers}, but {type(model).__name__} has {num_layers} layers; "
                f"give 1 to {num_layers - 1}, or 0 to adapt all"
            )
        lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == num_layers]
        if len(lists) != 1:
            raise BackboneError(
                f"cannot find the {num_layers} layers of {type(model).__name__}; set reward.trainable_layers to 0"
            )
        layers = list(lists[0])
        self._below, self._above = layers[: num_layers - trainable_layers], layers[num_layers - trainable_layers :]
        self._first = self._above[0]
        self.layers = tuple(range(num_layers - trainable_layers, num_layers))
        self._beside: tuple[None, ...] | None = None

    @contextmanager
    def keeping(self) -> Iterator[KeptStates]:
        """Collect the hidden states that enter the first adapted layer in every call of the model."""
        kept = KeptStates()

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kept.append((args[0] if args else kwargs["hidden_states"]).detach())

        def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._beside = (None,) * (len(output) - 1) if isinstance(output, tuple) else None

        with ExitStack() as stack:
            stack.callback(self._first.register_forward_pre_hook(keep, with_kwargs=True).remove)
            stack.callback(self._below[-1].register_forward_hook(note).remove)
            yield kept

    @contextmanager
    def replaying(self, kept: Tensor) -> Iterator[None]:
        """Make calls of the model skip the frozen layers and go on from the hidden states `kept` [B, L, H]."""

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (kept, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": kept}

        with self._skipping(self._below), ExitStack() as stack:
            stack.callback(self._first.register_forward_pre_hook(enter, with_kwargs=True).remove)
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make calls of the model skip the layers above the frozen ones, for `keeping` and nothing else."""
        with self._skipping(self._above):
            yield

    @contextmanager
    def _skipping(self, layers: Sequence[Any]) -> Iterator[None]:
        def passed(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            return hidden_states if self._beside is None else (hidden_states, *self._beside)

        with ExitStack() as stack:
            for layer in layers:
                stack.callback(delattr, layer, "forward")
                layer.forward = passed
            yield


def check_replay(model: Any, trunk: FrozenTrunk) -> None:
    """Compare the plain and the cached way on two rows of tokens, one of them padded.

    Whether layers can be skipped depends on the transformer and not on what it reads.

    Raises:
        BackboneError: they differ by more than 1e-4 of the largest value, so this model cannot be cached.
    """
    size = int(model.config.get_text_config().vocab_size)
    ids = (torch.arange(2 * _SPECIMEN, device=model.device).reshape(2, -1) + 7) % size  # few of them special tokens
    attention = torch.ones_like(ids)
    attention[1, _SPECIMEN // 2 :] = 0
    tokens, mask = TokenBatch(ids, attention), attention.bool()
    reason = "its layers are not called as modules, one after the other"
    with torch.no_grad():
        with trunk.keeping() as kept:
            plain = _last_hidden(model, tokens)
        if kept and kept[0].shape[:2] == mask.shape:
            try:
                with trunk.replaying(kept[0]):
                    cached = _last_hidden(model, tokens)
                worst = apart(cached[mask], plain[mask])
                if worst <= _TOLERANCE:
                    return
                reason = f"they differ by {worst:.1e} of the largest value"
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                reason = f"{type(error).__name__}: {error}"
    raise BackboneError(
        f"hidden states of {type(model).__name__} cannot be cached ({reason}); set reward.trainable_layers to 0"
    )


def _last_hidden(model: Any, tokens: TokenBatch) -> Tensor:
    hidden: Tensor = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    return hidden
