"""What nodes are before messages pass: free embeddings, and what the text of a response says."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@final
class NodeTable(nn.Module):
    """Embeddings and response effects before the first layer.

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
        self.users = nn.Parameter(users.clone())
        self.responses = nn.Parameter(responses.clone())
        self.bias = nn.Parameter(torch.zeros(len(responses), 1), requires_grad=bias)
        self.text: nn.Linear | None = None
        self.features: Tensor | None
        self.register_buffer("features", None, persistent=False)
        if features is not None:
            self.features = _standardised(features)
            self.text = nn.Linear(features.shape[1], users.shape[1] + 1, bias=False)
            nn.init.zeros_(self.text.weight)
        self._sparse = sparse

    def forward(self, users: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings of some nodes before the first layer [u + r, D] and the response effects [r].

        Args:
            users: rows of the users [u].
            responses: rows of the responses [r].
        """
        of_users = F.embedding(users, self.users, sparse=self._sparse)
        free = F.embedding(responses, self.responses, sparse=self._sparse)
        bias = F.embedding(responses, self.bias, sparse=self._sparse and self.bias.requires_grad)
        if self.text is not None and self.features is not None:
            told = self.text(self.features[responses])
            free, bias = free + told[:, :-1], bias + told[:, -1:] * self.bias.requires_grad
        return torch.cat([of_users, free]), bias[:, 0]

    def tables(self) -> list[nn.Parameter]:
        """Return the free embeddings of users and responses."""
        return [self.users, self.responses]

    def squares(self, users: Tensor, responses: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed squares of some nodes' free embeddings and of their response effects."""
        tables = [
            F.embedding(rows, table, sparse=self._sparse)
            for rows, table in zip((users, responses), self.tables(), strict=True)
        ]
        bias = F.embedding(responses, self.bias, sparse=self._sparse and self.bias.requires_grad)
        of_users, of_responses = (table.square().sum() for table in tables)
        return of_users + of_responses, bias.square().sum()


def _standardised(features: Tensor) -> Tensor:
    """Return the features centred, with a mean squared length of 1; constant ones become 0."""
    centred = features.float() - features.float().mean(dim=0)
    length = centred.square().sum(dim=1).mean().sqrt()
    return centred / length.clamp_min(1e-12)
