"""What the encoders' passes for newcomers (`copl.records.passes`) are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch

from copl.records import NodeEmbeddings
from copl.records.passes import MemberPass, NewcomerPass, SideBySidePass

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import Comparisons


def plain(value: Tensor) -> Tensor:
    """Return a tensor as it is kept: single precision, without a gradient."""
    return value.detach().float().contiguous()


def with_pass(embeddings: NodeEmbeddings, newcomer_pass: NewcomerPass | None) -> NodeEmbeddings:
    """Return the embeddings with a pass."""
    return attrs.evolve(embeddings, newcomer_pass=newcomer_pass)


def side_by_side(members: Sequence[NodeEmbeddings], weights: Sequence[float]) -> SideBySidePass | None:
    """Return the passes of members whose embeddings lie side by side, users scaled by the weights.

    None where a member has no pass: a newcomer would lack its part.
    """
    parts = [
        MemberPass(member.newcomer_pass, weight, member.response_bias)
        for member, weight in zip(members, weights, strict=True)
        if member.newcomer_pass is not None
    ]
    return SideBySidePass(tuple(parts)) if len(parts) == len(members) else None


def normal_prior(users: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean [D] of users and a factor [D, D] of twice their covariance, as they were drawn to their mean."""
    exact = users.detach().double()
    centred = exact - exact.mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return exact.mean(dim=0), vectors * (2 * values.clamp_min(0)).sqrt()


def response_degrees(train: Comparisons, num_responses: int) -> Tensor:
    """Return the degree of each response in the chosen and in the rejected edges [2, R]."""
    degrees = [np.bincount(column, train.weight, num_responses) for column in (train.chosen, train.rejected)]
    return torch.from_numpy(np.stack(degrees))
