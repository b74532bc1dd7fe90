"""One gate for each adapted module, as in the released code of CoPL."""

from __future__ import annotations

import copy
from typing import final

import torch
from torch import Tensor, nn

from copl.interfaces import ExpertGate
from copl.records import GateWeights


@final
class GatePerLayer(ExpertGate):
    """G gates of one kind; the weights of all of them stand one after the other.

    The copies draw first weights of their own from torch's global generator, wherever a module of the gate has
    ``reset_parameters``, as torch's own modules do. Auxiliary losses are averaged.

    Args:
        gate: the gate to copy; stays as it is.
        num_gates: number G of gates.
    """

    def __init__(self, gate: ExpertGate, num_gates: int) -> None:
        super().__init__()
        self.num_gates = num_gates
        self.num_experts = num_gates * gate.num_experts
        self.top_k = num_gates * gate.top_k
        self.gates = nn.ModuleList(copy.deepcopy(gate) for _ in range(num_gates))
        for module in self.gates.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()

    def forward(self, users: Tensor) -> GateWeights:
        """Return the weights [B, G M] for user embeddings [B, D]."""
        decided = [gate(users) for gate in self._each()]
        losses = torch.stack([one.aux_loss for one in decided])
        return GateWeights(torch.cat([one.weights for one in decided], dim=1), losses.mean())

    def _each(self) -> list[ExpertGate]:
        return [gate for gate in self.gates if isinstance(gate, ExpertGate)]
