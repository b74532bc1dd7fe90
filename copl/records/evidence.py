r"""Evidence of every kind in one likelihood: a margin with logistic noise fell between two bounds.

.. math::
    P(l < m + \epsilon < h) = \sigma(h - m) - \sigma(l - m) = \sigma(m - l)\,\sigma(h - m)\,(1 - e^{l - h})

- A comparison is (0, inf), Bradley and Terry's; where there are ties, (d, inf).
- A tie is (-d, d): the model of P. V. Rao and L. L. Kupper, "Ties in paired-comparison experiments", JASA 62, 1967,
  with d = ln eta.
- A thumb is (t, inf) or (-inf, t), with the score of the response for m and a threshold t of the user's own.
- A rating k is (t_k, t_{k+1}): the cumulative link model (P. McCullagh, "Regression models for ordinal data", JRSS B
  42, 1980), with thresholds of the user's own.
- A ranking is a choice among what is left, again and again (R. L. Plackett, "The analysis of permutations", Applied
  Statistics 24, 1975); its pairs, with the weight that carries the same information, are `ranking_weight`.

By the product above every judgement is at most two comparisons: m beats l, and h beats m. So whatever learns from
weighted comparisons learns from all of it (`implied`), and what knows thresholds has them as responses of their own.

Shapes: N judgements.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

import numpy as np
from attrs import evolve, frozen

from copl.records.judgements import BOTH_BAD, RATING, THUMB, Judgements
from copl.records.tables import Comparisons
from copl.system.converters import ranks

if TYPE_CHECKING:
    from copl.records.dataset import ComparisonSet
    from copl.records.tables import BoolArray, FloatArray, IntArray

NUM_LEVELS = 9
"""Levels of a user's own scale that are responses for a user model."""

LEVEL_KEYS = tuple(f"level {number}" for number in range(1, NUM_LEVELS + 1))
"""Keys of the levels as responses; no response has such a key."""

_PRIOR = 4.0
"""Judgements' worth of everybody's shares in a user's own."""

_LEVELS_OF_A_RATING = 3

_GOLDEN = (5**0.5 - 1) / 2
_ROUNDS = 4
"""Times around a user's judgements of single responses that each is set against others."""


def ranking_weight(count: int) -> float:
    r"""Return the weight of each pair of a ranking of `count` responses.

    Of equal scores the Fisher information of a ranking is that of its pairs with the weight

    .. math:: w_n = \frac{4 (n - H_n)}{n (n - 1)}, \qquad H_n = \sum_{k=1}^n \frac1k

    since a choice among k tells (1 - 1/k) in all, and a comparison 1/2; w_2 = 1.
    """
    harmonic = float(sum(1 / k for k in range(1, count + 1)))
    return 4 * (count - harmonic) / (count * (count - 1))


def choice_weight(count: int) -> float:
    """Return the weight of each pair of the best (or worst) among `count` with another: 2 / count, by the same rule."""
    return 2 / count


def implied(judgements: Judgements, num_comparisons: int = 0) -> Comparisons:
    r"""Return judgements as weighted comparisons, for whatever knows nothing else; thresholds cancel out.

    A tie is two opposite comparisons, each of weight 4 sigma(d) sigma(-d) = 1 - p^2, which together are curved as a tie
    is where the two are equal; p is the share of ties. Two thumbs of one user, up and down, compare their responses:
    given that one is up and one down, which it is has Bradley and Terry's chance, whatever the threshold (the
    conditional likelihood of D. R. Cox, "The regression analysis of binary sequences", JRSS B 20, 1958). So do two
    ratings of one user. A user's n of them weigh 2 n I together, with I the information of one of them,

    .. math:: I = \sum_k p_k (F_{k-1} + F_k - 1)^2

    of the shares p_k of the user's levels and their sums F_k; 1/4 for as many up as down, 1/3 for a fine scale. Both
    bad is a tie and two thumbs down. Of a user whose thumbs are all alike nothing is implied.

    Args:
        judgements: the judgements.
        num_comparisons: how many comparisons there are beside them, which tells the share of ties.
    """
    parts = [_of_ties(judgements.take(judgements.is_of_two), num_comparisons)]
    for opinions in (thumbs_of(judgements), judgements.take(judgements.kind == RATING)):
        parts += list(_of_levels(opinions))
    return Comparisons.concat(parts)


