from __future__ import annotations

import torch

from copl.experts.gates.catalogue import LearnedGateOptions
from copl.experts.gates.learned import LearnedGate
from copl.experts.per_layer import GatePerLayer


def test_gates_per_layer_are_gates_of_their_own() -> None:
    torch.manual_seed(0)
    single = LearnedGate(LearnedGateOptions(num_experts=4, balance=0.5), embedding_dim=6, top_k=1)
    gates, users = GatePerLayer(single, 3).eval(), torch.randn(20, 6)
    decided = gates(users)
    assert decided.weights.shape == (20, 12)
    assert (gates.num_experts, gates.top_k) == (12, 3)
    each = [gate(users) for gate in gates.gates]
    torch.testing.assert_close(decided.weights, torch.cat([one.weights for one in each], dim=1))
    torch.testing.assert_close(decided.aux_loss, sum(one.aux_loss for one in each) / 3)
    assert not torch.allclose(each[0].weights, each[1].weights)  # not copies of one another
