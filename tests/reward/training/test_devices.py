"""A model on another device than the data: torch's device ``meta``, which refuses to mix as an accelerator does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from copl.reward.options import RewardOptions
from copl.reward.training.setup import TrainingSetup


@pytest.fixture
def setup_elsewhere(put_together: Callable[..., TrainingSetup]) -> Callable[..., TrainingSetup]:
    """Puts a model together and moves it to the other device."""

    def make(gate: str, *, trainable_users: bool = False, **options: Any) -> TrainingSetup:
        setup = put_together(RewardOptions(**options), gate, trainable_users=trainable_users)
        # transformers' other attention asks its mask for a value, which nothing on this device has
        setup.model.backbone.model.set_attn_implementation("eager")
        setup.objective.to("meta")
        return setup

    return make


def first_batch(setup: TrainingSetup) -> dict[str, Tensor]:
    return setup.collator(setup.material.train)(np.arange(4))


@pytest.mark.parametrize("trainable_users", [False, True])
@pytest.mark.parametrize(
    ("gate", "options"),
    [
        ("none", {"trainable_layers": 0}),
        ("none", {"trainable_layers": 1}),
        ("none", {"mode": "frozen"}),
        ("softmax", {"trainable_layers": 0, "pack_pairs": "off"}),
        ("softmax", {"trainable_layers": 0, "pack_pairs": "on"}),
        ("top1", {"trainable_layers": 1, "pack_pairs": "on"}),
        ("noisy-topk", {"trainable_layers": 1, "pack_pairs": "off"}),
    ],
)
def test_a_step_is_taken_where_the_model_is(
    setup_elsewhere: Callable[..., TrainingSetup], gate: str, options: dict[str, Any], trainable_users: bool
) -> None:
    setup = setup_elsewhere(gate, trainable_users=trainable_users, **options)
    batch = {name: tensor.to("meta") for name, tensor in first_batch(setup).items()}  # as the loop does
    loss = setup.objective(**batch)["loss"]
    loss.backward()
    assert loss.device.type == "meta"
    assert all(p.grad is not None for p in setup.model.head.parameters())


def test_what_is_left_behind_is_noticed(setup_elsewhere: Callable[..., TrainingSetup]) -> None:
    setup = setup_elsewhere("top1")
    batch = first_batch(setup)
    moved = {name: tensor if name == "users" else tensor.to("meta") for name, tensor in batch.items()}
    with pytest.raises(RuntimeError, match="device"):
        setup.objective(**moved)


@pytest.mark.parametrize(
    ("gate", "options"),
    [
        ("none", {"mode": "frozen"}),
        ("none", {"trainable_layers": 1}),
        ("random", {"trainable_layers": 0}),
        ("softmax", {"trainable_layers": 0}),
        ("softmax", {"trainable_layers": 1}),
    ],
)
def test_scores_are_made_where_the_model_is(
    setup_elsewhere: Callable[..., TrainingSetup], monkeypatch: pytest.MonkeyPatch, gate: str, options: dict[str, Any]
) -> None:
    setup = setup_elsewhere(gate, **options)
    # what comes back has no values there: zeros will do
    monkeypatch.setattr(Tensor, "cpu", lambda self: torch.zeros(self.shape, dtype=self.dtype))
    margins = setup.margins(setup.material.train.take(np.arange(3)), setup.readings())
    assert margins.tolist() == [0.0, 0.0, 0.0]
