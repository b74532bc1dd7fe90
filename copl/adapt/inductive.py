r"""Passes of a trained encoder over the comparisons of one more user, read from `NodeEmbeddings.state`.

An encoder that can embed a user it was not trained on leaves what that takes in its state, in one of the forms below.
All names begin with ``inductive.``; R responses, D embedding dimension. Comparisons have the weights w that they came
with, and the embeddings and biases e_r, b_r of responses are the trained ones.

**Groups** (`GroupPass`): each user is of one group, and which one is told by how well each group explains the
comparisons.

- ``inductive.points`` [G, D]: the embedding of a user who belongs to one of the G groups for certain;
- ``inductive.log_share`` [G]: log of the share of each group;
- ``inductive.correlation`` []: correlation rho of a user's comparisons, 0 where it is missing: n of them tell as much
  as n / (1 + (n - 1) rho) that do not depend on each other (Kish, Survey Sampling, 1965, on clusters).

.. math::
    e_u = \mathrm{softmax}_g\Bigl(\log \pi_g
          + \frac{p}{1 + (n_u - 1) \rho} \sum_{(c, r)} w_{cr} \log\sigma(s\, m_{gcr})\Bigr) \cdot P, \quad
    m_{gcr} = P_g \cdot (e_c - e_r) + b_c - b_r

with the weight n = p sum w of the user's comparisons, at least 1.

**Factors** (`GaussianPass`): the mode of the posterior under a normal prior, see `copl.adapt.laplace`.

- ``inductive.mean`` [D]: mean of the prior;
- ``inductive.factor`` [D, K]: L with L Lᵀ the covariance of the prior.

Both take, where they are not 1, ``inductive.sharpness`` [], the factor s on margins in the likelihood, and
``inductive.power`` [], the exponent p of a user's evidence.

**Signed message passing** (`SignedPass`): layers k = 0, 1, ... over the newcomer's edges, the responses as they were
before that layer. Matrices that are missing are zeros.

- ``inductive.start`` [D]: the embedding of a newcomer before the first layer; or, with ``inductive.start_factor``
  [D, K] and ``inductive.start_sharpness`` [], the mean of a prior as with factors, of whose posterior the newcomer
  starts at the mode, with the margins s e . (r_c - r_r) + b_c - b_r of the responses r before the first layer, and
  the exponent ``inductive.power``;
- ``inductive.degrees`` [2, R]: the degree of each response in the chosen and in the rejected edges of training, which
  a newcomer adds nothing to; where it is 0, it counts as 1;
- ``inductive.responses.k`` [R, D]: the responses before layer k;
- ``inductive.layer.k.own``, ``.chosen``, ``.rejected``, ``.chosen_product``, ``.rejected_product`` [D, D] and ``.bias``
  [D];
- ``inductive.slope`` []: slope of the LeakyReLU below 0, 0.2 where it is missing; 1 makes the layers linear;
- ``inductive.scale`` []: factor on the result, 1 where it is missing; or ``inductive.length`` []: length of the result.

.. math::
    e' = \mathrm{LeakyReLU}\bigl(A_0 e + A_1 z^+ + A_2 (z^+ \odot e) + A_3 z^- + A_4 (z^- \odot e) + a\bigr), \quad
    z^\pm = \sum_{r \in N^\pm} \frac{w_{ur}}{\sqrt{d_u d_r}}\, e_r

with A0 ... A4 for own, chosen, chosen_product, rejected and rejected_product.

**Side by side** (`SideBySidePass`): members with embeddings side by side, each with a pass of its own in these forms.

- ``inductive.member.k.weight`` []: factor on the embedding of member k = 0, 1, ...;
- ``inductive.member.k.response_bias`` [R]: the bias in its margins; its responses are its columns of the trained ones;
- ``inductive.member.k.points`` and so on: its pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary

import attrs
import numpy as np
import torch
from attrs import frozen
from torch.nn.functional import leaky_relu, logsigmoid, normalize

from copl.adapt.estimates import population_mean
from copl.adapt.laplace import posterior_modes
from copl.adapt.support import MatchedSupport, matched_rows
from copl.records import Comparisons, NodeEmbeddings

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import IntArray

PREFIX = "inductive."
_SLOPE = 0.2


class InductivePass(ABC):
    """Embeds newcomers from their comparisons with trained responses, without any optimisation.

    Attributes:
        how: how it is told that an embedding was found.
        dim: embedding dimension D.
    """

    how: str
    dim: int

    @abstractmethod
    def __call__(self, part: MatchedSupport) -> Tensor:
        """Return the embeddings [n, D], float64, of newcomers who each have a comparison."""


@final
class GroupPass(InductivePass):
    """Posterior of the group a newcomer belongs to."""

    how = "encode"

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._points = state["points"].double()
        self._log_share = state["log_share"].double()
        self._sharpness, self._power = _number(state, "sharpness"), _number(state, "power")
        self._correlation = _number(state, "correlation", 0.0)
        self.dim = self._points.shape[1]

    def __call__(self, part: MatchedSupport) -> Tensor:
        margins = part.differences @ self._points.T + part.bias[:, None]
        weight = self._power * torch.from_numpy(part.weight)[:, None]
        count = _sums(part.newcomer, weight, len(part)).clamp_min(1)
        evidence = _sums(part.newcomer, weight * logsigmoid(self._sharpness * margins), len(part))
        independent = evidence / (1 + (count - 1) * self._correlation)
        return (independent + self._log_share).softmax(dim=1) @ self._points


@final
class GaussianPass(InductivePass):
    """Mode of the posterior of a newcomer's factors."""

    how = "encode"

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._mean, self._factor = state["mean"].double(), state["factor"].double()
        self._sharpness, self._power = _number(state, "sharpness"), _number(state, "power")
        self.dim = len(self._mean)

    def __call__(self, part: MatchedSupport) -> Tensor:
        modes, _ = posterior_modes(part, self._mean, self._factor, sharpness=self._sharpness, power=self._power)
        return modes


