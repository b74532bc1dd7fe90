"""Where training stands, in one file: what a run that was killed goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from copl.errors import RunError
from copl.reward.training.curve import CurvePoint
from copl.system.documents import to_json
from copl.system.processes import gathered, is_main, rank
from copl.system.tensors import ANY_FLOATS, Expected, content_checksum, like, load_tensors, save_tensors

_ADVICE = "delete it to start training over"
_ANY_INTEGERS = Expected("int", None)
_NOW, _BEST, _OPTIMIZER, _RANDOM = "now/", "best/", "optimizer/", "random/"


@final
@frozen
class _Header:
    curve: tuple[CurvePoint, ...]
    content: str | None = None  # checkpoints of earlier versions have no checksum


@final
@frozen(eq=False)
class Checkpoint:
    """Where training stands after a look.

    Attributes:
        curve: the looks so far; the last one was taken at this step.
        now: what is trained, by name.
        best: the same at the best look.
        optimizer: the optimiser's state, by the name of what is trained and that of the quantity.
        random: state of the random generators of this process.
    """

    curve: tuple[CurvePoint, ...]
    now: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    random: Mapping[str, Tensor]

    def save(self, path: Path) -> None:
        """Write it in the main process, with the random generators of all; every process has to call this.

        Nothing but this one file is needed to go on, so a kill leaves the former one or this one.
        """
        others = gathered(dict(self.random))
        parts = {_NOW: self.now, _BEST: self.best, _OPTIMIZER: self.optimizer}
        parts |= {f"{_RANDOM}{number}/": states for number, states in enumerate(others)}
        tensors = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}
        if is_main():
            save_tensors(path, tensors, header=_Header(self.curve, _checksum(self.curve, tensors)))

    @classmethod
    def load(cls, path: Path, trained: Mapping[str, Tensor]) -> Checkpoint:
        """Read it, with the random generators of this process.

        Args:
            path: the file.
            trained: what is trained, by name.

        Raises:
            RunError: the file is damaged, of another model, or was left by fewer processes.
        """
        expected = {part + name: like(tensor) for name, tensor in trained.items() for part in (_NOW, _BEST)}
        others = {_OPTIMIZER: ANY_FLOATS, _RANDOM: _ANY_INTEGERS}
        file = load_tensors(path, expected, advice=_ADVICE, others=others)
        header = file.read_header(_Header, advice=_ADVICE)
        if header.content not in (None, _checksum(header.curve, file.tensors)):
            raise RunError(f"{path}: damaged (its checksum differs); {_ADVICE}")
        parts = [file.below(part) for part in (_NOW, _BEST, _OPTIMIZER, f"{_RANDOM}{rank()}/")]
        if not parts[-1]:
            raise RunError(f"{path}: was left by fewer processes than train now; {_ADVICE}")
        return cls(header.curve, *parts)


def _checksum(curve: Sequence[CurvePoint], tensors: Mapping[str, Tensor]) -> str:
    return content_checksum(to_json([attrs.asdict(point) for point in curve]), tensors)


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters that are trained, by name, on the processor."""
    return {n: p.detach().to("cpu", copy=True).contiguous() for n, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trainable(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put what `trainable` returned into the model."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(tensors[name])


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimiser, by the names of the parameters of `model`."""
    return {
        f"{name}/{quantity}": value.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Put what `optimizer_state` returned into an optimiser of the same model."""
    parameters = dict(model.named_parameters())
    for key, value in state.items():
        name, _, quantity = key.rpartition("/")
        parameter = parameters[name]
        optimizer.state[parameter][quantity] = value.to(parameter.device, copy=True)


def random_state() -> dict[str, Tensor]:
    """Return the state of torch's global generators of this process."""
    states = {"processor": torch.get_rng_state()}
    return {**states, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else states


def set_random_state(states: Mapping[str, Tensor]) -> None:
    """Put torch's global generators back to where `random_state` found them."""
    torch.set_rng_state(states["processor"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
