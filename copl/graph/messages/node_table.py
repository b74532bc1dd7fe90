"""What nodes are before messages pass: free embeddings, and what the text of a response says."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@final
class NodeTable(nn.Module):
    """Embeddings and response effects before the first layer; nodes are numbered users first.

    A response is its free embedding plus a learned linear map of its text features; its effect likewise. So a response
    that nobody has compared, whose free part stays at 0, is still placed by its text.

    Args:
        users: first values of the users' embeddings [U, D].
        responses: first values of the responses' free embeddings [R, D].
        features: text features of the responses [R, F], if they are to be used.
        bias: learn response effects.
        sparse: give gradients for the rows in use only, for `torch.optim.SparseAdam`.
    """

    def __init__(
        self, users: Tensor, responses: Tensor, features: Tensor | None, *, bias: bool, sparse: bool = False
    ) -> None:
        super().__init__()
        self.num_users = len(users)
        self.free = nn.Parameter(torch.cat([users, responses]))
        self.bias = nn.Parameter(torch.zeros(len(responses), 1), requires_grad=bias)
        self.text: nn.Linear | None = None
        self.features: Tensor | None
        self.register_buffer("features", None, persistent=False)
        if features is not None:
            self.features = _standardised(features)
            self.text = nn.Linear(features.shape[1], users.shape[1] + 1, bias=False)
            nn.init.zeros_(self.text.weight)
        self._sparse = sparse

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the embeddings before the first layer [n, D] of some nodes [n], each once, users first."""
        free = self._rows(self.free, nodes)
        if self.text is None or self.features is None:
            return free
        responses = nodes[nodes >= self.num_users] - self.num_users
        cut = len(nodes) - len(responses)
        return torch.cat([free[:cut], free[cut:] + F.linear(self.features[responses], self.text.weight[:-1])])

    def effects(self, responses: Tensor) -> Tensor:
        """Return the response effects of some responses [r], each once."""
        effects = self._rows(self.bias, responses)[:, 0]
        if self.text is not None and self.features is not None and self.bias.requires_grad:
            effects = effects + self.features[responses] @ self.text.weight[-1]
        return effects

    def squares(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed squares of some nodes' free embeddings and of their response effects."""
        effects = self._rows(self.bias, nodes[nodes >= self.num_users] - self.num_users)
        return self._rows(self.free, nodes).square().sum(), effects.square().sum()

    def _rows(self, table: Tensor, rows: Tensor) -> Tensor:
        if self._sparse and table.requires_grad:
            return F.embedding(rows, table, sparse=True)
        return table if len(rows) == len(table) else table.index_select(0, rows)


def _standardised(features: Tensor) -> Tensor:
    """Return the features centred, with a mean squared length of 1; constant ones become 0."""
    centred = features.float() - features.float().mean(dim=0)
    length = centred.square().sum(dim=1).mean().sqrt()
    return centred / length.clamp_min(1e-12)
