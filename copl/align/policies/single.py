"""One user's policy: a plain LoRA on a language model, trained by TRL's `DPOTrainer` on the user's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from attrs import asdict, frozen

from copl.align.policies.checkpoints import Checkpoints
from copl.align.policies.extra import trl
from copl.align.policies.keeping import close_policy
from copl.align.policies.options import CARD, DpoOptions
from copl.align.policies.rows import PreferenceRow, as_trl
from copl.align.policies.writer import Writer, own_randomness, quiet_packages
from copl.errors import CoplError, RunError, TrainingError, in_brief
from copl.experts.targets import default_target_modules, require_target_modules
from copl.runs.recipe import canonical_hash
from copl.system.documents import read_document, write_document
from copl.system.files import new_directory
from copl.system.progress import SilentProgress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from copl.interfaces import Progress

_ADAPTER = "adapter_config.json"
_AGAIN = "delete it and run the same command again"


@final
@frozen
class TrainedPolicy:
    """What training a policy has come to.

    Attributes:
        num_rows: rows it was trained on.
        steps: optimiser steps.
        loss: mean loss of the last steps.
        base: fingerprint of the language model it was trained on.
    """

    num_rows: int
    steps: int
    loss: float
    base: str


def train_policy(
    rows: Sequence[PreferenceRow],
    directory: Path,
    options: DpoOptions,
    *,
    seed: int,
    progress: Progress | None = None,
) -> TrainedPolicy:
    """Train one user's policy and write it, whole or not at all, as an adapter that stock PEFT loads.

    The reference is the language model without adapter. TRL does the training, with the likelihood of chosen responses
    beside the preference where that has a weight (Pang et al. 2024, arXiv 2404.19733; TRL's loss ``sft``). Its
    checkpoints lie beside the directory until that is whole; a killed training goes on from the last one, of which only
    tensors and plain values are read.

    Args:
        rows: the user's rows.
        directory: where it goes; must not exist or be empty.
        options: model, adapter and training.
        seed: the same seed gives the same policy on the same machine.
        progress: where to show progress.

    Raises:
        CoplError: TRL is not installed, there are no rows, the model cannot be adapted, or the loss is not finite.
    """
    progress = progress or SilentProgress()
    if not rows:
        raise CoplError("no rows to train a policy on: the user has said nothing, and all candidates are near-ties")
    package = trl()
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback

    writer = Writer.open(options.model)
    rows = _without_marks(rows, writer, progress)
    writer.tell_cut(rows, options.max_length, progress)
    targets = default_target_modules(writer.model)
    require_target_modules(writer.model, targets)
    steps = options.num_steps(len(rows))
    key = {"rows": list(map(asdict, rows)), "options": asdict(options), "seed": seed, "base": writer.fingerprint}
    scratch = Checkpoints(directory.with_name(f"{directory.name}.partial"), canonical_hash(key))
    with own_randomness(seed), quiet_packages(), progress.task("training the policy", steps) as task:
        trainer = package.DPOTrainer(
            model=writer.model,
            args=package.DPOConfig(**_arguments(options, steps, seed, scratch.directory)),
            train_dataset=Dataset.from_list([as_trl(row, chat=writer.chat) for row in rows]),
            processing_class=_with_padding(writer.tokenizer),
            peft_config=LoraConfig(
                r=options.rank, lora_alpha=options.alpha, target_modules=list(targets), task_type="CAUSAL_LM"
            ),
            callbacks=[_shown(task), scratch.marking()],
        )
        trainer.remove_callback(PrinterCallback)  # which prints every record
        trainer.train(resume_from_checkpoint=scratch.last())
        losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
        if not losses or not all(map(math.isfinite, losses)):
            raise TrainingError("the loss of the policy is not finite; lower learning_rate")
        trained = TrainedPolicy(len(rows), steps, sum(losses[-5:]) / len(losses[-5:]), writer.fingerprint)
        with new_directory(directory) as fresh:
            trainer.model.save_pretrained(fresh)
            (fresh / "README.md").unlink(missing_ok=True)  # PEFT's empty form
            write_document(fresh / CARD, trained)
            close_policy(fresh, directory)
    scratch.clear()
    return trained


def _without_marks(rows: Sequence[PreferenceRow], writer: Writer, progress: Progress) -> list[PreferenceRow]:
    """Leave out rows with marks of the model's template in their texts, which TRL would take for turns that end."""
    kept = [row for row in rows if not any(writer.has_marks(row.prompt, text) for text in (row.chosen, row.rejected))]
    if len(kept) < len(rows):
        said = f"{len(rows) - len(kept)} of {len(rows)} rows hold special tokens of the model in their texts; left out"
        progress.log("policy", finding=said)
    if not kept:
        raise CoplError("no rows to train a policy on: all hold special tokens of the model in their texts")
    return kept


def _arguments(options: DpoOptions, steps: int, seed: int, directory: Path) -> dict[str, Any]:
    import torch

    return {
        "output_dir": str(directory),
        "max_steps": steps,
        "per_device_train_batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, steps // 20),
        "beta": options.beta,
        "loss_type": ["sigmoid", "sft"] if options.likelihood else ["sigmoid"],
        "loss_weights": [1.0, options.likelihood] if options.likelihood else None,
        "max_length": options.max_length,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": options.save_every,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": False,
        "seed": seed % 2**32,  # NumPy takes no larger one
    }


def _with_padding(tokenizer: Any) -> Any:
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _shown(task: Any) -> Any:
    from transformers import TrainerCallback

    class Shown(TrainerCallback):  # type: ignore[misc]
        """Shows progress and nothing else."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                task.advance(loss=float(logs["loss"]))

    return Shown()


@contextmanager
def speaking(writer: Writer, directory: Path) -> Iterator[Writer]:
    """Let a language model speak as a policy that `train_policy` or an export of a mixture has written.

    Raises:
        RunError: the policy is damaged, or of another model.
    """
    from peft import PeftModel

    if not (directory / _ADAPTER).is_file():
        raise RunError(f"{directory} holds no policy (it has no {_ADAPTER}); {_AGAIN}")
    card = directory / CARD
    if card.is_file() and read_document(card, TrainedPolicy, advice=_AGAIN).base != writer.fingerprint:
        raise RunError(f"{directory} was trained on another model than the one in {writer.directory}; {_AGAIN}")
    with quiet_packages():
        try:
            adapted = PeftModel.from_pretrained(writer.model, directory)
        except Exception as error:  # whatever PEFT comes upon
            raise RunError(
                f"{directory}: cannot be put on {writer.directory} ({in_brief(error)}); delete it"
            ) from error
    try:
        yield Writer(adapted.eval(), writer.tokenizer, writer.directory)
    finally:
        adapted.unload()
