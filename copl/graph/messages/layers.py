"""The layers of CoPL's graph encoder, as published in the paper and as released."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copl.graph.messages.adjacency import SignedAdjacency
from copl.graph.messages.receptive_field import LayerField, Messages, ReceptiveField
from copl.graph.newcomers import plain
from copl.passes import LayerPass

NEGATIVE_SLOPE = 0.2

Formula = Literal["paper", "released"]


class NodeUpdate(nn.Module, ABC):
    """The new embeddings of one side of the graph from its own and from the messages of the other side."""

    @abstractmethod
    def plain(self) -> None:
        """Set the weights so that the node keeps itself, adds its chosen and subtracts its rejected neighbours."""

    @abstractmethod
    def maps(self) -> dict[str, Tensor]:
        """Return the matrices and the sum of the biases, by the names of `copl.passes.LayerPass`."""

    @abstractmethod
    def forward(self, own: Tensor, chosen: Messages, rejected: Messages | None) -> Tensor:
        """Return the new embeddings [n, D].

        Args:
            own: the nodes' embeddings e [n, D].
            chosen: normalised sums over chosen edges, Z+ [n, D].
            rejected: the same over rejected edges, Z-; None leaves those edges out.
        """


def _add(new: Tensor, own: Tensor, messages: Messages, term: Callable[[Tensor, Tensor], Tensor], sign: int) -> Tensor:
    """Return `new` plus or minus ``term(Z, e)`` at the nodes that have messages; `term` is zero at the others."""
    if messages.rows is None:
        return torch.add(new, term(messages.sums, own), alpha=sign)
    there = own.index_select(0, messages.rows)
    return new.index_add(0, messages.rows, term(messages.sums, there), alpha=sign)


def _zero(*maps: nn.Linear | None) -> None:
    for linear in maps:
        if linear is not None:
            for parameter in linear.parameters():
                nn.init.zeros_(parameter)


@final
class PaperUpdate(NodeUpdate):
    r"""e' = LeakyReLU(W0 e + W1 Z+ + W2 (Z+ * e) + W3 Z- + W4 (Z- * e)), slope 0.2.

    The formula of CoPL (arXiv 2503.01658): m+ = sum over r of a_ur (W1 e_r + W2 (e_r * e_u)); the sums are taken before
    the matrices, which changes nothing but the cost.

    Args:
        dim: embedding dimension D.
        hadamard: keep the elementwise terms W2 and W4.
        negative_edges: keep the terms of rejected edges.
    """

    def __init__(self, dim: int, *, hadamard: bool, negative_edges: bool) -> None:
        super().__init__()
        self.own = nn.Linear(dim, dim, bias=False)
        self.chosen = nn.Linear(dim, dim, bias=False)
        self.chosen_product = nn.Linear(dim, dim, bias=False) if hadamard else None
        self.rejected = nn.Linear(dim, dim, bias=False) if negative_edges else None
        self.rejected_product = nn.Linear(dim, dim, bias=False) if hadamard and negative_edges else None

    def plain(self) -> None:
        nn.init.eye_(self.own.weight)
        nn.init.eye_(self.chosen.weight)
        if self.rejected is not None:
            with torch.no_grad():
                self.rejected.weight.copy_(-torch.eye(len(self.rejected.weight)))
        _zero(self.chosen_product, self.rejected_product)

    def maps(self) -> dict[str, Tensor]:
        return {name.removesuffix(".weight"): matrix for name, matrix in self.named_parameters()}

    def forward(self, own: Tensor, chosen: Messages, rejected: Messages | None) -> Tensor:
        new = _add(self.own(own), own, chosen, _mapped(self.chosen, self.chosen_product), 1)
        if self.rejected is not None and rejected is not None:
            new = _add(new, own, rejected, _mapped(self.rejected, self.rejected_product), 1)
        return F.leaky_relu(new, NEGATIVE_SLOPE)


def _mapped(plain: nn.Linear, product: nn.Linear | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return W Z + W' (Z * e)."""

    def term(sums: Tensor, own: Tensor) -> Tensor:
        mapped: Tensor = plain(sums)
        return mapped if product is None else mapped + product(sums * own)

    return term


@final
class ReleasedUpdate(NodeUpdate):
    r"""e' = LeakyReLU(W_self e + Z+ + W+(Z+ * e) - Z- - W-(Z- * e)), slope 0.2.

    The formula of CoPL's released code: plain messages are not transformed, the three maps have biases.

    Args:
        dim: embedding dimension D.
        hadamard: keep the elementwise terms W+ and W-.
        negative_edges: keep the terms of rejected edges.
    """

    def __init__(self, dim: int, *, hadamard: bool, negative_edges: bool) -> None:
        super().__init__()
        self._negative_edges = negative_edges
        self.own = nn.Linear(dim, dim)
        self.chosen_product = nn.Linear(dim, dim) if hadamard else None
        self.rejected_product = nn.Linear(dim, dim) if hadamard and negative_edges else None

    def plain(self) -> None:
        nn.init.eye_(self.own.weight)
        nn.init.zeros_(self.own.bias)
        _zero(self.chosen_product, self.rejected_product)

    def maps(self) -> dict[str, Tensor]:
        one = torch.eye(len(self.own.weight))
        maps = {"own": self.own.weight, "bias": self._bias(self._negative_edges), "chosen": one}
        if self._negative_edges:
            maps["rejected"] = -one
        if self.chosen_product is not None:
            maps["chosen_product"] = self.chosen_product.weight
        if self.rejected_product is not None:
            maps["rejected_product"] = -self.rejected_product.weight
        return maps

    def _bias(self, rejected: bool) -> Tensor:
        """Return the sum of the biases; those of the products hold for nodes without messages, too."""
        bias: Tensor = self.own.bias
        if self.chosen_product is not None:
            bias = bias + self.chosen_product.bias
        if self.rejected_product is not None and rejected:
            bias = bias - self.rejected_product.bias
        return bias

    def forward(self, own: Tensor, chosen: Messages, rejected: Messages | None) -> Tensor:
        bias = self._bias(rejected is not None)
        new = _add(F.linear(own, self.own.weight, bias), own, chosen, _kept(self.chosen_product), 1)
        if rejected is not None:
            new = _add(new, own, rejected, _kept(self.rejected_product), -1)
        return F.leaky_relu(new, NEGATIVE_SLOPE)


