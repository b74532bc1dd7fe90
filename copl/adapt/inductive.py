r"""Passes of a trained encoder over the comparisons of one more user, read from `NodeEmbeddings.state`.

An encoder that can embed a user it was not trained on leaves what that takes in its state, in one of two forms. All
names begin with ``inductive.``; R responses, D embedding dimension, G groups.

**Signed message passing** (`SignedPass`): layers k = 0, 1, ... over the newcomer's edges, the responses as they were
before that layer. Matrices that are missing are zeros.

- ``inductive.start`` [D]: the embedding of a newcomer before the first layer;
- ``inductive.responses.k`` [R, D]: the responses before layer k;
- ``inductive.layer.k.own``, ``.chosen``, ``.rejected``, ``.chosen_product``, ``.rejected_product`` [D, D], and each
  with ``_bias`` [D];
- ``inductive.scale`` []: factor on the result, 1 where it is missing.

.. math::
    e' = \mathrm{LeakyReLU}_{0.2}\bigl(A_0 e + A_1 z^+ + A_2 (z^+ \odot e) + A_3 z^- + A_4 (z^- \odot e)\bigr), \quad
    z^\pm = \sum_{r \in N^\pm} \frac{w_{ur}}{\sqrt{d_u d_r}}\, e_r

with A0 ... A4 in the order above and the degrees of each sign as they were in training: a newcomer adds none.

**Groups** (`GroupPass`): a mixture of latent groups, of which each decides as one Bradley-Terry model.

- ``inductive.points`` [G, D]: the embedding of a user who belongs to one group for certain;
- ``inductive.log_share`` [G]: log of the share of each group;
- ``inductive.scores`` [R, G]: the utility of each response for each group;
- ``inductive.power`` []: exponent p of a user's evidence, 1 where it is missing.

.. math:: e_u = \mathrm{softmax}_g\Bigl(\log \pi_g + p \sum_{(c, r)} w_{cr} \log\sigma(s_{cg} - s_{rg})\Bigr) \cdot P
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from attrs import frozen
from scipy import sparse
from torch.nn.functional import leaky_relu, logsigmoid

from copl.adapt.estimates import population_mean
from copl.adapt.support import MatchedSupport
from copl.records import NodeEmbeddings

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray, IntArray

PREFIX = "inductive."
_SLOPE = 0.2
_MAPS = ("own", "chosen", "chosen_product", "rejected", "rejected_product")


class InductivePass(ABC):
    """Embeds newcomers from their comparisons with trained responses, without any optimisation."""

    how: str

    @abstractmethod
    def __call__(self, part: MatchedSupport) -> Tensor:
        """Return the embeddings [n, D], float64, of newcomers who each have a comparison."""


@final
class SignedPass(InductivePass):
    """Signed message passing over the newcomer's edges."""

    how = "encode"

    def __init__(self, state: Mapping[str, Tensor], trained: NodeEmbeddings) -> None:
        self._start = state["start"].double()
        self._scale = float(state.get("scale", torch.ones(())))
        self._layers: list[tuple[Tensor, Mapping[str, Tensor]]] = []
        while f"responses.{len(self._layers)}" in state:
            name = f"layer.{len(self._layers)}."
            maps = {key.removeprefix(name): value.double() for key, value in state.items() if key.startswith(name)}
            self._layers.append((state[f"responses.{len(self._layers)}"].double(), maps))
        rows, size = trained.comparisons, len(trained.response_keys)
        # a response without an edge of a sign has no degree of it; the newcomer's edge is then its first
        degrees = (np.bincount(column, rows.weight, minlength=size) for column in (rows.chosen, rows.rejected))
        self._degrees = [np.where(degree > 0, degree, 1.0) for degree in degrees]

    def __call__(self, part: MatchedSupport) -> Tensor:
        messages = [
            self._sums(part, column, degree)
            for column, degree in zip((part.chosen, part.rejected), self._degrees, strict=True)
        ]
        users = self._start.repeat(len(part), 1)
        for responses, maps in self._layers:
            chosen, rejected = (torch.from_numpy(matrix @ responses.numpy()) for matrix in messages)
            inputs = (users, chosen, chosen * users, rejected, rejected * users)
            new = torch.zeros(len(part), 1, dtype=torch.float64)
            for name, value in zip(_MAPS, inputs, strict=True):
                if name in maps:
                    new = new + value @ maps[name].T
                if f"{name}_bias" in maps:
                    new = new + maps[f"{name}_bias"]
            users = leaky_relu(new, _SLOPE)
        return users * self._scale

    def _sums(self, part: MatchedSupport, column: IntArray, degree: FloatArray) -> Any:
        """Return the normalised edges of one sign [n, R], sparse."""
        known = column < len(degree)
        user, response, weight = part.newcomer[known], column[known], part.weight[known]
        own = np.bincount(user, weight, minlength=len(part))
        values = weight / np.sqrt(own[user] * degree[response])
        return sparse.csr_matrix((values, (user, response)), shape=(len(part), len(degree)))


