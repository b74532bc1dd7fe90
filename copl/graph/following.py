r"""New comparisons taken into a fitted model node by node, as a sequential Bayesian update by Laplace's method.

What the old comparisons and the prior say of a node is kept as a normal distribution around where it is, with the
curvature H that they give it there (Laplace's method); the new comparisons are added in full:

.. math::
    x_n = \arg\min_x \sum_{i \text{ new}} w_i \log(1 + e^{-m_i(x)}) + \tfrac12 (x - x_n^0)^\top H_n (x - x_n^0)

So a node about which nothing new was said stays exactly where it is, whatever made it stop there, and one of which
nothing was known has its prior alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from copl.graph.training import ComparisonTensors

_STEPS = 8
_ROUNDS = 3
_AT_ONCE = 16_384


@final
@attrs.frozen(eq=False)
class Factors:
    """Users [U, D], responses [R, D] and response effects [R] of a bilinear model, double precision."""

    users: Tensor
    responses: Tensor
    bias: Tensor

    def margins(self, rows: ComparisonTensors) -> Tensor:
        return rows.margins(self.users, self.responses, self.bias)


@final
@attrs.frozen
class Precisions:
    """Prior precisions of embeddings and of response effects."""

    embedding: float
    bias: float


def follow(
    start: Factors, rows: ComparisonTensors, precisions: Precisions, *, new_of_user: Tensor, new_of_response: Tensor
) -> Factors:
    """Return the factors after new comparisons: users by responses and responses by users, in turn.

    Args:
        start: where they are; zeros where nothing is known.
        rows: all comparisons [N].
        precisions: of the prior.
        new_of_user: which comparisons are new to what is known of their users [N].
        new_of_response: the same of their responses [N].
    """
    weight = rows.weight.double()
    now = start
    for number in range(_ROUNDS):
        now = attrs.evolve(now, users=_of_users(start, now, rows, weight, precisions, new_of_user))
        if number < _ROUNDS - 1:
            responses, bias = _of_responses(start, now, rows, weight, precisions, new_of_response)
            now = attrs.evolve(now, responses=responses, bias=bias)
    return now


def _of_users(
    start: Factors, now: Factors, rows: ComparisonTensors, weight: Tensor, precisions: Precisions, is_new: Tensor
) -> Tensor:
    design = now.responses[rows.chosen] - now.responses[rows.rejected]
    effects = now.bias[rows.chosen] - now.bias[rows.rejected]
    touched = torch.unique(rows.user[is_new])
    place = _places(touched, len(start.users))
    hold = torch.eye(design.shape[1], dtype=torch.float64).mul(precisions.embedding).repeat(len(touched), 1, 1)
    old = ~is_new & (place[rows.user] >= 0)
    _add_curvature(hold, place[rows.user[old]], design[old], start.margins(rows.take(old)), weight[old])
    node, inner = place[rows.user[is_new]], design[is_new]
    own = start.users[touched]
    x = own.clone()
    for _ in range(_STEPS):
        margins = (x[node] * inner).sum(1) + effects[is_new]
        x = _step(x, own, hold, node, inner, margins, weight[is_new], overlap=1.0)
    users = now.users.clone()
    users[touched] = x
    return users


def _of_responses(
    start: Factors, now: Factors, rows: ComparisonTensors, weight: Tensor, precisions: Precisions, is_new: Tensor
) -> tuple[Tensor, Tensor]:
    ends = torch.stack([rows.chosen, rows.rejected])
    touched = torch.unique(ends[:, is_new])
    place = _places(touched, len(start.responses))
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None, None]
    design = signs * torch.cat([now.users, now.users.new_ones(len(now.users), 1)], dim=1)[rows.user]
    prior = torch.full((design.shape[2],), precisions.embedding, dtype=torch.float64)
    prior[-1] = precisions.bias
    hold = torch.diag(prior).repeat(len(touched), 1, 1)
    before = start.margins(rows)
    for end, sign in zip(ends, design, strict=True):
        old = ~is_new & (place[end] >= 0)
        _add_curvature(hold, place[end[old]], sign[old], before[old], weight[old])
    node, inner = place[ends[:, is_new]].reshape(-1), design[:, is_new].reshape(-1, design.shape[2])
    table = torch.cat([start.responses, start.bias[:, None]], dim=1)
    own = table[touched]
    x, doubled = own.clone(), weight[is_new].repeat(2)
    for _ in range(_STEPS):
        table[touched] = x
        margins = attrs.evolve(now, responses=table[:, :-1], bias=table[:, -1]).margins(rows.take(is_new))
        # both ends of a comparison move at once: (a + b)^2 <= 2 a^2 + 2 b^2
        x = _step(x, own, hold, node, inner, margins.repeat(2), doubled, overlap=2.0)
    table[touched] = x
    return table[:, :-1].contiguous(), table[:, -1].contiguous()


def _places(touched: Tensor, count: int) -> Tensor:
    """Return the place of each of `count` nodes among those touched; -1 for the others."""
    place = torch.full((count,), -1, dtype=torch.int64)
    place[touched] = torch.arange(len(touched))
    return place


def _add_curvature(hold: Tensor, node: Tensor, design: Tensor, margins: Tensor, weight: Tensor) -> None:
    probability = torch.sigmoid(margins.double())
    _add_squares(hold, node, design, weight * probability * (1 - probability))


def _add_squares(system: Tensor, node: Tensor, design: Tensor, weight: Tensor) -> None:
    """Add the sum of w d d^T over the comparisons of each node to `system` [n, K, K]."""
    for start in range(0, len(node), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        inner = design[part]
        system.index_add_(0, node[part], inner[:, :, None] * (weight[part, None] * inner)[:, None, :])


def _step(
    x: Tensor,
    start: Tensor,
    hold: Tensor,
    node: Tensor,
    design: Tensor,
    margins: Tensor,
    weight: Tensor,
    overlap: float,
) -> Tensor:
    """Return a step that cannot raise what is minimised: the logistic loss is bounded by a parabola that touches it
    (Jaakkola and Jordan, 2000)."""
    half = margins.abs().clamp_min(1e-4) / 2
    system = hold.clone()
    _add_squares(system, node, design, overlap * weight * torch.tanh(half) / (4 * half))
    slope = -(hold @ (x - start)[..., None])[..., 0]
    slope.index_add_(0, node, (weight * torch.sigmoid(-margins))[:, None] * design)
    moved: Tensor = x + torch.linalg.solve(system, slope[..., None])[..., 0]
    return moved