def _kept(product: nn.Linear | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return Z + W (Z * e), without the bias."""

    def term(sums: Tensor, own: Tensor) -> Tensor:
        return sums if product is None else sums + F.linear(sums * own, product.weight)

    return term


@final
class SignedLayer(nn.Module):
    """One round of messages over the signed preference graph, in both directions at once.

    Args:
        dim: embedding dimension D.
        formula: ``paper`` (`PaperUpdate`) or ``released`` (`ReleasedUpdate`).
        weights: ``shared`` uses the same maps for users and responses, ``separate`` one set each.
        hadamard: keep the elementwise terms.
        negative_edges: keep the rejected edges.
    """

    def __init__(
        self,
        dim: int,
        *,
        formula: Formula = "released",
        weights: Literal["shared", "separate"] = "shared",
        hadamard: bool = True,
        negative_edges: bool = True,
    ) -> None:
        super().__init__()
        update = PaperUpdate if formula == "paper" else ReleasedUpdate
        self.negative_edges = negative_edges
        self.of_users: NodeUpdate = update(dim, hadamard=hadamard, negative_edges=negative_edges)
        self.of_responses: NodeUpdate = (
            self.of_users if weights == "shared" else update(dim, hadamard=hadamard, negative_edges=negative_edges)
        )

    def start(self, generator: torch.Generator | None) -> None:
        """Set the weights before training: Xavier uniform draws, or the plain sum of neighbours without a generator."""
        if generator is None:
            self.of_users.plain()
            self.of_responses.plain()
            return
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, users: Tensor, responses: Tensor, adjacency: SignedAdjacency) -> tuple[Tensor, Tensor]:
        """Return the new embeddings of users [U, D] and responses [R, D]."""
        chosen, rejected = adjacency.chosen, adjacency.rejected
        return (
            self.of_users(
                users,
                Messages(chosen @ responses),
                Messages(rejected @ responses) if self.negative_edges else None,
            ),
            self.of_responses(
                responses,
                Messages(chosen.T @ users),
                Messages(rejected.T @ users) if self.negative_edges else None,
            ),
        )

    def within(self, users: Tensor, responses: Tensor, field: LayerField) -> tuple[Tensor, Tensor]:
        """Return the new embeddings of the users [u, D] and responses [r, D] of a field."""
        (liked_by_users, disliked_by_users), (liking_users, disliking_users) = field.to_users, field.to_responses
        return (
            self.of_users(
                users.index_select(0, field.users),
                liked_by_users.messages(responses),
                disliked_by_users.messages(responses) if self.negative_edges else None,
            ),
            self.of_responses(
                responses.index_select(0, field.responses),
                liking_users.messages(users),
                disliking_users.messages(users) if self.negative_edges else None,
            ),
        )


@final
class SignedNetwork(nn.Module):
    """Embedding tables followed by signed layers; the last layer's output is the embedding.

    Attributes:
        users: table of users before the first layer [U, D].
        responses: table of responses before the first layer [R, D].
        response_bias: what all users share about a response [R]; fixed at 0 where `bias` is False.
    """

    def __init__(self, users: Tensor, responses: Tensor, layers: list[SignedLayer], *, bias: bool) -> None:
        super().__init__()
        self.users = nn.Parameter(users.clone())
        self.responses = nn.Parameter(responses.clone())
        self.response_bias = nn.Parameter(torch.zeros(len(responses)), requires_grad=bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, adjacency: SignedAdjacency) -> tuple[Tensor, Tensor]:
        """Return the embeddings of users [U, D] and responses [R, D]."""
        return deque(self.rounds(adjacency), maxlen=1).pop()

    def rounds(self, adjacency: SignedAdjacency) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield users [U, D] and responses [R, D] before the first layer and after each."""
        users: Tensor = self.users
        responses: Tensor = self.responses
        yield users, responses
        for layer in self.layers:
            users, responses = layer(users, responses, adjacency)
            yield users, responses

    def newcomer(self, adjacency: SignedAdjacency) -> tuple[LayerPass, ...]:
        """Return what the layers make of a newcomer."""
        layers = []
        for layer, (_, responses) in zip(self.layers, self.rounds(adjacency), strict=False):
            assert isinstance(layer, SignedLayer)
            maps = {name: plain(value) for name, value in layer.of_users.maps().items()}
            layers.append(LayerPass(plain(responses), **maps))
        return tuple(layers)

    def within(self, field: ReceptiveField) -> tuple[Tensor, Tensor]:
        """Return the embeddings of the users and responses of a batch, as `forward` has them."""
        users, responses = self.users.index_select(0, field.users), self.responses.index_select(0, field.responses)
        for layer, part in zip(self.layers, field.layers, strict=True):
            assert isinstance(layer, SignedLayer)
            users, responses = layer.within(users, responses, part)
        return users, responses
