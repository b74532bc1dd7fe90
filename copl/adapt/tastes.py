"""The coordinates of embeddings that are tastes in texts, whose prior is not the seen users but what a taste may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary

import attrs
import numpy as np
import torch

from copl.adapt.laplace import group_margins, group_posteriors
from copl.adapt.support import MatchedSupport
from copl.records import NodeEmbeddings
from copl.records.passes import NewcomerPass, SideBySidePass, TastePass

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray, IntArray

_SAMPLE = 20_000


@final
@attrs.frozen(eq=False)
class Tastes:
    """Where tastes in texts lie among the coordinates, and how they are found for newcomers.

    Attributes:
        columns: which coordinates they are.
        rest: what the encoder has learnt without them; no coordinate may be left.
        prior: what a taste may be.
        weight: factor on the taste that is found.
        difference: mean square of the difference of two compared responses in each coordinate [K].
    """

    columns: slice
    rest: NodeEmbeddings
    prior: TastePass
    weight: float
    difference: Tensor

    def place(self, matched: MatchedSupport) -> tuple[Tensor, FloatArray]:
        """Return the coordinates [n, K] of newcomers and the share of the prior variance of margins removed [n]."""
        mean, variance = _moments(self.prior.log_share.exp(), self.prior.mean, self.prior.scale.square())
        placed = (self.weight * mean).repeat(len(matched), 1)
        removed = np.zeros(len(matched))
        share = self.difference / (self.difference @ variance).clamp_min(1e-12)
        for newcomers, part in self._own(matched).by_length():
            mean, variance = taste_posteriors(part, self.prior)
            placed[torch.from_numpy(newcomers)] = self.weight * mean
            removed[newcomers] = (1 - variance @ share).clamp_min(0).numpy()
        return placed, removed

    def margins(self, matched: MatchedSupport, questions: MatchedSupport) -> tuple[Tensor, Tensor, Tensor]:
        """Return the chance of each group [G], and mean and variance [G, Q] of one newcomer's margins of questions."""
        prior, own = self.prior, _weighed(self._own(matched), self.prior)
        asked = questions.differences[:, self.columns]
        shares, mean, variance = group_margins(own, prior.mean, prior.scale, prior.log_share, asked)
        return shares, self.weight * mean, self.weight**2 * variance

    def without(self, matched: MatchedSupport) -> MatchedSupport:
        """Return the comparisons in the other coordinates."""
        kept = torch.ones(matched.differences.shape[1], dtype=torch.bool)
        kept[self.columns] = False
        return attrs.evolve(matched, differences=matched.differences[:, kept])

    def join(self, tastes: Tensor, rest: Tensor) -> Tensor:
        """Return whole embeddings [n, D] from tastes [n, K] and the other coordinates."""
        return torch.cat([rest[:, : self.columns.start], tastes, rest[:, self.columns.start :]], dim=1)

    @property
    def variance(self) -> float:
        """Prior variance of a margin by tastes."""
        _, variance = _moments(self.prior.log_share.exp(), self.prior.mean, self.prior.scale.square())
        return float(self.weight**2 * (self.difference @ variance))

    @property
    def variance_of_rest(self) -> float:
        """Variance among the seen users of a margin by the other coordinates, taken as independent."""
        users = self.rest.users.detach().cpu().double()
        variance = (users - users.mean(dim=0)).square().mean(dim=0)
        return float((variance * _mean_squares(self.rest)).sum())

    def _own(self, matched: MatchedSupport) -> MatchedSupport:
        own = matched.differences[:, self.columns]
        return attrs.evolve(matched, differences=own, bias=torch.zeros_like(matched.bias))


def taste_posteriors(part: MatchedSupport, prior: TastePass) -> tuple[Tensor, Tensor]:
    """Return the mean taste of newcomers and its variance in each coordinate, both [n, D]."""
    scale = prior.scale.double()
    shares, modes, left = group_posteriors(_weighed(part, prior), prior.mean.double(), scale, prior.log_share.double())
    return _moments(shares, modes, left * scale.square())


def _weighed(part: MatchedSupport, prior: TastePass) -> MatchedSupport:
    return attrs.evolve(part, weight=prior.power * part.weight)


def _moments(shares: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance [..., D] of a mixture: shares [..., G], means and variances of its parts [..., G, D]."""
    mean = (shares[..., None] * means).sum(-2)
    within = (shares[..., None] * variances).sum(-2)
    between = (shares[..., None] * (means - mean[..., None, :]).square()).sum(-2)
    return mean, within + between


_TASTES: WeakKeyDictionary[NodeEmbeddings, Tastes | None] = WeakKeyDictionary()


def tastes_of(trained: NodeEmbeddings) -> Tastes | None:
    """Return the tastes among the coordinates of what is trained; None where there are none. Made once."""
    if trained not in _TASTES:
        _TASTES[trained] = _find(trained)
    return _TASTES[trained]


def _find(trained: NodeEmbeddings) -> Tastes | None:
    start = 0
    for own, weight in _members(trained.newcomer_pass):
        if isinstance(own, TastePass):
            columns = slice(start, start + own.dim)
            kept = torch.ones(trained.dim, dtype=torch.bool)
            kept[columns] = False
            rest = attrs.evolve(
                trained,
                users=trained.users[:, kept],
                responses=trained.responses[:, kept],
                newcomer_pass=None,
                text_map=None,
            )
            difference = _mean_squares(attrs.evolve(trained, responses=trained.responses[:, columns]))
            prior = attrs.evolve(
                own, mean=own.mean.double(), scale=own.scale.double(), log_share=own.log_share.double()
            )
            return Tastes(columns, rest, prior, weight, difference)
        start += own.dim
    return None


def _members(newcomer_pass: NewcomerPass | None) -> list[tuple[NewcomerPass, float]]:
    if isinstance(newcomer_pass, SideBySidePass):
        return [(member.own, member.weight) for member in newcomer_pass.members]
    return [] if newcomer_pass is None else [(newcomer_pass, 1.0)]


def _mean_squares(trained: NodeEmbeddings) -> Tensor:
    """Return the mean square of the differences of compared responses in each coordinate [D]."""
    rows = trained.comparisons
    some: IntArray = np.arange(0, len(rows), max(1, len(rows) // _SAMPLE))
    table = trained.responses.detach().cpu()
    differences = table[torch.from_numpy(rows.chosen[some])] - table[torch.from_numpy(rows.rejected[some])]
    return differences.double().square().sum(0) / max(len(some), 1)
