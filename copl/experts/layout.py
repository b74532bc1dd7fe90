"""Which columns of the one LoRA belong to which expert."""

from __future__ import annotations

from typing import final

import attrs
import torch
from attrs.validators import ge
from torch import Tensor


@final
@attrs.frozen
class RankLayout:
    """The rank dimension of the mixture: the shared expert first, then the routed experts in order.

    Attributes:
        shared_rank: rank r_s of the shared expert.
        expert_rank: rank r_e of each routed expert.
        num_experts: number M of routed experts.
    """

    shared_rank: int = attrs.field(validator=ge(0))
    expert_rank: int = attrs.field(validator=ge(1))
    num_experts: int = attrs.field(validator=ge(0))

    def __attrs_post_init__(self) -> None:
        if self.rank == 0:
            raise ValueError("shared_rank is 0 and the gate has no experts, so there would be nothing to train")

    @property
    def rank(self) -> int:
        """Total rank R = r_s + M * r_e."""
        return self.shared_rank + self.num_experts * self.expert_rank

    @property
    def scaled_rank(self) -> int:
        """The rank that alpha is divided by: r_e, or r_s where the shared expert is alone."""
        return self.expert_rank if self.num_experts else self.shared_rank

    def mask(self, weights: Tensor) -> Tensor:
        """Return the factors [B, G, R] of the rank columns: 1 for the shared ones, w_m for those of expert m.

        Args:
            weights: weight of each routed expert under each of G gates [B, G, M].
        """
        shared = weights.new_ones(*weights.shape[:2], self.shared_rank)
        routed = weights.unsqueeze(-1).expand(-1, -1, -1, self.expert_rank).flatten(2)
        return torch.cat([shared, routed], dim=2)
