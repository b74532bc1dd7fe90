from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from copl.experts.gates.catalogue import COMPONENTS, LearnedGateOptions
from copl.experts.gates.learned import LearnedGate
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions


@pytest.fixture
def golden(shared: Path) -> dict[str, Tensor]:
    """What the reference computes for one linear layer with four routed experts, a shared one and a gate of its own."""
    with np.load(shared / "golden" / "mole_small.npz") as values:
        return {name: torch.from_numpy(np.asarray(value)) for name, value in values.items()}


def reference_mixture(golden: dict[str, Tensor], softmax_dtype: str) -> tuple[MixtureOfLora, LearnedGate]:
    """Our mixture and gate with the reference's weights."""
    rank, num_experts = int(golden["rank"]), int(golden["num_experts"])
    options = MixtureOptions(rank, rank, float(golden["alpha"]), dropout=0.0, gates="per-layer", gate_power=2)
    linear = nn.Linear(*reversed(golden["weight"].shape))
    linear.weight.data, linear.bias.data = golden["weight"], golden["bias"]
    model = nn.Sequential(OrderedDict(proj=linear))
    mixture = MixtureOfLora.attach(model, options, num_experts=num_experts, target_modules=("proj",))
    names = ["shared", *(f"expert{m}" for m in range(num_experts))]
    layer = mixture.peft_model.base_model.model.proj
    layer.lora_A["default"].weight.data = torch.cat([golden[f"{name}.A"] for name in names])
    layer.lora_B["default"].weight.data = torch.cat([golden[f"{name}.B"] for name in names], dim=1)
    gate_options = LearnedGateOptions(num_experts=num_experts, softmax_dtype=softmax_dtype)
    gate = LearnedGate(gate_options, embedding_dim=512, top_k=1).eval()
    for ours, theirs in ((gate.hidden, "gate.fc1"), (gate.output, "gate.fc2")):
        ours.weight.data, ours.bias.data = golden[f"{theirs}.weight"], golden[f"{theirs}.bias"]
    return mixture, gate


def test_agrees_with_the_reference_implementation(golden: dict[str, Tensor]) -> None:
    """Outputs and gradients, the gate's softmax rounded to float16 as there (``gate.preset=paper``)."""
    preset = next(c for c in COMPONENTS if c.name == "top1").presets["paper"]
    mixture, gate = reference_mixture(golden, preset["softmax_dtype"])
    rank = int(golden["rank"])
    layer = mixture.peft_model.base_model.model.proj
    x = golden["x"].requires_grad_()
    mixture.set_weights(gate(golden["user_embeddings"]).weights)
    y = mixture.peft_model(x)
    y.backward(golden["grad_y"])
    close = {"atol": 5e-4, "rtol": 0.0}
    torch.testing.assert_close(y, golden["y"], **close)
    torch.testing.assert_close(x.grad, golden["grad_x"], **close)
    names = ["shared", *(f"expert{m}" for m in range(int(golden["num_experts"])))]
    for name, grad in zip(names, layer.lora_A["default"].weight.grad.split(rank), strict=True):
        torch.testing.assert_close(grad, golden[f"grad.{name}.A"], **close)
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in gate.parameters())


def test_a_float32_softmax_is_as_close_as_the_references_rounding_allows(golden: dict[str, Tensor]) -> None:
    """A float16 probability near 1/4 is off by up to 2**-13, its square and all it multiplies accordingly."""
    mixture, gate = reference_mixture(golden, "float32")
    decided = gate(golden["user_embeddings"]).weights.detach()
    mixture.set_weights(decided)
    torch.testing.assert_close(mixture.peft_model(golden["x"]), golden["y"], atol=5e-4, rtol=0.0)
    mixture.set_weights(decided.sqrt())  # the paper's plain weight is far from what the reference computes
    assert (mixture.peft_model(golden["x"]) - golden["y"]).abs().max() > 1e-2


def test_gradients_of_lora_b_and_of_the_gate_are_those_of_the_published_formula(golden: dict[str, Tensor]) -> None:
    """The golden values hold no such gradients; a plain W x + b + alpha / r sum_m g_m^2 B_m A_m x has them, and its
    output and its gradients of x and A are the golden ones."""
    preset = next(c for c in COMPONENTS if c.name == "top1").presets["paper"]
    mixture, gate = reference_mixture(golden, preset["softmax_dtype"])
    layer = mixture.peft_model.base_model.model.proj
    mixture.set_weights(gate(golden["user_embeddings"]).weights)
    mixture.peft_model(golden["x"]).backward(golden["grad_y"])

    names = ["shared", *(f"expert{m}" for m in range(int(golden["num_experts"])))]
    plain = {f"{name}.{part}": golden[f"{name}.{part}"].clone().requires_grad_() for name in names for part in "AB"}
    _, own_gate = reference_mixture(golden, preset["softmax_dtype"])
    weights = own_gate(golden["user_embeddings"]).weights
    factors = [torch.ones(len(weights)), *weights.square().T]
    x, scale = golden["x"].clone().requires_grad_(), float(golden["alpha"]) / int(golden["rank"])
    y = x @ golden["weight"].T + golden["bias"]
    for name, factor in zip(names, factors, strict=True):
        y = y + scale * factor[:, None, None] * (x @ plain[f"{name}.A"].T @ plain[f"{name}.B"].T)
    y.backward(golden["grad_y"])
    close = {"atol": 5e-4, "rtol": 0.0}
    torch.testing.assert_close(y, golden["y"], **close)
    torch.testing.assert_close(x.grad, golden["grad_x"], **close)
    for name in names:
        torch.testing.assert_close(plain[f"{name}.A"].grad, golden[f"grad.{name}.A"], **close)

    ours = layer.lora_B["default"].weight.grad.split(int(golden["rank"]), dim=1)
    for name, grad in zip(names, ours, strict=True):
        torch.testing.assert_close(grad, plain[f"{name}.B"].grad, atol=1e-5, rtol=1e-4)
    for one, other in zip(gate.parameters(), own_gate.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)
