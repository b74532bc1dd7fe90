"""Gate ``noisy-topk``: noisy top-k gating with its two balancing losses (Shazeer et al., 2017, arXiv:1701.06538)."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl.experts.gates.catalogue import NoisyTopKOptions
from copl.interfaces import ExpertGate
from copl.records import GateWeights


def squared_variation(values: Tensor) -> Tensor:
    """Return the squared coefficient of variation of `values` [M]: variance over squared mean."""
    return values.var(unbiased=False) / values.mean().square().clamp(min=1e-10)


@final
class NoisyTopKGate(ExpertGate):
    """Linear gate with learned noise; the softmax runs over the k largest noisy logits only.

    H = e_u W_g + eps * softplus(e_u W_n), eps ~ N(0, 1) in training; weights = softmax(top-k of H). The auxiliary loss
    is the squared coefficient of variation of the importance (sum of weights) plus that of the load (smoothed number
    of users) of the experts.
    """

    def __init__(self, options: NoisyTopKOptions, *, embedding_dim: int) -> None:
        super().__init__()
        self.num_experts = options.num_experts
        self.top_k = options.top_k
        self.balance = options.balance
        self.clean = nn.Linear(embedding_dim, options.num_experts, bias=False)
        self.spread = nn.Linear(embedding_dim, options.num_experts, bias=False)

    def forward(self, users: Tensor) -> GateWeights:
        """Return the weights [B, M] for user embeddings [B, D]; noise comes from torch's global generator."""
        clean = self.clean(users).float()
        if not self.training:
            return GateWeights(self._weights(clean), clean.new_zeros(()))
        deviation = F.softplus(self.spread(users).float()) + 1e-2
        noisy = clean + deviation * torch.randn_like(clean)
        weights = self._weights(noisy)
        if self.balance == 0:
            return GateWeights(weights, clean.new_zeros(()))
        importance = squared_variation(weights.sum(0))
        load = squared_variation(self._load(clean, noisy, deviation))
        return GateWeights(weights, self.balance * (importance + load))

    def _weights(self, logits: Tensor) -> Tensor:
        kept, columns = logits.topk(self.top_k, dim=1)
        return torch.zeros_like(logits).scatter(1, columns, torch.softmax(kept, dim=1))

    def _load(self, clean: Tensor, noisy: Tensor, deviation: Tensor) -> Tensor:
        """Expected number of users [M] of each expert, were its noise alone drawn again."""
        if self.top_k == self.num_experts:
            return clean.new_ones(self.num_experts)
        largest = noisy.topk(self.top_k + 1, dim=1).values
        inside = noisy >= largest[:, self.top_k - 1 : self.top_k]
        # An expert that is in has to beat the first one out to stay, one that is out has to beat the last one in.
        threshold = torch.where(inside, largest[:, self.top_k :], largest[:, self.top_k - 1 : self.top_k])
        load: Tensor = torch.special.ndtr((clean - threshold) / deviation).sum(0)
        return load


def build_noisy(options: NoisyTopKOptions, *, embedding_dim: int) -> NoisyTopKGate:
    return NoisyTopKGate(options, embedding_dim=embedding_dim)
