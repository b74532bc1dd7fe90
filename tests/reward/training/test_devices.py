"""A model on another device than the data: torch's device ``meta``, which refuses to mix as an accelerator does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from copl.reward.options import RewardOptions
from copl.reward.training.batches import FeatureCollator, PairCollator
from copl.reward.training.setting import Setting


@pytest.fixture
def setting_elsewhere(put_together: Callable[..., Setting]) -> Callable[..., Setting]:
    """Puts a model together and moves it to the other device."""

    def make(gate: str, *, trainable_users: bool = False, **options: Any) -> Setting:
        setting = put_together(RewardOptions(**options), gate, trainable_users=trainable_users)
        # transformers' other attention asks its mask for a value, which nothing on this device has
        setting.model.backbone.model.set_attn_implementation("eager")
        setting.objective.to("meta")
        return setting

    return make


def first_batch(setting: Setting) -> dict[str, Tensor]:
    material, rows = setting.material, [np.arange(4)]
    if setting.options.mode == "frozen":
        return FeatureCollator(setting.pooled, material.train, material.users)(rows)
    collator = PairCollator(
        setting.encoded,
        material.train,
        material.users,
        routes=setting.routes,
        kept=setting.kept,
        packed=setting.packed,
    )
    return collator(rows)


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
    setting_elsewhere: Callable[..., Setting], gate: str, options: dict[str, Any], trainable_users: bool
) -> None:
    setting = setting_elsewhere(gate, trainable_users=trainable_users, **options)
    batch = {name: tensor.to("meta") for name, tensor in first_batch(setting).items()}  # as the Trainer does
    loss = setting.objective(**batch)["loss"]
    loss.backward()
    assert loss.device.type == "meta"
    assert all(p.grad is not None for p in setting.model.head.parameters())


def test_what_is_left_behind_is_noticed(setting_elsewhere: Callable[..., Setting]) -> None:
    setting = setting_elsewhere("top1")
    batch = first_batch(setting)
    moved = {name: tensor if name == "users" else tensor.to("meta") for name, tensor in batch.items()}
    with pytest.raises(RuntimeError, match="device"):
        setting.objective(**moved)


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
    setting_elsewhere: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch, gate: str, options: dict[str, Any]
) -> None:
    setting = setting_elsewhere(gate, **options)
    # what comes back has no values there: zeros will do
    monkeypatch.setattr(Tensor, "cpu", lambda self: torch.zeros(self.shape, dtype=self.dtype))
    scores = setting.scores(setting.material.users[:3], np.arange(3))
    assert scores.tolist() == [0.0, 0.0, 0.0]
