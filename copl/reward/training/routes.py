"""Users whose experts are the same, so that a text has the same hidden states for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from copl.interfaces import ExpertGate

if TYPE_CHECKING:
    from copl.records import IntArray
    from copl.reward.model import AffineScaling


@torch.no_grad()
def fixed_routes(gate: ExpertGate, scaling: AffineScaling, users: Tensor) -> IntArray | None:
    """Return the route of each user [U]; users of one route have the same expert weights throughout training.

    Args:
        gate: the gate, bound to the seen users. It is fixed if it has nothing to learn and adds no noise.
        scaling: of the users.
        users: embeddings [U, D], which do not change in training.

    Returns:
        a number from 0 for each user, all 0 where there are no routed experts; None where the gate is not fixed.
    """
    if gate.num_experts == 0:
        return np.zeros(len(users), dtype=np.int64)
    if any(parameter.requires_grad for parameter in gate.parameters()):
        return None
    conditioned, training = scaling.apply(users), gate.training
    weights, again = (gate.train(mode)(conditioned).weights for mode in (False, True))
    gate.train(training)
    if not torch.equal(weights, again):
        return None
    _, routes = np.unique(weights.numpy(), axis=0, return_inverse=True)
    return np.asarray(routes.reshape(-1), dtype=np.int64)
