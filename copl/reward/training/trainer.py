"""The Hugging Face Trainer as the reward model uses it: scheduled batches, small checkpoints, our progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from attrs import asdict, frozen
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from copl.errors import TrainingError
from copl.interfaces import Task
from copl.reward.options import RewardOptions
from copl.reward.reading.memory import told_when_memory_is_short
from copl.reward.training.batches import FeatureCollator, PairCollator, ScheduledBatches
from copl.reward.training.objective import BradleyTerryObjective
from copl.system.processes import agree, num_processes, wait, weights_are_split

_WEIGHTS = "trainable.safetensors"
_STATE = "trainer_state.json"


@final
@frozen
class CurvePoint:
    """The model after some steps, as measured on the validation split."""

    step: int
    validation_loss: float
    validation_accuracy: float


def best_of(curve: list[CurvePoint]) -> CurvePoint:
    """Return the point of the lowest validation loss, the earliest of equals."""
    return min(curve, key=lambda point: (point.validation_loss, point.step))


@final
class RewardTrainer(Trainer):  # type: ignore[misc]  # transformers ships no types
    """Minimises `BradleyTerryObjective`; keeps the weights of the best look at the validation split.

    Checkpoints hold only what is trained. What they say of the curve, and with it early stopping, is restored on
    resuming, so a run that was killed ends as if it had not been.

    Args:
        objective: the model with its loss.
        options: how to train.
        order: the training batches of the whole run.
        collator: makes the batches.
        num_steps: optimiser steps of the whole run.
        measure: measures the model on comparisons it is not trained on: loss and accuracy.
        watch: further values to log at each look, such as how the gate uses its experts.
        start: the model before the first step, as measured.
        directory: where checkpoints go.
        seed: of dropout and gate noise.
        task: whose bar moves with each step.
        log: takes one record for each look at the validation split.
    """

    optimizer: torch.optim.Optimizer | None
    control: Any

    def __init__(
        self,
        objective: BradleyTerryObjective,
        options: RewardOptions,
        order: ScheduledBatches,
        collator: PairCollator | FeatureCollator,
        *,
        num_steps: int,
        measure: Callable[[], tuple[float, float]],
        watch: Callable[[], Mapping[str, float | str]],
        start: CurvePoint,
        directory: Path,
        seed: int,
        task: Task,
        log: Callable[..., None],
    ) -> None:
        self._options = options
        self._measure = measure
        self._watch = watch
        self._log_point = log
        self._best_path = directory / "best.safetensors"
        self.curve = [start]
        super().__init__(
            model=objective,
            args=_arguments(options, num_steps, directory, seed),
            data_collator=collator,
            train_dataset=order,
            eval_dataset=order,
            callbacks=[_Steps(task)],
        )
        self.remove_callback(PrinterCallback)

    def run(self) -> None:
        """Train, continuing from the last checkpoint where there is one, and put the best weights into the model.

        Raises:
            TrainingError: the loss is not finite, or memory is exhausted.
        """
        checkpoint = agree(self._last_checkpoint())
        if checkpoint is not None:
            state = json.loads((Path(checkpoint) / _STATE).read_text(encoding="utf-8"))
            self.curve += [CurvePoint(**entry["point"]) for entry in state["log_history"] if "point" in entry]
        elif self.is_world_process_zero():
            self._keep_best()
        with told_when_memory_is_short("training"):
            self.train(resume_from_checkpoint=checkpoint)
        wait()
        load_trainable(self.model, load_file(self._best_path))
        wait()  # the main process clears the directory away once it is done

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> nn.Module:
        if not weights_are_split() or not training:
            wrapped: nn.Module = super()._wrap_model(model, training, dataloader)
            return wrapped
        # Accelerate refuses to average gradients beside weights that are split up; of it, only autocast is wanted.
        return _replicated(self.accelerator.prepare_model(model, evaluation_mode=True))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make AdamW with a learning rate of its own for the head, and for users that are trained along."""
        optimizer: torch.optim.Optimizer | None = self.optimizer
        if optimizer is None:
            head = {id(p) for p in self.model.model.head.parameters()} | {id(self.model.user_table)}
            trained = [p for p in self.model.parameters() if p.requires_grad]
            groups = [
                {"params": [p for p in trained if id(p) not in head], "lr": self._options.learning_rate},
                {"params": [p for p in trained if id(p) in head], "lr": self._options.head_learning_rate},
            ]
            optimizer = torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=self._options.learning_rate,
                weight_decay=self._options.weight_decay,
                fused=True,
            )
        self.optimizer = optimizer
        return optimizer

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a batch.

        Raises:
            TrainingError: the loss is not finite.
        """
        outputs = model(**inputs)
        loss = outputs["loss"]
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"the loss is {loss.item()} at step {self.state.global_step}; lower reward.learning_rate and "
                "reward.head_learning_rate, or set reward.precision to float32; nothing was saved"
            )
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure on the validation split, keep the weights if they are the best, stop after `patience` others."""
        loss, accuracy = self._measure()
        point = CurvePoint(self.state.global_step, loss, accuracy)
        self.curve.append(point)
        self.state.log_history.append({"point": asdict(point)})
        recent = next((e["loss"] for e in reversed(self.state.log_history) if "loss" in e), float("nan"))
        self._log_point(
            "reward",
            step=point.step,
            loss=recent,
            validation_loss=loss,
            validation_accuracy=accuracy,
            **self._watch(),
        )
        best = best_of(self.curve)
        if best is point and self.is_world_process_zero():
            self._keep_best()
        looks_since = sum(later.step > best.step for later in self.curve)
        if looks_since >= self._options.patience:
            self.control.should_training_stop = True
        metrics = {"eval_loss": loss, "eval_accuracy": accuracy}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _last_checkpoint(self) -> str | None:
        directory = Path(self.args.output_dir)
        checkpoint: str | None = get_last_checkpoint(str(directory)) if directory.is_dir() else None
        return checkpoint if checkpoint is not None and (Path(checkpoint) / _STATE).is_file() else None

    def _keep_best(self) -> None:
        self._best_path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._best_path.with_suffix(".partial")
        save_file(trainable(self.model), partial)
        partial.replace(self._best_path)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.is_world_process_zero():
            return
        directory = Path(output_dir or self.args.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        save_file(trainable(self.model), directory / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        try:
            load_trainable(self.model, load_file(Path(resume_from_checkpoint) / _WEIGHTS))
        except (SafetensorError, OSError, KeyError, RuntimeError) as error:
            raise TrainingError(
                f"checkpoint {resume_from_checkpoint} cannot be read ({error}); delete it to start over"
            ) from error


def _replicated(objective: nn.Module) -> nn.Module:
    """Wrap a module so that gradients of what is trained are averaged over the processes; the rest is left alone."""
    frozen = [name for name, parameter in objective.named_parameters() if not parameter.requires_grad]
    ignoring: Any = DistributedDataParallel  # torch ships no types for this one method
    ignoring._set_params_and_buffers_to_ignore_for_model(objective, frozen)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else None
    return DistributedDataParallel(objective, device_ids=devices)


@final
class _Steps(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Moves the bar."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._shown = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        recent = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
        values = {} if recent is None else {"loss": float(recent)}
        self._task.advance(state.global_step - self._shown, **values)
        self._shown = state.global_step


def _arguments(options: RewardOptions, num_steps: int, directory: Path, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=options.gradient_accumulation,
        max_steps=num_steps,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=round(options.warmup * num_steps),
        logging_strategy="steps",
        logging_steps=min(10, options.eval_every),
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=options.eval_every,
        save_strategy="steps",
        save_steps=options.eval_every,
        save_total_limit=1,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to=list(options.report_to) or "none",
        bf16=use_bfloat16(options),
        # Without an accelerator it refuses bfloat16, and several processes, unless it is told.
        use_cpu=(use_bfloat16(options) or num_processes() > 1) and not torch.cuda.is_available(),
        seed=seed,
    )


def use_bfloat16(options: RewardOptions) -> bool:
    """Return whether training uses bfloat16."""
    if options.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return options.precision == "bfloat16"


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters that are trained, by name, on the processor."""
    return {n: p.detach().to("cpu", copy=True).contiguous() for n, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trainable(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put what `trainable` returned into the model."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(tensors[name])


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed the global generators that PEFT, dropout and the Trainer draw from, and put them back afterwards."""
    import random

    import numpy as np

    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the Trainer seeds this one
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
