"""Users whose experts stay the same share the reading of a text; the loss and its gradient stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

from copl.experts.options import MixtureOptions
from copl.interfaces import ExpertGate
from copl.progress import SilentProgress
from copl.records import GateWeights, PreferenceData
from copl.reward.backbone import LoadedBackbone, encode_responses
from copl.reward.batches import PairCollator
from copl.reward.material import gather
from copl.reward.model import AffineScaling
from copl.reward.options import RewardOptions
from copl.reward.routes import fixed_routes
from copl.reward.setting import Setting, assemble
from copl.reward.user_vectors import UserVectors

if TYPE_CHECKING:
    from pathlib import Path

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


def test_shared_reading_has_the_same_loss_and_gradient(
    preferences: tuple[PreferenceData, UserVectors],
    make_backbone: Callable[[str], LoadedBackbone],
    make_gate: Callable[..., ExpertGate],
    tmp_path: Path,
) -> None:
    data, users = preferences
    backbone, gate, material = make_backbone("llama"), make_gate("random", 2, num_experts=3), gather(data, users)

    def put_together(options: RewardOptions, *, trainable_users: bool = False) -> Setting:
        return assemble(
            material,
            encode_responses(backbone, data.responses, material.texts, 32),
            attrs.evolve(backbone, model=make_backbone("llama").model),
            gate,
            MixtureOptions(shared_rank=2, expert_rank=2, dropout=0.0),
            options,
            scaling=AffineScaling.of_users(material.trained_users),
            trainable_users=trainable_users,
            shared=None,
            scratch=tmp_path,
            progress=SilentProgress(),
        )

    setting = put_together(RewardOptions(trainable_layers=0))
    assert setting.routes is not None
    assert len(np.unique(setting.routes)) == 3
    assert not setting.packed
    for parameter in setting.model.mixture.peft_model.parameters():
        if parameter.requires_grad:  # lora_B starts at zero, where routing makes no difference
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))

    def read(routes: IntArray | None) -> tuple[int, Tensor, list[Tensor]]:
        collator = PairCollator(setting.encoded, material.train, material.users, routes=routes, kept=None)
        batch: dict[str, Any] = collator([np.arange(40)])
        setting.objective.zero_grad()
        out = setting.objective.eval()(**batch)
        out["loss"].backward()
        gradients = [p.grad.clone() for p in setting.objective.parameters() if p.grad is not None]
        return len(batch["input_ids"]), out["margins"].detach(), gradients

    alone, together = read(None), read(setting.routes)
    assert (alone[0], together[0] < 80) == (80, True)
    torch.testing.assert_close(together[1], alone[1], atol=1e-4, rtol=1e-4)
    for ours, plain in zip(together[2], alone[2], strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-3)
    # what was asked for by name goes first, and users that train along change their route
    assert put_together(RewardOptions(trainable_layers=0, pack_pairs="on")).packed
    assert put_together(RewardOptions(trainable_layers=0), trainable_users=True).routes is None
