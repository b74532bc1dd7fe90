"""What an encoder leaves for newcomers: the state of a pass over one more user's edges.

The names and what a pass makes of them are described where it is read, in `copl.adapt.inductive`; here they are
without the prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch

from copl.records import NodeEmbeddings

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import Comparisons

_PREFIX = "inductive."


def with_pass(embeddings: NodeEmbeddings, state: Mapping[str, Tensor | float]) -> NodeEmbeddings:
    """Return the embeddings with the state of a pass, in single precision."""
    tensors = {name: torch.as_tensor(value).detach().float().contiguous() for name, value in state.items()}
    return attrs.evolve(embeddings, state={_PREFIX + name: tensor for name, tensor in tensors.items()})


def pass_of(embeddings: NodeEmbeddings) -> dict[str, Tensor]:
    """Return the state of the pass that `with_pass` left."""
    state = embeddings.state.items()
    return {name.removeprefix(_PREFIX): value for name, value in state if name.startswith(_PREFIX)}


def side_by_side(members: Sequence[NodeEmbeddings], weights: Sequence[float]) -> dict[str, Tensor | float]:
    """Return the state of the passes of all members, whose embeddings lie side by side, users scaled by the weights."""
    state: dict[str, Tensor | float] = {}
    for number, (member, weight) in enumerate(zip(members, weights, strict=True)):
        own: dict[str, Tensor | float] = {"weight": weight, "response_bias": member.response_bias}
        own |= pass_of(member)
        state |= {f"member.{number}.{name}": value for name, value in own.items()}
    return state


def prior_of(users: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean [D] of users and a factor [D, D] of twice their covariance, as they were drawn to their mean."""
    exact = users.detach().double()
    centred = exact - exact.mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return exact.mean(dim=0), vectors * (2 * values.clamp_min(0)).sqrt()


def response_degrees(train: Comparisons, num_responses: int) -> Tensor:
    """Return the degree of each response in the chosen and in the rejected edges [2, R]."""
    degrees = [np.bincount(column, train.weight, num_responses) for column in (train.chosen, train.rejected)]
    return torch.from_numpy(np.stack(degrees))
