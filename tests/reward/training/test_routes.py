"""Users whose experts stay the same share the reading of a text; the loss and its gradient stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from copl.interfaces import ExpertGate
from copl.records import GateWeights
from copl.reward.model import AffineScaling
from copl.reward.options import RewardOptions
from copl.reward.training import batches
from copl.reward.training.batches import PairCollator
from copl.reward.training.routes import fixed_routes
from copl.reward.training.setup import TrainingSetup

if TYPE_CHECKING:
    from copl.records import IntArray

PLAIN = AffineScaling(torch.zeros(3), torch.ones(3))
USERS = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])


class _NoisyGate(ExpertGate):
    num_experts = top_k = 2

    def forward(self, users: Tensor) -> GateWeights:
        weights = torch.ones(len(users), 2)
        return GateWeights(weights + torch.rand(()) if self.training else weights, weights.new_zeros(()))


def test_without_experts_all_users_have_one_route(make_gate: Callable[..., ExpertGate]) -> None:
    routes = fixed_routes(make_gate("none", 3), PLAIN, USERS)
    assert routes is not None
    assert routes.tolist() == [0, 0, 0]


def test_clusters_and_groups_are_routes(make_gate: Callable[..., ExpertGate]) -> None:
    for name in ("cluster", "oracle"):
        gate = make_gate(name, 3, num_experts=2)
        gate.bind(USERS, ("one", "one", "two"), seed=0)
        routes = fixed_routes(gate, PLAIN, USERS)
        assert routes is not None
        assert routes[0] == routes[1] != routes[2]


@pytest.mark.parametrize("name", ["top1", "softmax", "noisy-topk"])
def test_a_gate_that_learns_has_no_fixed_routes(name: str, make_gate: Callable[..., ExpertGate]) -> None:
    assert fixed_routes(make_gate(name, 3), PLAIN, USERS) is None


def test_a_gate_with_noise_has_no_fixed_routes() -> None:
    gate = _NoisyGate().eval()
    assert fixed_routes(gate, PLAIN, USERS) is None
    assert not gate.training


def test_shared_reading_has_the_same_loss_and_gradient(put_together: Callable[..., TrainingSetup]) -> None:
    setup = put_together(RewardOptions(trainable_layers=0), "random", num_experts=3)
    assert setup.routes is not None
    assert len(np.unique(setup.routes)) == 3
    assert not setup.packed
    for parameter in setup.model.mixture.peft_model.parameters():
        if parameter.requires_grad:  # lora_B starts at zero, where routing makes no difference
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))

    def read(routes: IntArray | None) -> tuple[int, Tensor, list[Tensor]]:
        material = setup.material
        collator = PairCollator(setup.texts.encoded, material.train, material.users, routes=routes, kept=None)
        batch: dict[str, Any] = collator(np.arange(40))
        setup.objective.zero_grad()
        out = setup.objective.eval()(**batch)
        out["loss"].backward()
        gradients = [p.grad.clone() for p in setup.objective.parameters() if p.grad is not None]
        return len(batch["input_ids"]), out["margins"].detach(), gradients

    alone, together = read(None), read(setup.routes)
    assert (alone[0], together[0] < 80) == (80, True)
    torch.testing.assert_close(together[1], alone[1], atol=1e-4, rtol=1e-4)
    for ours, plain in zip(together[2], alone[2], strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-3)
    # what was asked for by name goes first, and users that train along change their route
    assert put_together(RewardOptions(trainable_layers=0, pack_pairs="on"), "random").packed
    assert put_together(RewardOptions(trainable_layers=0), "random", trainable_users=True).routes is None


@pytest.mark.parametrize("layers", [0, 1])
def test_texts_read_in_parts_have_the_same_loss_and_gradient(
    layers: int, put_together: Callable[..., TrainingSetup], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_WORTH_DIVIDING", 1.0)
    outcomes = []
    for checkpointing in (True, False):  # where activations are recomputed, a batch has to stay whole
        options = RewardOptions(trainable_layers=layers, gradient_checkpointing=checkpointing)
        setup = put_together(options, "random", num_experts=3)
        assert setup.objective.in_parts is not checkpointing
        for parameter in setup.model.mixture.peft_model.parameters():
            if parameter.requires_grad:  # lora_B starts at zero, where routing makes no difference
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
        batch = setup.collator(setup.material.train)(np.arange(40))
        assert len(batches.alike(batch["attention_mask"])) > 1
        out = setup.objective.train()(**batch)
        out["loss"].backward()
        gradients = [p.grad.clone() for p in setup.objective.parameters() if p.grad is not None]
        outcomes.append((out["margins"].detach(), gradients))
    (margins, plain), (again, ours) = outcomes
    torch.testing.assert_close(again, margins, atol=1e-4, rtol=1e-4)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
