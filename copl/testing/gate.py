"""Checks of expert gates."""

from __future__ import annotations

from typing import Any, final

import attrs
import torch
from torch import Tensor

from copl.interfaces import ExpertGate
from copl.records import GateWeights
from copl.testing.check import Check, CheckResult, CheckSkipped, require, run_checks
from copl.testing.common import Described

_DIM = 6


@final
@attrs.frozen(eq=False)
class _Subject:
    described: Described

    def bare(self, dim: int = _DIM, seed: int = 0) -> Any:
        options = self.described.options()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # modules draw their first weights from the global generator
            return self.described.component.build(options, embedding_dim=dim)

    def build(self, dim: int = _DIM, seed: int = 0) -> Any:
        gate = self.bare(dim, seed)
        if isinstance(gate, ExpertGate):
            count = 20 + 2 * seed  # so that a saved gate brings the shape of its buffers with it
            gate.bind(self.users(count, dim), ("one", "two") * (count // 2), seed=seed)
        return gate

    def users(self, num_users: int = 16, dim: int = _DIM) -> Tensor:
        return torch.randn(num_users, dim, generator=torch.Generator().manual_seed(num_users))


def _forward(gate: Any, users: Tensor) -> GateWeights:
    with torch.random.fork_rng(devices=[]):  # a gate may add noise in training
        torch.manual_seed(0)
        decided = gate(users)
    require(isinstance(decided, GateWeights), f"forward returned {type(decided).__name__}, not GateWeights")
    return decided  # type: ignore[no-any-return]  # checked on the line above


def is_a_gate(subject: _Subject) -> None:
    """build gives an ExpertGate with num_experts and top_k"""
    gate = subject.build()
    require(isinstance(gate, ExpertGate), f"build gave {type(gate).__name__}, which does not derive from it")
    for name in ("num_experts", "top_k"):
        value = getattr(gate, name, None)
        require(isinstance(value, int) and value >= 0, f"{name} must be a whole number, not negative; got {value!r}")
    require(gate.top_k <= gate.num_experts, f"top_k is {gate.top_k} of only {gate.num_experts} experts")


def weights_are_valid(subject: _Subject) -> None:
    """weights are [B, M], finite, not negative, at most top_k of a user non-zero"""
    gate = subject.build()
    for mode in (True, False):
        gate.train(mode)
        for users in (subject.users(), subject.users(1), torch.zeros(2, _DIM), 100 * subject.users(3)):
            weights = _forward(gate, users).weights
            shape, expected = list(weights.shape), [len(users), gate.num_experts]
            require(shape == expected, f"weights must be {expected}, got {shape}")
            require(bool(torch.isfinite(weights).all()), "weights are not finite")
            require(bool((weights >= 0).all()), "weights are negative")
            most = int((weights != 0).sum(dim=1).max()) if weights.numel() else 0
            require(most <= gate.top_k, f"{most} weights of one user are not zero but top_k is {gate.top_k}")


def aux_loss_is_a_number(subject: _Subject) -> None:
    """aux_loss is one finite number"""
    gate = subject.build().train()
    loss = _forward(gate, subject.users()).aux_loss
    require(loss.dim() == 0, "aux_loss must be a tensor without dimensions")
    require(bool(torch.isfinite(loss)), f"aux_loss is {float(loss.detach())}")


def learns(subject: _Subject) -> None:
    """gradients reach the parameters"""
    gate = subject.build().train()
    parameters = [(name, p) for name, p in gate.named_parameters() if p.requires_grad]
    if not parameters:
        raise CheckSkipped("the gate has no parameters")
    decided = _forward(gate, subject.users())
    probe = torch.rand(decided.weights.shape, generator=torch.Generator().manual_seed(1))
    result = (decided.weights * probe).sum() + decided.aux_loss
    require(result.requires_grad, "the weights do not depend on the parameters, so the gate can never be trained")
    by_parameter = torch.autograd.grad(result, [p for _, p in parameters], allow_unused=True, materialize_grads=True)
    gradients = {name: gradient for (name, _), gradient in zip(parameters, by_parameter, strict=True)}
    bad = [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())]
    require(not bad, f"gradients that are not finite: {', '.join(bad)}")
    reached = any(bool((gradient != 0).any()) for gradient in gradients.values())
    require(reached, "the gradients of all parameters are zero, so the gate can never be trained")


def looks_at_one_user_at_a_time(subject: _Subject) -> None:
    """in evaluation a user's weights do not depend on who else is in the batch, and do not vary"""
    gate, users = subject.build().eval(), subject.users()
    together = _forward(gate, users).weights
    alone = torch.cat([_forward(gate, user[None]).weights for user in users])
    require(torch.allclose(together, alone, atol=1e-5), "weights of a user change with the batch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        again = gate(users).weights
    require(torch.equal(together, again), "weights vary from call to call; no noise in evaluation")


def is_saved_whole(subject: _Subject) -> None:
    """state_dict holds all that the gate has learnt"""
    gate, other, users = subject.build().eval(), subject.build(seed=1).eval(), subject.users()
    other.load_state_dict(gate.state_dict())
    same = torch.equal(_forward(gate, users).weights, _forward(other, users).weights)
    require(same, "a gate with the same state_dict decides otherwise; keep weights as parameters or buffers")


def bind_decides_alone(subject: _Subject) -> None:
    """bind leaves the users it is given as they are, and the same seed gives the same gate"""
    decided = []
    for _ in range(2):
        gate, seen = subject.bare().eval(), subject.users(24)
        before = seen.clone()
        gate.bind(seen, ("one", "two") * 12, seed=3)
        require(torch.equal(seen, before), "bind changed the embeddings it was given")
        decided.append(_forward(gate, subject.users()).weights)
    require(torch.equal(*decided), "with the same users and seed, the gate decides otherwise")


def takes_any_dimension(subject: _Subject) -> None:
    """any embedding dimension will do"""
    for dim in (1, 33):
        gate = subject.build(dim).eval()
        shape = list(_forward(gate, subject.users(4, dim)).weights.shape)
        require(shape == [4, gate.num_experts], f"for D={dim} weights are {shape}")


_CHECKS: list[Check[_Subject]] = [
    is_a_gate,
    weights_are_valid,
    aux_loss_is_a_number,
    learns,
    looks_at_one_user_at_a_time,
    is_saved_whole,
    bind_decides_alone,
    takes_any_dimension,
]


def check_gate(described: Described) -> list[CheckResult]:
    """Check an expert gate on random user embeddings."""
    return run_checks(_CHECKS, _Subject(described))
