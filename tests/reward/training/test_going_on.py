"""A reward model that goes on from where another one was: adapters for a few steps, the head by what is new."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from copl.reward.options import RewardOptions
from copl.reward.training.checkpoint import trainable
from copl.reward.training.former import _read_head, save_head
from copl.reward.training.head_fit import FittedHead, head_weights
from copl.reward.training.reward_training import FormerModel, RewardTraining
from copl.reward.training.setup import TrainingSetup
from copl.system.progress import SilentProgress

OPTIONS = RewardOptions(
    max_steps=30, batch_size=16, eval_every=10, max_length=32, learning_rate=3e-3, patience=99, trainable_layers=2
)


@pytest.fixture
def setup(put_together: Callable[..., TrainingSetup]) -> TrainingSetup:
    """A model whose adapters are not zero."""
    setup = put_together(OPTIONS, "uniform", num_experts=2)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in setup.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return setup


def training_of(setup: TrainingSetup, scratch: Path) -> RewardTraining:
    return RewardTraining(setup, seed=0, scratch=scratch, progress=SilentProgress())


def test_adapters_train_on_and_the_head_follows(setup: TrainingSetup, tmp_path: Path) -> None:
    training = training_of(setup, tmp_path)
    head = training.refit_head(setup.readings()).fitted
    before = trainable(setup.objective)
    is_new = np.arange(len(setup.material.train)) % 10 == 0
    found = training.go_on(FormerModel(7, zero=False, head=head, is_new=is_new))
    replayed = training._replayed(is_new)
    assert len(replayed) <= 5 * is_new.sum()
    fitted = training._divisions[0].fitted
    assert np.isin(np.r_[replayed.chosen, replayed.rejected], np.r_[fitted.chosen, fitted.rejected]).all()
    assert 1 < found.curve[-1].step <= 30 * len(replayed) / len(is_new) + 1
    assert found.kept_step >= 7
    assert found.completed is not None
    assert found.completed.shared_penalty == head.shared_penalty
    after = training._looks.measured(0, setup.readings())
    assert after.validation_loss <= found.curve[0].validation_loss + 1e-6
    adapters = {name: tensor for name, tensor in trainable(setup.objective).items() if "lora_" in name}
    assert adapters
    # The head is fitted anew in any case; adapters stay where no look was better than where they began.
    moved = any(not torch.equal(tensor, before[name]) for name, tensor in adapters.items())
    assert moved == (found.kept_step > 7)


def test_without_news_adapters_stay_as_they_are(setup: TrainingSetup, tmp_path: Path) -> None:
    training = training_of(setup, tmp_path)
    before = trainable(setup.objective)
    is_new = np.zeros(len(setup.material.train), dtype=np.bool_)
    found = training.go_on(FormerModel(3, zero=False, head=None, is_new=is_new))
    assert (found.kept_step, len(found.curve)) == (3, 1)
    for name, tensor in trainable(setup.objective).items():
        assert torch.equal(tensor, before[name])


def test_the_head_moves_by_what_new_comparisons_change(
    put_together: Callable[..., TrainingSetup], tmp_path: Path
) -> None:
    """With all it had learnt from and nothing new it hardly moves; with half of it new it ends near a fit to all."""
    options = attrs.evolve(OPTIONS, mode="frozen")
    setup = put_together(options, "none")
    training, head = training_of(setup, tmp_path), setup.model.head
    choice = training.fit_head()
    whole = attrs.evolve(choice.fitted, whole=choice.fit.whole(choice.fitted, setup.material.train))
    extra = 0.01 * torch.ones_like(head.weight)
    with torch.no_grad():  # what training has made of it stays
        for parameter, value in zip(head.parameters(), whole.whole, strict=True):
            parameter.copy_(value)
        head.weight.add_(extra)
    none = np.zeros(len(setup.material.train), dtype=np.bool_)
    found = training.go_on(FormerModel(0, zero=True, head=whole, is_new=none))
    assert (found.kept_step, len(found.curve)) == (0, 1)
    for now, then in zip(head_weights(head), whole.whole, strict=True):
        added = extra if now.shape == extra.shape else torch.zeros(())
        assert torch.allclose(now, then + added, atol=0.02)


def test_the_head_on_disk(tmp_path: Path) -> None:
    head = FittedHead((torch.ones(2),), (torch.arange(2.0), torch.eye(2)), 0.3, 0.1, 0.5, 0.75)
    save_head(head, tmp_path)
    read = _read_head(tmp_path / "head.safetensors")
    assert read is not None
    assert [tensor.tolist() for tensor in read.whole] == [tensor.tolist() for tensor in head.whole]
    assert read.facts() == head.facts()
    assert _read_head(tmp_path / "none.safetensors") is None