def thumbs_of(judgements: Judgements) -> Judgements:
    """Return the thumbs, with two down for each pair of which both are bad."""
    bad = judgements.take(judgements.kind == BOTH_BAD)
    down = [
        Judgements(np.full(len(bad), THUMB), bad.user, end, np.full(len(bad), -1), -np.ones(len(bad)), bad.weight,
                   bad.time)
        for end in (bad.response, bad.other)
    ]  # fmt: skip
    return Judgements.concat([judgements.take(judgements.kind == THUMB), *down])


def _of_ties(ties: Judgements, num_comparisons: int) -> Comparisons:
    share = len(ties) / max(len(ties) + num_comparisons, 1)
    weight = ties.weight * (1 - share**2 if share < 1 else 1.0)
    directions = ((ties.response, ties.other), (ties.other, ties.response))
    return Comparisons.concat([Comparisons(ties.user, *ends, weight, time=ties.time) for ends in directions])


def _of_levels(opinions: Judgements) -> Iterator[Comparisons]:
    """Yield each user's judgements of single responses as comparisons of a higher with a lower one."""
    order = np.argsort(opinions.user, kind="stable")
    starts = np.flatnonzero(np.diff(opinions.user[order], prepend=-1))
    for rows in np.split(order, starts[1:]) if len(order) else []:
        own = opinions.take(rows)
        shares = np.unique(own.value, return_counts=True)[1] / len(own)
        if len(shares) < 2:
            continue
        high, low = _pairs(own.value)
        ends = np.cumsum(shares)
        information = float(shares @ (2 * ends - shares - 1) ** 2)
        weight = np.sqrt(own.weight[high] * own.weight[low])
        weight = weight * 2 * len(own) * information / len(high)
        time = np.minimum(own.time[high], own.time[low])  # what of the two is longer ago; unknown where one is
        yield Comparisons(own.user[high], own.response[high], own.response[low], weight, time=time)


