"""Carries out what an encoder left for newcomers (`copl.records.passes`); where it left nothing, a linear map."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
from copl.adapt.tastes import taste_posteriors
from copl.records import Comparisons, NodeEmbeddings
from copl.records.passes import GaussianPass, GroupPass, LayerPass, NewcomerPass, SideBySidePass, SignedPass, TastePass

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import IntArray


class InductivePass(ABC):
    """Embeds newcomers from their comparisons with trained responses, without any optimisation.

    Attributes:
        how: how it is told that an embedding was found.
    """

    how: str

    @abstractmethod
    def __call__(self, part: MatchedSupport) -> Tensor:
        """Return the embeddings [n, D], float64, of newcomers who each have a comparison."""


@final
@frozen(eq=False)
class RecordedPass(InductivePass):
    """The pass that the encoder left."""

    record: NewcomerPass
    trained: NodeEmbeddings
    how: str = "encode"

    def __call__(self, part: MatchedSupport) -> Tensor:
        return _embed(self.record, part, self.trained)


def _embed(record: NewcomerPass, part: MatchedSupport, trained: NodeEmbeddings) -> Tensor:
    if isinstance(record, GroupPass):
        return _posterior_of_groups(record, part)
    if isinstance(record, GaussianPass):
        mean, factor = record.mean.double(), record.factor.double()
        return posterior_modes(part, mean, factor, sharpness=record.sharpness, power=record.power)[0]
    if isinstance(record, TastePass):
        return taste_posteriors(part, record)[0]
    if isinstance(record, SignedPass):
        return _pass_messages(record, part, trained)
    return _embed_side_by_side(record, part, trained)


def _posterior_of_groups(record: GroupPass, part: MatchedSupport) -> Tensor:
    points = record.points.double()
    margins = part.differences @ points.T + part.bias[:, None]
    weight = record.power * torch.from_numpy(part.weight)[:, None]
    count = _sums(part.newcomer, weight, len(part)).clamp_min(1)
    evidence = _sums(part.newcomer, weight * logsigmoid(record.sharpness * margins), len(part))
    independent = evidence / (1 + (count - 1) * record.correlation)
    return (independent + record.log_share.double()).softmax(dim=1) @ points


def _pass_messages(record: SignedPass, part: MatchedSupport, trained: NodeEmbeddings) -> Tensor:
    chosen, rejected = (
        _Edges.of(part, column, degree)
        for column, degree in zip((part.chosen, part.rejected), record.degrees, strict=True)
    )
    before = _seen_by(attrs.evolve(trained, responses=record.layers[0].responses), part)
    before = attrs.evolve(before, differences=before.differences * record.start_sharpness)
    users, _ = posterior_modes(before, record.start.double(), record.start_factor.double(), power=record.power)
    for layer in record.layers:
        new = _layer(
            layer, users, chosen.messages(layer.responses, len(part)), rejected.messages(layer.responses, len(part))
        )
        users = leaky_relu(new, record.slope)
    if record.length is not None:
        users = record.length * normalize(users)
    return users * record.scale


def _layer(layer: LayerPass, users: Tensor, chosen: Tensor, rejected: Tensor) -> Tensor:
    inputs = (
        (layer.own, users),
        (layer.chosen, chosen),
        (layer.chosen_product, chosen * users),
        (layer.rejected, rejected),
        (layer.rejected_product, rejected * users),
    )
    new = torch.zeros_like(users) if layer.bias is None else layer.bias.double().expand_as(users)
    for matrix, value in inputs:
        if matrix is not None:
            new = new + value @ matrix.double().T
    return new


@final
@frozen(eq=False)
class _Edges:
    """Edges of one sign: newcomer, trained response and normalised weight of each [E]."""

    newcomer: IntArray
    response: Tensor
    value: Tensor

    @classmethod
    def of(cls, part: MatchedSupport, column: IntArray, degrees: Tensor) -> _Edges:
        known = column < len(degrees)
        newcomer, response, weight = part.newcomer[known], torch.from_numpy(column[known]), part.weight[known]
        own = np.bincount(newcomer, weight, minlength=len(part))[newcomer]
        degree = degrees[response].double()
        degree = torch.where(degree > 0, degree, 1.0)
        return cls(newcomer, response, torch.from_numpy(weight) / (torch.from_numpy(own) * degree).sqrt())

    def messages(self, responses: Tensor, num_newcomers: int) -> Tensor:
        """Return the normalised sums over edges [n, D]."""
        return _sums(self.newcomer, responses[self.response].double() * self.value[:, None], num_newcomers)


def _embed_side_by_side(record: SideBySidePass, part: MatchedSupport, trained: NodeEmbeddings) -> Tensor:
    embeddings, start = [], 0
    for member in record.members:
        columns = slice(start, start + member.own.dim)
        start = columns.stop
        view = attrs.evolve(
            trained, responses=trained.responses[:, columns], response_bias=member.response_bias, text_map=None
        )
        own = attrs.evolve(part, differences=part.differences[:, columns], bias=_seen_by(view, part).bias)
        embeddings.append(member.weight * _embed(member.own, own, view))
    return torch.cat(embeddings, dim=1)


@final
@frozen(eq=False)
class FoldIn(InductivePass):
    r"""A linear map from what a user's comparisons pull at to the user's embedding, learnt from the seen users.

    .. math::
        e_u = \mu + A\, [g_u, g_u / \sqrt{n_u}], \quad
        g_u = \sum_{(c, r) \in C_u} w_{cr}\, \sigma(-m_{cr}) (e_c - e_r)

    where m is the margin of an average user, so that g is the gradient of the log-likelihood there; A by ridge
    regression over the seen users and their training comparisons. For encoders that leave no pass.
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


def _sums(newcomer: IntArray, values: Tensor, num_newcomers: int) -> Tensor:
    """Return the sum of the values [K, D] of each newcomer [n, D]."""
    total = torch.zeros(num_newcomers, values.shape[1], dtype=torch.float64)
    return total.index_add_(0, torch.from_numpy(newcomer), values)


def _seen_by(view: NodeEmbeddings, part: MatchedSupport) -> MatchedSupport:
    """Return the same comparisons with the responses and biases of `view`, whose rows are the same."""
    rows = Comparisons(part.newcomer, part.chosen, part.rejected, part.weight)
    return matched_rows(part.user_ids, part.newcomer, rows, view)


_FOLD_INS: WeakKeyDictionary[NodeEmbeddings, FoldIn] = WeakKeyDictionary()


def inductive_pass(trained: NodeEmbeddings) -> InductivePass:
    """Return the pass that the encoder left, or a `FoldIn`, made once for each trained set."""
    if trained.newcomer_pass is not None:
        return RecordedPass(trained.newcomer_pass, trained)
    if trained not in _FOLD_INS:
        _FOLD_INS[trained] = FoldIn.of(trained)
    return _FOLD_INS[trained]
