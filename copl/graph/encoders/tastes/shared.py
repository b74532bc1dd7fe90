r"""What users have in common: directions of taste, and what everybody thinks of a response.

A response r has the coordinates x_r of its text, and of each direction k (k = 0: what everybody thinks)

.. math::
    c_{rk} = A_k \cdot x_r + o_{rk}, \quad A_k \sim N(0, s_k I_D), \quad o_{rk} \sim N(0, v_k)

the part of its text and its own part, what comparisons of r say beyond its text: next to nothing where it was judged
once, everything where a thousand judged it; along directions v_k may be a share of v_0, for a comparison tells far
less of whom a response pleases than of whether it does. With the users as in `copl.graph.encoders.tastes.users` all
parts are learnt by variational expectation-maximisation. The own parts of a comparison's two responses are those that
other comparisons tell (its cavity): nobody's word comes back as somebody else's. Directions start at what the gradients
of users have in common across different comparisons, each comparison's own square taken out, so that noise does not
look like taste.

Shapes: R responses, N comparisons, D coordinates, J = K + 1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from copl.graph.encoders.tastes.users import Beliefs, Evidence, Grouping, infer, precision_of_bound

if TYPE_CHECKING:
    from copl.records import Comparisons

_ROUNDS_OF_START = 6
_ROUNDS_OF_OWN_PARTS = 3
_START_VARIANCE = 10.0
_AT_ONCE = 16_384
_LEAST = 1e-9


@final
@frozen
class Strengths:
    """How much of what there is.

    Attributes:
        num_directions: K, directions of taste.
        isotropic: tau^2, variance of taste in any direction.
        direction: least variance s_k of the coefficients of a direction.
        own: v_0, variance of the own parts of responses, of what everybody thinks of them.
        along: v_k / v_0, of the own parts along directions in that.
    """

    num_directions: int
    isotropic: float
    direction: float
    own: float
    along: float

    @property
    def own_variances(self) -> Tensor:
        """Variances of own parts: of what everybody thinks, and of the directions [J]."""
        along = torch.full((self.num_directions,), self.along * self.own, dtype=torch.float64)
        return torch.cat([along.new_tensor([self.own]), along])


@final
@frozen(eq=False)
class Shared:
    """What was learnt.

    Attributes:
        text: A [D, J].
        own: o [R, J]; zeros where a response was not compared.
        own_variance: what is not known of it [R, J].
    """

    text: Tensor
    own: Tensor
    own_variance: Tensor

    def rotated(self, basis: Tensor) -> Shared:
        """Return the same along other directions, a rotation [K, K] of these; all margins stay as they are."""

        def turned(table: Tensor, by: Tensor) -> Tensor:
            return torch.cat([table[:, :1], table[:, 1:] @ by], dim=1)

        return Shared(turned(self.text, basis), turned(self.own, basis), turned(self.own_variance, basis.square()))


def evidence_of(texts: Tensor, shared: Shared, comparisons: Comparisons) -> Evidence:
    """Return comparisons as evidence about their users, what is shared being known."""
    chosen, rejected = torch.from_numpy(comparisons.chosen), torch.from_numpy(comparisons.rejected)
    differences = texts[chosen] - texts[rejected]
    coordinates = differences.double() @ shared.text + shared.own[chosen] - shared.own[rejected]
    noise = (shared.own_variance[chosen] + shared.own_variance[rejected]).sum(1)
    weight = torch.from_numpy(comparisons.weight).double()
    return Evidence(differences, coordinates[:, 1:], coordinates[:, 0], noise, weight)


def with_own_parts(texts: Tensor, shared: Shared, comparisons: Comparisons, strengths: Strengths, of: Tensor) -> Shared:
    """Return what is shared with the own parts of some responses learnt anew, all else as it is.

    Args:
        texts: coordinates x of all responses [R, D].
        shared: what was learnt.
        comparisons: all of them; those of users who compared one of the responses are looked at.
        strengths: variances and number of directions.
        of: whose own parts are learnt [R].
    """
    touches = of[torch.from_numpy(comparisons.chosen)] | of[torch.from_numpy(comparisons.rejected)]
    if not bool(touches.any()):
        return shared
    rows = comparisons.take(np.isin(comparisons.user, comparisons.user[touches.numpy()]))
    ends = _Ends(torch.from_numpy(rows.chosen), torch.from_numpy(rows.rejected))
    text = (texts[ends.chosen] - texts[ends.rejected]).double() @ shared.text
    grouping, scale = Grouping(rows.user, texts.shape[1]), None
    for _ in range(_ROUNDS_OF_OWN_PARTS):
        evidence = evidence_of(texts, shared, rows)
        beliefs = infer(evidence, grouping, strengths.isotropic, scale, sweeps=4)
        scale = beliefs.scale
        tight = precision_of_bound(scale)
        precision = 1 / (1 / (tight * evidence.weight) + evidence.noise)
        strength, pulls = ends.messages(beliefs, 0.5 / tight, precision, text, shared.own)
        system, pull = ends.sums(strength, pulls, len(texts), strengths.own_variances)
        covariance = torch.linalg.inv(system[of])
        own, variance = shared.own.clone(), shared.own_variance.clone()
        own[of] = 0.5 * (own[of] + (covariance @ pull[of][..., None])[..., 0])
        variance[of] = covariance.diagonal(dim1=1, dim2=2)
        shared = Shared(shared.text, own, variance)
    return shared


@final
class Learning:
    """Learns what users have in common, a round of expectation-maximisation after the other.

    Args:
        texts: coordinates x of all responses [R, D]; zeros where there is no text.
        comparisons: rows of responses and of users.
        strengths: variances and number of directions.
    """

    def __init__(self, texts: Tensor, comparisons: Comparisons, strengths: Strengths) -> None:
        self._chosen, self._rejected = torch.from_numpy(comparisons.chosen), torch.from_numpy(comparisons.rejected)
        self._differences = texts[self._chosen] - texts[self._rejected]
        self._weight = torch.from_numpy(comparisons.weight).double()
        self._users = torch.from_numpy(comparisons.user)
        self._grouping = Grouping(comparisons.user, texts.shape[1])
        self._strengths = strengths
        self._num_responses = len(texts)
        size = strengths.num_directions + 1
        count = len(comparisons)
        self.text = torch.zeros(texts.shape[1], size, dtype=torch.float64)
        self.own = torch.zeros(len(texts), size, dtype=torch.float64)
        self.own_variance = strengths.own_variances.expand_as(self.own)
        self._prior = torch.full((size,), _START_VARIANCE, dtype=torch.float64)
        self._others = torch.zeros(count, size, dtype=torch.float64)  # own parts by other comparisons, their difference
        self._noise = torch.zeros(count, dtype=torch.float64)
        self._scale: Tensor | None = None
        self._start_with_everybody()
        if strengths.num_directions:
            self._start_directions()

    def with_own(self, variance: float) -> Learning:
        """Return another that starts from where this one is, with another variance v_0 of own parts."""
        other = copy.copy(self)  # rounds replace its tensors and change none of this one's
        other._strengths = evolve(self._strengths, own=variance)
        other.own_variance = other._strengths.own_variances.expand_as(self.own_variance)
        return other

    @property
    def strengths(self) -> Strengths:
        return self._strengths

    @property
    def shared(self) -> Shared:
        """What is learnt by now."""
        return Shared(self.text, self.own, self.own_variance)

    def round(self) -> None:
        """Users given what is common, then what is common given the users."""
        sweeps = 4 if self._scale is None else 2
        coordinates = self._differences.double() @ self.text + self._others
        evidence = Evidence(self._differences, coordinates[:, 1:], coordinates[:, 0], self._noise, self._weight)
        beliefs = infer(evidence, self._grouping, self._strengths.isotropic, self._scale, sweeps=sweeps)
        self._scale = beliefs.scale
        tight = precision_of_bound(beliefs.scale)
        precision = 1 / (1 / (tight * self._weight) + self._noise)
        covariance = self._update_text(beliefs, 0.5 / tight, precision)
        self._noise = self._variance_by_text(covariance, beliefs)
        self._noise += self._update_own(beliefs, 0.5 / tight, precision)
        if self._strengths.num_directions:
            self._restore_unit_variance(beliefs.second)

    def _start_with_everybody(self) -> None:
        differences = self._differences.double()
        tight = torch.full_like(self._weight, 0.25)
        identity = torch.eye(differences.shape[1], dtype=torch.float64)
        pull = differences.T @ (0.5 * self._weight)
        for _ in range(_ROUNDS_OF_START):
            system = differences.T @ (differences * (tight * self._weight)[:, None]) + identity / self._prior[0]
            self.text[:, 0] = torch.linalg.solve(system, pull)
            tight = precision_of_bound(differences @ self.text[:, 0])
        unsure = torch.linalg.inv(system).diagonal().mean() if len(identity) else torch.zeros(())
        self._prior[0] = (self.text[:, 0].square().mean() + unsure).clamp_min(_LEAST) if len(identity) else 1.0

    def _start_directions(self) -> None:
        differences = self._differences.double()
        surprise = torch.sigmoid(-(differences @ self.text[:, 0])) * self._weight
        gradients = differences * surprise[:, None]
        num_users = int(self._users.max()) + 1
        by_user = torch.zeros(num_users, differences.shape[1], dtype=torch.float64).index_add_(
            0, self._users, gradients
        )
        _, vectors = torch.linalg.eigh(by_user.T @ by_user - gradients.T @ gradients)
        directions = vectors[:, -self._strengths.num_directions :].flip(1)
        lengths = (differences @ directions).square().mean(0).sqrt().clamp_min(_LEAST)
        self.text[:, 1 : 1 + directions.shape[1]] = directions / lengths
        self._prior[1:] = self.text[:, 1:].square().mean(0).clamp_min(_LEAST)

    def _update_text(self, beliefs: Beliefs, target: Tensor, precision: Tensor) -> Tensor:
        """Learn A, all of it at once; return its covariance [J, D, J, D]."""
        num_coordinates, size = self.text.shape
        system = torch.zeros(size, num_coordinates, size, num_coordinates, dtype=torch.float64)
        pull = torch.zeros(size, num_coordinates, dtype=torch.float64)
        own = (beliefs.square @ self._others[..., None])[..., 0]
        pulls = precision[:, None] * (target[:, None] * beliefs.square[:, 0] - beliefs.product - own)
        for start in range(0, len(target), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            differences = self._differences[part].double()
            pull += pulls[part].T @ differences
            for k in range(size):
                for other in range(k, size):
                    weight = precision[part] * beliefs.square[part, k, other]
                    system[k, :, other] += differences.T @ (differences * weight[:, None])
        for k in range(size):
            for other in range(k):
                system[k, :, other] = system[other, :, k].T
            system[k, :, k].diagonal().add_(1 / self._prior[k])
        flat = size * num_coordinates
        covariance: Tensor = torch.linalg.inv(system.reshape(flat, flat))
        self.text = (covariance @ pull.reshape(-1)).reshape(size, num_coordinates).T.contiguous()
        unsure = covariance.diagonal().reshape(size, num_coordinates).sum(1)
        self._prior = ((self.text.square().sum(0) + unsure) / max(num_coordinates, 1)).clamp_min(_LEAST)
        self._prior[1:] = self._prior[1:].clamp_min(self._strengths.direction)
        return covariance.reshape(size, num_coordinates, size, num_coordinates)

    def _variance_by_text(self, covariance: Tensor, beliefs: Beliefs) -> Tensor:
        """Return the variance of the margins by what is not known of A [N]."""
        variance = torch.zeros_like(self._noise)
        size = self.text.shape[1]
        for start in range(0, len(variance), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            differences = self._differences[part].double()
            for k in range(size):
                for other in range(k, size):
                    spread = ((differences @ covariance[k, :, other]) * differences).sum(1)
                    variance[part] += (1 + (k != other)) * beliefs.square[part, k, other] * spread
        return variance.clamp_min(0)

    def _update_own(self, beliefs: Beliefs, target: Tensor, precision: Tensor) -> Tensor:
        """Learn o; return the variance of the margins by what is not known of it [N].

        A comparison's message to its responses is what the user's other comparisons make of it.
        """
        ends = _Ends(self._chosen, self._rejected)
        text = self._differences.double() @ self.text
        strength, pulls = ends.messages(beliefs, target, precision, text, self.own)
        system, pull = ends.sums(strength, pulls, self._num_responses, self._strengths.own_variances)
        covariance = torch.linalg.inv(system)
        self.own_variance = covariance.diagonal(dim1=1, dim2=2)
        self.own = 0.5 * (self.own + (covariance @ pull[..., None])[..., 0])
        self._others, noise = torch.zeros_like(self._others), torch.zeros_like(self._noise)
        for (end, _, sign), own in zip(ends, pulls, strict=True):
            covariance = torch.linalg.inv(system[end] - strength)
            self._others += sign * (covariance @ (pull[end] - own)[..., None])[..., 0]
            noise += (covariance * beliefs.other_square).sum((1, 2))
        return noise

    def _restore_unit_variance(self, second: Tensor) -> None:
        """Give tastes along the directions unit variance again, by scaling the directions instead."""
        values, vectors = torch.linalg.eigh(second)
        root = vectors @ torch.diag(values.clamp_min(1e-6).sqrt()) @ vectors.T
        for table in (self.text, self.own, self._others):
            table[:, 1:] = table[:, 1:] @ root
        scaled = self._prior[1:] * values.mean().clamp_min(1e-6)
        self._prior[1:] = scaled.clamp_min(self._strengths.direction)


@final
@frozen(eq=False)
class _Ends:
    """The two responses of each comparison [N]."""

    chosen: Tensor
    rejected: Tensor

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Yield one response of each comparison, the other one, and its sign in the margin."""
        yield self.chosen, self.rejected, 1.0
        yield self.rejected, self.chosen, -1.0

    def messages(
        self, beliefs: Beliefs, target: Tensor, precision: Tensor, text: Tensor, own: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return what comparisons say of the own parts of their responses: strengths [N, J, J], and pulls of each end.

        Args:
            beliefs: of their users.
            target: of the bound [N].
            precision: of the observations [N].
            text: coordinates by texts, their difference [N, J].
            own: own parts of all responses as they are [R, J].
        """
        seen = beliefs.other_square
        rest = target[:, None] * beliefs.other_mean - beliefs.other_product - (seen @ text[..., None])[..., 0]
        pulls = [
            precision[:, None] * (sign * rest + (seen @ own[partner][..., None])[..., 0]) for _, partner, sign in self
        ]
        return precision[:, None, None] * seen, pulls

    def sums(
        self, strength: Tensor, pulls: Sequence[Tensor], num_responses: int, variances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of the messages by response, with the prior of variances [J]: [R, J, J] and [R, J]."""
        size = strength.shape[1]
        system = torch.diag(1 / variances).repeat(num_responses, 1, 1)
        pull = torch.zeros(num_responses, size, dtype=torch.float64)
        for (end, _, _), own in zip(self, pulls, strict=True):
            system.index_add_(0, end, strength)
            pull.index_add_(0, end, own)
        return system, pull