@final
class SignedPass(InductivePass):
    """Signed message passing over the newcomer's edges."""

    how = "encode"

    def __init__(self, state: Mapping[str, Tensor], trained: NodeEmbeddings) -> None:
        self._start = state["start"].double()
        self._prior: tuple[Tensor, NodeEmbeddings] | None = None
        if "start_factor" in state:
            before = attrs.evolve(trained, responses=state["responses.0"] * _number(state, "start_sharpness"))
            self._prior = state["start_factor"].double(), before
        self._degrees = [torch.where(degree > 0, degree, 1.0) for degree in state["degrees"].double()]
        self._layers: list[tuple[Tensor, Mapping[str, Tensor]]] = []
        while f"responses.{len(self._layers)}" in state:
            maps = _below(state, f"layer.{len(self._layers)}.")
            self._layers.append(
                (state[f"responses.{len(self._layers)}"], {name: value.double() for name, value in maps.items()})
            )
        self._slope, self._scale = _number(state, "slope", _SLOPE), _number(state, "scale")
        self._power = _number(state, "power")
        self._length = _number(state, "length") if "length" in state else None
        self.dim = len(self._start)

    def __call__(self, part: MatchedSupport) -> Tensor:
        edges = [
            _Edges.of(part, column, degree)
            for column, degree in zip((part.chosen, part.rejected), self._degrees, strict=True)
        ]
        users = self._starts(part)
        for responses, maps in self._layers:
            chosen, rejected = (edge.messages(responses, len(part)) for edge in edges)
            inputs = {
                "own": users,
                "chosen": chosen,
                "chosen_product": chosen * users,
                "rejected": rejected,
                "rejected_product": rejected * users,
            }
            new = maps.get("bias", torch.zeros(1, dtype=torch.float64)).expand(len(part), self.dim)
            for name, value in inputs.items():
                if name in maps:
                    new = new + value @ maps[name].T
            users = leaky_relu(new, self._slope)
        if self._length is not None:
            users = self._length * normalize(users)
        return users * self._scale

    def _starts(self, part: MatchedSupport) -> Tensor:
        if self._prior is None:
            return self._start.repeat(len(part), 1)
        factor, before = self._prior
        modes, _ = posterior_modes(_seen_by(before, part), self._start, factor, power=self._power)
        return modes