def _pairs(values: FloatArray) -> tuple[IntArray, IntArray]:
    """Return pairs of a higher and a lower value: all of few values, a few for each of many."""
    count = len(values)
    if count <= 2 * _ROUNDS + 1:
        one, other = np.triu_indices(count, 1)
    else:
        # around a circle in which neighbours are far apart, so that every value meets others of all heights
        circle = np.argsort(values, kind="stable")[np.argsort(np.arange(count) * _GOLDEN % 1)]
        steps = [1 + step * (count // 2 - 1) // (_ROUNDS - 1) for step in range(_ROUNDS)]
        one = np.tile(circle, len(steps))
        other = np.concatenate([np.roll(circle, step) for step in steps])
    differ: BoolArray = (values[one] != values[other]) & (one != other)
    one, other = one[differ], other[differ]
    first = values[one] > values[other]
    return np.where(first, one, other), np.where(first, other, one)


def learnt_from(said: ComparisonSet, *, alone: bool = False) -> Comparisons:
    """Return all that a split says as comparisons for a user model, which has levels as responses of its own.

    The given comparisons and ties, then single responses against levels (`on_levels`), whose rows follow those of the
    table of responses.

    Args:
        said: the split.
        alone: what one user says follows from nobody else's words: the prior of a user's shares is the middle, a tie
            weighs 1, and ratings are compared with each other.
    """
    if not len(said.judgements):
        return said.comparisons
    given, judgements = said.given, said.judgements
    two, is_rating = judgements.take(judgements.is_of_two), judgements.kind == RATING
    parts = [given, _of_ties(two, len(two) * 1000 if alone else len(given))]
    if alone:  # measured: of a newcomer's ratings the pairs tell more than two levels each
        parts.append(implied(judgements.take(is_rating)))
        judgements = judgements.take(~is_rating)
    return Comparisons.concat([*parts, on_levels(judgements, len(said.responses), alone=alone)])


def on_levels(judgements: Judgements, num_responses: int, *, alone: bool = False) -> Comparisons:
    r"""Return thumbs and ratings as comparisons with levels, responses at rows from `num_responses` on.

    Level k stands where a share (k + 1) / (K + 1) of what a user meets lies below it. The user's own thresholds are
    shares as well: that of the thumbs down, those of the ratings below v and up to v. They have a prior, which counts
    as four judgements of all users together,

    .. math:: F_u(v) = \frac{n_u \hat F_u(v) + 4 \hat F(v)}{n_u + 4}

    so that a user who has said enough has a scale of their own, in mean and in spread. A thumb is a comparison with the
    level at the threshold; of two levels beside it the one or the other, the more often the nearer one. A rating tells
    of every level whether it is above; it is compared with three of them, which go around all levels in turn, each of
    weight 2/3: a comparison with a level anywhere has the information 1/6 on the average, so that together they have
    the 1/3 of a rating.

    Args:
        judgements: the judgements; those of two responses are left out, but for the thumbs that both bad implies.
        num_responses: R, rows of responses before the levels.
        alone: see `learnt_from`.
    """
    thumbs = thumbs_of(judgements)
    below, up_to = _shares(thumbs, alone=alone)
    # a number that is spread evenly over a user's judgements takes the place of chance
    spread = _spread(thumbs.user)
    is_up = thumbs.value > 0
    level = np.floor(np.where(is_up, below, up_to) * (NUM_LEVELS + 1) - 1 + spread).astype(np.int64)
    parts = [_against(thumbs, level, is_up, num_responses)]
    ratings = judgements.take(judgements.kind == RATING)
    below, up_to = _shares(ratings, alone=alone)
    spread = _spread(ratings.user)
    shared = evolve(ratings, weight=ratings.weight * 2 / _LEVELS_OF_A_RATING)
    for turn in range(_LEVELS_OF_A_RATING):
        level = np.floor((spread + turn / _LEVELS_OF_A_RATING) % 1 * NUM_LEVELS).astype(np.int64)
        height = (level + 1) / (NUM_LEVELS + 1)
        is_above = np.where(below >= height, True, (up_to > height) & ((below + up_to) / 2 > height))
        parts.append(_against(shared, level, is_above, num_responses))
    return Comparisons.concat(parts)


def _against(opinions: Judgements, level: IntArray, is_above: BoolArray, num_responses: int) -> Comparisons:
    """Return comparisons of responses with levels, those that are none left out."""
    use = np.flatnonzero((level >= 0) & (level < NUM_LEVELS))
    own, level, above = opinions.response[use], num_responses + level[use], is_above[use]
    ends = np.where(above, own, level), np.where(above, level, own)
    return Comparisons(opinions.user[use], *ends, opinions.weight[use], time=opinions.time[use])


def _spread(user: IntArray) -> FloatArray:
    """Return numbers from 0 to 1 [N] that each user's judgements, one after the other, have evenly spread."""
    spread: FloatArray = ((ranks(user, np.arange(len(user))) + 1) * _GOLDEN % 1).astype(np.float64)
    return spread


def _shares(opinions: Judgements, *, alone: bool) -> tuple[FloatArray, FloatArray]:
    """Return the user's own shares below each judgement, and up to it [N]."""
    below, up_to = np.zeros(len(opinions)), np.zeros(len(opinions))
    if not len(opinions):
        return below, up_to
    everybody = opinions.value
    for side, shares in _sides(below, up_to):
        usual: Any = 0.5 if alone else _counts(everybody, opinions.value, side) / len(opinions)
        shares += np.asarray(_PRIOR * usual, dtype=np.float64)
    order = np.argsort(opinions.user, kind="stable")
    starts = np.flatnonzero(np.diff(opinions.user[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        values = opinions.value[rows]
        for side, shares in _sides(below, up_to):
            shares[rows] += _counts(values, values, side)
            shares[rows] /= len(rows) + _PRIOR
    return below, up_to


Side: TypeAlias = Literal["left", "right"]


def _sides(below: FloatArray, up_to: FloatArray) -> tuple[tuple[Side, FloatArray], ...]:
    return ("left", below), ("right", up_to)


def _counts(among: FloatArray, values: FloatArray, side: Side) -> IntArray:
    """Return how many values lie below each, or up to it [N]."""
    return np.searchsorted(np.sort(among), values, side=side)


@final
@frozen
class LeftOut:
    """What `implied` can say nothing of."""

    users: int
    judgements: int

    @classmethod
    def of(cls, judgements: Judgements) -> LeftOut:
        """Count users whose thumbs, or ratings, are all alike."""
        users: set[int] = set()
        count = 0
        for opinions in (thumbs_of(judgements), judgements.take(judgements.kind == RATING)):
            levels = np.unique(np.stack([opinions.user, opinions.value]), axis=1)[0]
            owners, distinct = np.unique(levels, return_counts=True)
            alike = owners[distinct == 1].astype(np.int64)
            users |= set(alike.tolist())
            count += int(np.isin(opinions.user, alike).sum())
        return cls(len(users), count)
