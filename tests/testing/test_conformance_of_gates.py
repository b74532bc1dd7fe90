"""Gates: the kit passes a good toy and catches a deliberately broken one of each fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from copl.interfaces import ExpertGate
from copl.records import (
    GateWeights,
)

COUNTER = itertools.count()


class ToyGate(ExpertGate):
    num_experts = 4
    top_k = 4

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(dim, 4)

    def forward(self, users: torch.Tensor) -> GateWeights:
        return GateWeights(self.linear(users).softmax(dim=1), users.new_zeros(()))


def gate_that(decide: Callable[[ToyGate, torch.Tensor], GateWeights], **attributes: Any) -> Callable[..., ToyGate]:
    kind = type("Broken", (ToyGate,), {"forward": decide, **attributes})
    return lambda options, *, embedding_dim: kind(embedding_dim)


def good(gate: ToyGate, users: torch.Tensor) -> torch.Tensor:
    return ToyGate.forward(gate, users).weights


NONE = torch.zeros(())


def _unsaved(options: Any, *, embedding_dim: int) -> ToyGate:
    gate = ToyGate(embedding_dim)
    scale = torch.rand(4)
    gate.forward = lambda users: GateWeights(good(gate, users) * scale, NONE)  # type: ignore[method-assign]
    return gate


def _no_gate(options: Any, *, embedding_dim: int) -> torch.nn.Module:
    module = torch.nn.Linear(embedding_dim, 4)
    module.num_experts = module.top_k = 4
    return module


def _root_of_zero(gate: ToyGate, users: torch.Tensor) -> GateWeights:
    return GateWeights(good(gate, users) + (0 * gate.linear(users)).sqrt(), NONE)


def _normalises_in_place(gate: ToyGate, users: torch.Tensor, groups: Any, *, seed: int) -> None:
    users.div_(users.norm(dim=1, keepdim=True))


def _binds_at_random(gate: ToyGate, users: torch.Tensor, groups: Any, *, seed: int) -> None:
    gate.linear.bias.data = torch.tensor([float(next(COUNTER)), 0.0, 0.0, 0.0])


def test_a_good_gate_passes(kit: Any) -> None:
    assert kit.not_passed(kit.check("gate", lambda options, *, embedding_dim: ToyGate(embedding_dim))) == set()


@pytest.mark.parametrize(
    ("build", "finding"),
    [
        (gate_that(lambda g, u: GateWeights(good(g, u)[:, :3], NONE)), "weights must be [16, 4], got [16, 3]"),
        (gate_that(lambda g, u: GateWeights(good(g, u) - 0.5, NONE)), "weights are negative"),
        (gate_that(lambda g, u: GateWeights(good(g, u) / u.norm(dim=1, keepdim=True), NONE)), "weights are not finite"),
        (gate_that(ToyGate.forward, top_k=1), "4 weights of one user are not zero but top_k is 1"),
        (gate_that(ToyGate.forward, top_k=5), "top_k is 5 of only 4 experts"),
        (gate_that(ToyGate.forward, top_k=None), "top_k must be a whole number"),
        (gate_that(lambda g, u: GateWeights(good(g, u), u.sum(dim=1))), "aux_loss must be a tensor without dimensions"),
        (gate_that(lambda g, u: GateWeights(good(g, u), NONE + float("inf"))), "aux_loss is inf"),
        (gate_that(lambda g, u: GateWeights(good(g, u).detach(), NONE)), "can never be trained"),
        (gate_that(lambda g, u: GateWeights((good(g, u) > 0.1).float() + 0 * good(g, u), NONE)), "gradients of all"),
        (
            gate_that(lambda g, u: GateWeights(good(g, u - u.mean(dim=0)), NONE)),
            "weights of a user change with the batch",
        ),
        (gate_that(lambda g, u: GateWeights(good(g, u) + torch.rand(4), NONE)), "weights vary from call to call"),
        (gate_that(lambda g, u: good(g, u)), "forward returned Tensor, not GateWeights"),
        (_unsaved, "keep weights as parameters or buffers"),
        (_no_gate, "build gave Linear, which does not derive from it"),
        (gate_that(_root_of_zero), "gradients that are not finite: linear.weight"),
        (gate_that(ToyGate.forward, bind=_normalises_in_place), "bind changed the embeddings it was given"),
        (gate_that(ToyGate.forward, bind=_binds_at_random), "with the same users and seed, the gate decides otherwise"),
        (lambda options, *, embedding_dim: ToyGate(6), "any embedding dimension"),
        (lambda options: ToyGate(6), "unexpected keyword argument 'embedding_dim'"),
    ],
)
def test_a_broken_gate_is_caught(kit: Any, build: Callable[..., Any], finding: str) -> None:
    results = kit.check("gate", build)
    assert finding in kit.caught(results) + " | ".join(name for name in kit.not_passed(results))
