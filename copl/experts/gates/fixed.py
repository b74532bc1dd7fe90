"""Gates without anything to learn: ``none`` (one LoRA for all), and the controls ``uniform`` and ``random``."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from copl.experts.gates.catalogue import RandomGateOptions, UniformGateOptions
from copl.interfaces import ExpertGate
from copl.options import NoOptions
from copl.records import GateWeights


@final
class NoGate(ExpertGate):
    """No routed experts: every user shares one LoRA."""

    num_experts = 0
    top_k = 0

    def forward(self, users: Tensor) -> GateWeights:
        """Return weights [B, 0]."""
        return GateWeights(users.new_zeros(len(users), 0), users.new_zeros(()))


@final
class UniformGate(ExpertGate):
    """Weight 1 / M for every expert and user: the parameters of a mixture without any routing."""

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.num_experts = self.top_k = num_experts

    def forward(self, users: Tensor) -> GateWeights:
        """Return weights [B, M]."""
        weights = torch.full((len(users), self.num_experts), 1 / self.num_experts, device=users.device)
        return GateWeights(weights, weights.new_zeros(()))


@final
class RandomGate(ExpertGate):
    """One expert of weight 1 for each user, unrelated to what the user is like but always the same.

    The expert is a hash of the embedding: the fractional part of 1,000 times a random projection of it. Embeddings that
    differ by more than a thousandth of their length go separate ways; rounding errors of float32 do not matter.
    """

    projection: Tensor

    def __init__(self, options: RandomGateOptions, *, embedding_dim: int) -> None:
        super().__init__()
        self.num_experts = options.num_experts
        self.top_k = 1
        generator = torch.Generator().manual_seed(options.seed)
        self.register_buffer("projection", torch.randn(embedding_dim, generator=generator))

    def forward(self, users: Tensor) -> GateWeights:
        """Return weights [B, M]."""
        directions = torch.nn.functional.normalize(users.detach().double(), dim=1)
        phase = 1000.0 * (directions @ self.projection.double())
        expert = ((phase - phase.floor()) * self.num_experts).long().clamp(max=self.num_experts - 1)
        weights = torch.nn.functional.one_hot(expert, self.num_experts).float()
        return GateWeights(weights, weights.new_zeros(()))


def build_none(options: NoOptions, *, embedding_dim: int) -> NoGate:
    return NoGate()


def build_uniform(options: UniformGateOptions, *, embedding_dim: int) -> UniformGate:
    return UniformGate(options.num_experts)


def build_random(options: RandomGateOptions, *, embedding_dim: int) -> RandomGate:
    return RandomGate(options, embedding_dim=embedding_dim)
