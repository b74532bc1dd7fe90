"""The contract of expert gates, apart from the others (`copl.interfaces`) because a gate is a torch module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from copl.records import GateWeights

if TYPE_CHECKING:
    from torch import Tensor


class ExpertGate(nn.Module, ABC):
    """Decides from the user embedding how much each routed expert counts.

    Attributes:
        num_experts: number of routed experts M; 0 leaves only the shared expert.
        top_k: at most this many weights of a user differ from zero.
    """

    num_experts: int
    top_k: int

    @abstractmethod
    def forward(self, users: Tensor) -> GateWeights:
        """Return the weights [B, M] for user embeddings [B, D]."""

    def bind(self, users: Tensor, groups: Sequence[str | None], *, seed: int) -> None:
        """Learn from all seen users at once; called once, before training. Does nothing unless a gate needs it.

        What is learnt has to live in buffers, so that it is saved with the gate. Their shape may depend on the data:
        a gate then gives itself buffers of the shape that ``load_state_dict`` brings.

        Args:
            users: embeddings of the seen users [U, D], in the scale that `forward` gets.
            groups: the true group of each, None where it is unknown [U]; for oracles only.
            seed: the same seed gives the same gate.

        Raises:
            CoplError: the gate cannot work with these users.
        """
