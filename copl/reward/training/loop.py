"""The loop that trains adapters: optimiser steps, looks at comparisons held out, a file to go on from after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from copl.errors import TrainingError
from copl.interfaces import Progress
from copl.options import options_to_dict
from copl.reward.options import RewardOptions
from copl.reward.reading.memory import told_when_memory_is_short
from copl.reward.training.checkpoint import (
    Checkpoint,
    load_optimizer_state,
    load_trainable,
    optimizer_state,
    random_state,
    set_random_state,
    trainable,
)
from copl.reward.training.curve import CurvePoint, best_of
from copl.reward.training.objective import BradleyTerryObjective
from copl.reward.training.trackers import Trackers
from copl.system.optimizers import eager
from copl.system.processes import agree, num_processes, rank, wait

if TYPE_CHECKING:
    from copl.records import IntArray

_MAX_GRADIENT_NORM = 1.0
_FILE = "checkpoint.safetensors"


class Looks(Protocol):
    """Measures a model that is being trained."""

    def __call__(self, step: int) -> CurvePoint:
        """Return how good the model is after `step` steps."""
        ...

    def notes(self) -> Mapping[str, float | str]:
        """Return what else there is to log of it."""
        ...


@final
class TrainingLoop:
    """Minimises `BradleyTerryObjective` by AdamW and ends with the weights of the best look.

    The learning rate rises from 0 over the first steps and then falls as a cosine. After `patience` looks without a
    lower loss training stops. Each look leaves a checkpoint that holds all there is to go on from, the looks among it:
    a run that was killed ends as if it had not been, also one that had stopped already.

    Args:
        objective: the model with its loss.
        options: how to train.
        batches: the batches of the whole run, those of a step one after the other; each process takes its part of them.
        collate: makes the tensors of a batch.
        looks: measures the model on comparisons it is not trained on.
        directory: where the checkpoint goes.
        progress: where to show progress and log the looks.
    """

    def __init__(
        self,
        objective: BradleyTerryObjective,
        options: RewardOptions,
        batches: Sequence[IntArray],
        collate: Callable[[IntArray], dict[str, Tensor]],
        *,
        looks: Looks,
        directory: Path,
        progress: Progress,
    ) -> None:
        self._objective = objective
        self._options = options
        self._batches = batches
        self._collate = collate
        self._looks = looks
        self._directory = directory
        self._progress = progress
        self._module = _averaged(objective) if num_processes() > 1 else objective
        self._optimizer = _optimizer(objective, options)
        self._best = trainable(objective)

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return len(self._batches) // (self._options.gradient_accumulation * num_processes())

    def run(self, start: CurvePoint, seed: int) -> tuple[CurvePoint, ...]:
        """Train, going on from the checkpoint where there is one, and leave the best weights in the model.

        Args:
            start: the model as it is, as measured.
            seed: of dropout and gate noise.

        Returns:
            all looks, `start` first.

        Raises:
            TrainingError: the loss is not finite, or memory is exhausted.
            RunError: the checkpoint is damaged.
            OptionsError: a tracker is unknown or not installed.
        """
        trackers = Trackers(self._options.report_to, self._directory, options_to_dict(self._options))
        torch.manual_seed(seed)
        curve = self._restored() or (start,)
        with (
            told_when_memory_is_short("training"),
            self._progress.task("training the reward model", self.num_steps) as task,
        ):
            task.advance(curve[-1].step)
            while curve[-1].step < self.num_steps and not self._has_stopped(curve):
                losses = []
                for step in self._until_next_look(curve[-1].step):
                    losses.append(self._step(step))
                    task.advance(loss=losses[-1])
                    trackers.log(step + 1, loss=losses[-1], learning_rate=self._optimizer.param_groups[0]["lr"])
                curve = self._look(curve, sum(losses) / len(losses), trackers)
        trackers.finish()
        wait()
        load_trainable(self._objective, self._best)
        return curve

    def _until_next_look(self, step: int) -> range:
        every = self._options.eval_every
        return range(step, min((step // every + 1) * every, self.num_steps))

    def _has_stopped(self, curve: Sequence[CurvePoint]) -> bool:
        best = best_of(curve).step
        return sum(point.step > best for point in curve) >= self._options.patience

    def _step(self, step: int) -> float:
        """Take one optimiser step and return the loss."""
        per_step = self._options.gradient_accumulation * num_processes()
        own = self._batches[step * per_step : (step + 1) * per_step]
        total = 0.0
        self._objective.train()
        for place in range(rank(), len(own), num_processes()):
            is_last = place + num_processes() >= len(own)
            with self._unaveraged() if not is_last else nullcontext():
                loss = self._loss(own[place], step) / self._options.gradient_accumulation
                torch.autograd.backward(loss)
            total += float(loss.detach())
        trained = [p for group in self._optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, _MAX_GRADIENT_NORM)
        factor = learning_rate_factor(step, self.num_steps, round(self._options.warmup * self.num_steps))
        for group in self._optimizer.param_groups:
            group["lr"] = factor * group["peak"]
        self._optimizer.step()
        self._optimizer.zero_grad()
        return total

    def _loss(self, rows: IntArray, step: int) -> Tensor:
        device = self._objective.model.device
        batch = {name: tensor.to(device) for name, tensor in self._collate(rows).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(self._options)):
            loss: Tensor = self._module(**batch)["loss"]
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"the loss is {loss.item()} at step {step}; lower reward.learning_rate and "
                "reward.head_learning_rate, or set reward.precision to float32; nothing was saved"
            )
        return loss

    def _unaveraged(self) -> Any:
        """Leave gradients apart until the last batch of a step, where there are several processes."""
        return self._module.no_sync() if isinstance(self._module, DistributedDataParallel) else nullcontext()

    def _look(self, curve: tuple[CurvePoint, ...], loss: float, trackers: Trackers) -> tuple[CurvePoint, ...]:
        """Measure the model, keep it if it is the best, and leave a checkpoint."""
        point = self._looks(self._until_next_look(curve[-1].step).stop)
        curve = (*curve, point)
        if best_of(curve) is point:
            self._best = trainable(self._objective)
        measured = {"validation_loss": point.validation_loss, "validation_accuracy": point.validation_accuracy}
        self._progress.log("reward", step=point.step, loss=loss, **measured, **self._looks.notes())
        trackers.log(point.step, **measured)
        state = optimizer_state(self._objective, self._optimizer)
        Checkpoint(curve, trainable(self._objective), self._best, state, random_state()).save(self._directory / _FILE)
        return curve

    def _restored(self) -> tuple[CurvePoint, ...] | None:
        """Go back to where the checkpoint was left, where there is one, and return the looks until then."""
        path = self._directory / _FILE
        if not agree(path.is_file()):
            return None
        checkpoint = Checkpoint.load(path, trainable(self._objective))
        load_trainable(self._objective, checkpoint.now)
        load_optimizer_state(self._objective, self._optimizer, checkpoint.optimizer)
        set_random_state(checkpoint.random)
        self._best = dict(checkpoint.best)
        return checkpoint.curve


def learning_rate_factor(step: int, num_steps: int, num_warmup: int) -> float:
    r"""Return the share of the peak learning rate at a step, counted from 0.

    .. math:: \min(k / w, 1) \text{ for } k < w, \text{ then } \tfrac12 (1 + \cos(\pi (k - w) / (n - w)))

    Args:
        step: the step k.
        num_steps: all steps n.
        num_warmup: steps w over which it rises.
    """
    if step < num_warmup:
        return step / num_warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - num_warmup) / max(1, num_steps - num_warmup)))


def use_bfloat16(options: RewardOptions) -> bool:
    """Return whether training uses bfloat16."""
    if options.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return options.precision == "bfloat16"


def _optimizer(objective: BradleyTerryObjective, options: RewardOptions) -> torch.optim.Optimizer:
    """AdamW with a learning rate of its own for the head, and for users that are trained along."""
    head = {id(p) for p in objective.model.head.parameters()} | {id(objective.user_table)}
    trained = [p for p in objective.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in head], "peak": options.learning_rate},
        {"params": [p for p in trained if id(p) in head], "peak": options.head_learning_rate},
    ]
    used = [group for group in groups if group["params"]]
    adam = eager(torch.optim.AdamW)
    return adam(used, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True)


def _averaged(objective: nn.Module) -> nn.Module:
    """Wrap a module so that gradients of what is trained are averaged over the processes; the rest is left alone."""
    frozen = [name for name, parameter in objective.named_parameters() if not parameter.requires_grad]
    ignoring: Any = DistributedDataParallel  # torch ships no types for this one method
    ignoring._set_params_and_buffers_to_ignore_for_model(objective, frozen)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else None
    return DistributedDataParallel(objective, device_ids=devices)