@final
class GroupPass(InductivePass):
    """Posterior of the group a newcomer belongs to."""

    how = "encode"

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._points = state["points"].double()
        self._log_share = state["log_share"].double()
        self._power = float(state.get("power", torch.ones(())))
        scores = state["scores"].double()
        self._scores = torch.cat([scores, scores.mean(dim=0, keepdim=True)])  # the last row: an untrained response

    def __call__(self, part: MatchedSupport) -> Tensor:
        chosen, rejected = torch.from_numpy(part.chosen), torch.from_numpy(part.rejected)
        evidence = logsigmoid(self._scores[chosen] - self._scores[rejected]) * torch.from_numpy(part.weight)[:, None]
        total = torch.zeros(len(part), len(self._log_share), dtype=torch.float64)
        total.index_add_(0, torch.from_numpy(part.newcomer), evidence)
        return (self._power * total + self._log_share).softmax(dim=1) @ self._points


@final
@frozen(eq=False)
class FoldIn(InductivePass):
    r"""A linear map from what a user's comparisons pull at to the user's embedding, learnt from the seen users.

    .. math::
        e_u = \mu + A\, [g_u, g_u / \sqrt{n_u}], \quad
        g_u = \sum_{(c, r) \in C_u} w_{cr}\, \sigma(-m_{cr}) (e_c - e_r)

    where m is the margin of an average user, so that g is the gradient of the log-likelihood there; A by ridge
    regression over the seen users and their training comparisons. For encoders that leave no inductive state.
    """

    mean: Tensor
    matrix: Tensor
    how: str = "fold-in"

    @classmethod
    def of(cls, trained: NodeEmbeddings) -> FoldIn:
        mean = population_mean(trained)
        rows = trained.comparisons
        responses, bias = trained.responses.detach().cpu().double(), trained.response_bias.detach().cpu().double()
        chosen, rejected = torch.from_numpy(rows.chosen), torch.from_numpy(rows.rejected)
        inputs = _pull(
            rows.user,
            torch.from_numpy(rows.weight),
            responses[chosen] - responses[rejected],
            bias[chosen] - bias[rejected],
            mean,
            len(trained.user_ids),
        )
        targets = trained.users.detach().cpu().double() - mean
        gram = inputs.T @ inputs
        ridge = 1e-2 * float(gram.diagonal().mean()) + 1e-12
        solved: Tensor = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), inputs.T @ targets)
        return cls(mean, solved)

    def __call__(self, part: MatchedSupport) -> Tensor:
        inputs = _pull(part.newcomer, torch.from_numpy(part.weight), part.differences, part.bias, self.mean, len(part))
        return self.mean + inputs @ self.matrix


def _pull(user: IntArray, weight: Tensor, differences: Tensor, bias: Tensor, mean: Tensor, num_users: int) -> Tensor:
    """Return [g, g / sqrt(n)] of each user [U, 2 D]."""
    strength = weight * torch.sigmoid(-(differences @ mean + bias))
    rows = torch.from_numpy(user)
    total = torch.zeros(num_users, differences.shape[1], dtype=torch.float64)
    total.index_add_(0, rows, differences * strength[:, None])
    count = torch.zeros(num_users, dtype=torch.float64).index_add_(0, rows, weight)
    return torch.cat([total, total / count.clamp_min(1e-12).sqrt()[:, None]], dim=1)


_PASSES: WeakKeyDictionary[NodeEmbeddings, InductivePass] = WeakKeyDictionary()


def inductive_pass(trained: NodeEmbeddings) -> InductivePass:
    """Return the pass that the encoder left in its state, or a `FoldIn`; made once for each trained set."""
    if trained not in _PASSES:
        state = {
            name.removeprefix(PREFIX): value.detach().cpu()
            for name, value in trained.state.items()
            if name.startswith(PREFIX)
        }
        if "points" in state:
            _PASSES[trained] = GroupPass(state)
        elif "start" in state:
            _PASSES[trained] = SignedPass(state, trained)
        else:
            _PASSES[trained] = FoldIn.of(trained)
    return _PASSES[trained]