@final
@frozen(eq=False)
class _Edges:
    """Edges of one sign: newcomer, trained response and normalised weight of each [E]."""

    newcomer: IntArray
    response: Tensor
    value: Tensor

    @classmethod
    def of(cls, part: MatchedSupport, column: IntArray, degree: Tensor) -> _Edges:
        known = column < len(degree)
        newcomer, response, weight = part.newcomer[known], torch.from_numpy(column[known]), part.weight[known]
        own = np.bincount(newcomer, weight, minlength=len(part))[newcomer]
        return cls(newcomer, response, torch.from_numpy(weight) / (torch.from_numpy(own) * degree[response]).sqrt())

    def messages(self, responses: Tensor, num_newcomers: int) -> Tensor:
        """Return the normalised sums over edges [n, D]."""
        return _sums(self.newcomer, responses[self.response].double() * self.value[:, None], num_newcomers)


@final
class SideBySidePass(InductivePass):
    """The passes of several members over the same comparisons, their embeddings side by side."""

    how = "encode"

    def __init__(self, state: Mapping[str, Tensor], trained: NodeEmbeddings) -> None:
        self._members: list[tuple[InductivePass, NodeEmbeddings, float]] = []
        self.dim = 0
        while own := _below(state, f"member.{len(self._members)}."):
            biased = attrs.evolve(trained, response_bias=own["response_bias"])
            member = _read(own, biased)
            columns = slice(self.dim, self.dim + member.dim)
            view = attrs.evolve(biased, responses=trained.responses[:, columns])
            self._members.append((member, view, _number(own, "weight")))
            self.dim = columns.stop

    def __call__(self, part: MatchedSupport) -> Tensor:
        found = [weight * member(_seen_by(view, part)) for member, view, weight in self._members]
        return torch.cat(found, dim=1)


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
    dim: int
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
        return cls(mean, solved, trained.dim)

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


def _sums(newcomer: IntArray, values: Tensor, num_newcomers: int) -> Tensor:
    """Return the sum of the values [K, D] of each newcomer [n, D]."""
    total = torch.zeros(num_newcomers, values.shape[1], dtype=torch.float64)
    return total.index_add_(0, torch.from_numpy(newcomer), values)


def _seen_by(view: NodeEmbeddings, part: MatchedSupport) -> MatchedSupport:
    """Return the same comparisons with the responses and biases of `view`, whose rows are the same."""
    rows = Comparisons(part.newcomer, part.chosen, part.rejected, part.weight)
    return matched_rows(part.user_ids, part.newcomer, rows, view)


def _number(state: Mapping[str, Tensor], name: str, missing: float = 1.0) -> float:
    return float(state[name]) if name in state else missing


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the part of the state whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _read(state: Mapping[str, Tensor], trained: NodeEmbeddings) -> InductivePass:
    if "member.0.weight" in state:
        return SideBySidePass(state, trained)
    if "points" in state:
        return GroupPass(state)
    if "factor" in state:
        return GaussianPass(state)
    return SignedPass(state, trained)


_PASSES: WeakKeyDictionary[NodeEmbeddings, InductivePass] = WeakKeyDictionary()


def inductive_pass(trained: NodeEmbeddings) -> InductivePass:
    """Return the pass that the encoder left in its state, or a `FoldIn`; made once for each trained set."""
    if trained not in _PASSES:
        state = _below({name: value.detach().cpu() for name, value in trained.state.items()}, PREFIX)
        _PASSES[trained] = _read(state, trained) if state else FoldIn.of(trained)
    return _PASSES[trained]
