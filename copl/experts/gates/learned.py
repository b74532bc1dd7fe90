"""Gates that learn which users belong to which experts: ``top1``, ``topk`` and ``softmax``.

All three are one network, an MLP on the user embedding followed by a softmax,

    p = softmax((W_2 ReLU(W_1 e_u + b_1) + b_2 + noise) / temperature),

and differ in how many of the p are kept as weights; the rest become zero and the kept ones stay as they are.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from copl.experts.gates.catalogue import LearnedGateOptions, TopKGateOptions
from copl.interfaces import ExpertGate
from copl.records import GateWeights


def switch_balance(probabilities: Tensor, weights: Tensor) -> Tensor:
    """Return the load-balancing loss of Switch Transformers (Fedus et al., 2022), 1 where the load is even.

    M * sum_m f_m P_m, with f_m the share of routings that go to expert m and P_m its mean probability.

    Args:
        probabilities: the softmax [B, M].
        weights: the weights that were kept [B, M].
    """
    routed = (weights > 0).to(probabilities.dtype)
    share = routed.mean(0) / routed.sum(1).mean().clamp(min=1.0)
    return probabilities.shape[1] * (share * probabilities.mean(0)).sum()


def keep_largest(values: Tensor, count: int) -> Tensor:
    """Return `values` [B, M] with all but the `count` largest of each row set to zero."""
    if count >= values.shape[1]:
        return values
    kept, columns = values.topk(count, dim=1)
    return torch.zeros_like(values).scatter(1, columns, kept)


@final
class LearnedGate(ExpertGate):
    """An MLP on the user embedding, a softmax, and the `top_k` largest probabilities as weights.

    Args:
        options: see `LearnedGateOptions`.
        embedding_dim: dimension D of the user embeddings.
        top_k: number of experts kept; all of them for a dense gate.
    """

    def __init__(self, options: LearnedGateOptions, *, embedding_dim: int, top_k: int) -> None:
        super().__init__()
        self.num_experts = options.num_experts
        self.top_k = top_k
        self.options = options
        self.hidden = nn.Linear(embedding_dim, options.hidden_dim)
        self.output = nn.Linear(options.hidden_dim, options.num_experts)

    def forward(self, users: Tensor) -> GateWeights:
        """Return the weights [B, M] for user embeddings [B, D].

        Noise is drawn from torch's global generator, in training mode only.
        """
        logits = self.output(torch.relu(self.hidden(users))).float()
        if self.training and self.options.noise > 0:
            logits = logits + self.options.noise * torch.randn_like(logits)
        logits = (logits / self.options.temperature).to(getattr(torch, self.options.softmax_dtype))
        probabilities = torch.softmax(logits, dim=1).float()
        weights = keep_largest(probabilities, self.top_k)
        balance = self.options.balance
        aux_loss = balance * switch_balance(probabilities, weights) if balance > 0 else weights.new_zeros(())
        return GateWeights(weights, aux_loss)


def build_top1(options: LearnedGateOptions, *, embedding_dim: int) -> LearnedGate:
    return LearnedGate(options, embedding_dim=embedding_dim, top_k=1)


def build_topk(options: TopKGateOptions, *, embedding_dim: int) -> LearnedGate:
    return LearnedGate(options, embedding_dim=embedding_dim, top_k=options.top_k)


def build_softmax(options: LearnedGateOptions, *, embedding_dim: int) -> LearnedGate:
    return LearnedGate(options, embedding_dim=embedding_dim, top_k=options.num_experts)
