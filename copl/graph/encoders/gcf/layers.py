"""The layers of CoPL's graph encoder, as published in the paper and as released."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copl.graph.encoders.catalogue import Formula
from copl.graph.messages.hops import Hop, Messages

NEGATIVE_SLOPE = 0.2


class NodeUpdate(nn.Module, ABC):
    """The new embeddings of one side of the graph from its own and from the messages of the other side."""

    @abstractmethod
    def plain(self) -> None:
        """Set the weights so that the node keeps itself, adds its chosen and subtracts its rejected neighbours."""

    @abstractmethod
    def maps(self) -> dict[str, Tensor]:
        """Return the matrices and the sum of the biases, by the names of `copl.records.passes.LayerPass`."""

    @abstractmethod
    def forward(self, own: Tensor, chosen: Messages, rejected: Messages | None) -> Tensor:
        """Return the new embeddings [n, D].

        Args:
            own: the nodes' embeddings e [n, D].
            chosen: normalised sums over chosen edges, Z+ [n, D].
            rejected: the same over rejected edges, Z-; None leaves those edges out.
        """


class _ProductTerm(torch.autograd.Function):
    """W (Z * e), which keeps Z, e and W for the backward pass and no matrix besides.

    Such matrices are as large as the graph: on a processor the memory of one more costs as much as the arithmetic on
    it. So what can be made again is, and sums are taken in place, here and in `_add`.
    """

    @staticmethod
    def forward(ctx: Any, sums: Tensor, own: Tensor, rows: Tensor | None, weight: Tensor) -> Tensor:
        ctx.rows = rows
        ctx.save_for_backward(sums, own, weight)
        return _at(own, rows).mul_(sums) @ weight.T

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (upstream,), (sums, own, weight) = grads, ctx.saved_tensors
        product, inner = _at(own, ctx.rows), upstream @ weight
        of_weight = upstream.T @ (sums * product)
        of_sums = product.mul_(inner)
        of_own = inner.mul_(sums)
        if ctx.rows is not None:
            of_own = torch.zeros_like(own).index_add_(0, ctx.rows, of_own)
        return of_sums, of_own, None, of_weight


def _at(own: Tensor, rows: Tensor | None) -> Tensor:
    """Return a copy of some rows."""
    return own.clone() if rows is None else own.index_select(0, rows)


def _add(
    new: Tensor, own: Tensor, messages: Messages, plain: nn.Linear | None, product: nn.Linear | None, sign: int
) -> Tensor:
    """Add or subtract W Z + W' (Z * e) to `new`, which it changes; it is zero at nodes without messages.

    Args:
        new: the sum so far [n, D].
        own: e [n, D].
        messages: Z at the nodes that have such edges.
        plain: W, without its bias; None for the identity.
        product: W', without its bias; None for zeros.
        sign: 1 or -1.
    """
    sums, rows = messages.sums, messages.rows
    term = sums if plain is None else F.linear(sums, plain.weight)
    if product is not None:
        term = _ProductTerm.apply(sums, own, rows, product.weight).add_(term)  # type: ignore[no-untyped-call]
    return new.add_(term, alpha=sign) if rows is None else new.index_add_(0, rows, term, alpha=sign)


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
        new = _add(self.own(own), own, chosen, self.chosen, self.chosen_product, 1)
        if self.rejected is not None and rejected is not None:
            new = _add(new, own, rejected, self.rejected, self.rejected_product, 1)
        return F.leaky_relu(new, NEGATIVE_SLOPE, inplace=True)


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
        new = _add(F.linear(own, self.own.weight, bias), own, chosen, None, self.chosen_product, 1)
        if rejected is not None:
            new = _add(new, own, rejected, None, self.rejected_product, -1)
        return F.leaky_relu(new, NEGATIVE_SLOPE, inplace=True)


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

    def plain(self) -> None:
        """Set the weights before training to the plain sum of neighbours."""
        self.of_users.plain()
        self.of_responses.plain()

    def draw(self) -> None:
        """Draw the weights before training, Xavier uniform, from torch's generator; biases are 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, nodes: Tensor, hop: Hop) -> Tensor:
        """Return the new embeddings of the targets [m, D] of a hop from its sources [n, D]."""
        own, chosen = hop.own(nodes), hop.chosen.messages(nodes)
        rejected = hop.rejected.messages(nodes) if self.negative_edges else None
        if self.of_users is self.of_responses:
            return self.of_users(own, chosen, rejected)  # type: ignore[no-any-return]  # modules return Any
        place = hop.num_users
        to_users, to_responses = chosen.split(place)
        from_users, from_responses = rejected.split(place) if rejected is not None else (None, None)
        users = self.of_users(own[:place], to_users, from_users)
        responses = self.of_responses(own[place:], to_responses, from_responses)
        return torch.cat([users, responses])
