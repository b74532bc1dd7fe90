"""Training of a model on frozen features: AdamW, early stopping on the validation split, all from one seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from attrs import frozen
from torch import Tensor

from copl.errors import TrainingError
from copl.interfaces import Progress
from copl.system.optimizers import eager
from copl_baselines.model import FeatureReward, Step, bradley_terry
from copl_baselines.options import TrainingOptions
from copl_baselines.pairs import Pairs

_SCALES = 2.0 ** torch.arange(-8, 9)


@final
@frozen
class Judgement:
    """What a look at the validation split found.

    Attributes:
        loss: Bradley-Terry loss of the margins at the scale that suits them best: losses of some methods leave margins
            on a scale of their own.
        accuracy: share of the comparisons with a positive margin.
    """

    loss: float
    accuracy: float

    @classmethod
    def of(cls, margins: Tensor, pairs: Pairs) -> Judgement:
        losses = [float(pairs.mean(bradley_terry(scale * margins))) for scale in _SCALES]
        return cls(min(losses), float(pairs.mean((margins > 0).float())))


def train_model(
    model: FeatureReward,
    train: Pairs,
    validation: Pairs,
    options: TrainingOptions,
    *,
    name: str,
    seed: int,
    progress: Progress,
) -> None:
    """Train a model in place and leave it as it was at the lowest validation loss.

    Args:
        model: the model, at its initial values.
        train: training comparisons of the seen users.
        validation: validation comparisons of the same users; without any, the last step is kept.
        options: how to train.
        name: name of the method, for progress and log.
        seed: the same seed gives the same model on the same machine.
        progress: where to show progress.

    Raises:
        TrainingError: the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.start(train)
    optimizer = eager(torch.optim.AdamW)(
        model.parameter_groups(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    batches = _batches(train, options.batch_size or len(train), generator, of_users=model.batches_users)
    lowest, kept, kept_step, since = float("inf"), _copy(model), 0, 0
    with progress.task(name, options.max_steps) as task:
        for step in range(1, options.max_steps + 1):
            model.train()
            optimizer.zero_grad()
            loss = model.loss(train.take(next(batches)), Step(train, (step - 1) / options.max_steps, generator))
            if not bool(torch.isfinite(loss)):
                raise TrainingError(f"{name}: the loss became infinite or not a number; lower method.learning_rate")
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            task.advance(loss=float(loss.detach()))
            if not len(validation) or (step % options.eval_every and step != options.max_steps):
                continue
            judged = judge(model, train, validation)
            progress.log(name, step=step, validation_loss=judged.loss, validation_accuracy=judged.accuracy)
            if judged.loss < lowest:
                lowest, kept, kept_step, since = judged.loss, _copy(model), step, 0
            else:
                since += 1
            if since >= options.patience:
                break
    if len(validation):
        if lowest == float("inf"):
            raise TrainingError(f"{name}: the validation loss is not a number; lower method.learning_rate")
        model.load_state_dict(kept)
        progress.log(name, kept_step=kept_step, validation_loss=lowest)
    model.eval()


@torch.no_grad()
def judge(model: FeatureReward, train: Pairs, validation: Pairs) -> Judgement:
    """Judge the model on comparisons of seen users, as it will score them."""
    model.eval()
    return Judgement.of(model.margins(validation, model.seen_states(train)), validation)


def _batches(train: Pairs, size: int, generator: torch.Generator, *, of_users: bool) -> Iterator[Tensor]:
    """Yield the rows of each step, about `size`; every comparison comes once before any comes again."""
    while size >= len(train):
        yield torch.arange(len(train))
    rows, mask = train.by_user() if of_users else (torch.arange(len(train))[:, None], torch.ones(len(train), 1).bool())
    num_drawn = max(1, round(size * len(rows) / len(train)))
    while True:
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(rows), num_drawn):
            drawn = order[start : start + num_drawn]
            yield rows[drawn][mask[drawn]]


def _copy(model: FeatureReward) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
