"""The simulated world of `planted`: pairs of responses, the label each group of users gives them, and choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen

from copl.data.sources.planted.drawing import draw_distinct
from copl.records import Comparisons

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from copl.records import BoolArray, FloatArray, IntArray

MAX_GROUPS = 62  # the labels of a pair are the bits of one number


@final
@frozen(eq=False)
class PlantedTruth:
    """What made the data, for oracles and tests; no method may see it.

    A user of group g who compares pair p chooses `first[p]` where `labels[p, g]` holds and `second[p]` where it does
    not; with probability `label_noise` the other one.

    Attributes:
        first: row of one response of each pair [P].
        second: row of the other response of each pair [P].
        labels: whether each group prefers the first response of each pair [P, G].
        user_groups: the group of each user, a column of `labels` [U].
        label_noise: probability that a comparison comes out against the label.
    """

    first: IntArray
    second: IntArray
    labels: BoolArray
    user_groups: IntArray
    label_noise: float = 0.0

    @property
    def controversial(self) -> BoolArray:
        """Which pairs two groups label differently [P]."""
        return np.asarray(self.labels.any(axis=1) & ~self.labels.all(axis=1))

    def compare(
        self, users: IntArray, counts: IntArray, pairs: IntArray, weights: FloatArray, rng: Generator
    ) -> tuple[Comparisons, IntArray]:
        """Let users choose on different pairs.

        Args:
            users: rows of the users [n].
            counts: how many comparisons each gives [n].
            pairs: the pairs to be drawn from [m], at least as many as any of `counts`.
            weights: popularity of each of them [m].
            rng: source of the pairs and of the noise.

        Returns:
            the comparisons, user by user, and the pair of each.
        """
        pair = pairs[draw_distinct(counts, weights, rng)]
        user = np.repeat(users, counts)
        likes_first = self.labels[pair, self.user_groups[user]]
        if self.label_noise:
            likes_first = likes_first ^ (rng.random(len(pair)) < self.label_noise)
        first, second = self.first[pair], self.second[pair]
        flags: NDArray[np.int8] = self.controversial.astype(np.int8)[pair]
        rows = Comparisons(
            user,
            np.where(likes_first, first, second),
            np.where(likes_first, second, first),
            controversial=flags,
        )
        return rows, pair

    def ceilings(self, rows: Comparisons, pair: IntArray) -> dict[str, float]:
        """Return the accuracy on comparisons of an oracle that knows all labels.

        Args:
            rows: the comparisons [N].
            pair: their pairs [N].

        Returns:
            ``consensus``: of one that knows no user and answers as most groups do, larger ones counting more (half
            right where they are even);
            ``group_oracle``: of one that knows the group of each user.
        """
        chose_first = rows.chosen == self.first[pair]
        sizes = np.bincount(self.user_groups, minlength=self.labels.shape[1]).astype(np.float64)
        if np.ptp(sizes) <= 2:  # of equal size, but for users left over among seen and among unseen ones
            sizes = np.ones_like(sizes)
        lean = ((2.0 * self.labels - 1.0) @ sizes)[pair]
        agreed = np.where(lean == 0, 0.5, (lean > 0) == chose_first)
        known = self.labels[pair, self.user_groups[rows.user]] == chose_first
        return {"consensus": round(float(agreed.mean()), 4), "group_oracle": round(float(known.mean()), 4)}


def draw_labels(num_pairs: int, num_groups: int, controversial_share: float, rng: Generator) -> BoolArray:
    """Draw whether each group prefers the first response of each pair [P, G].

    Of a common pair all groups give one random label. A controversial pair has a random label for each group, both
    labels being present: each of the 2^G - 2 ways with equal probability.
    """
    common: IntArray = rng.integers(2, size=num_pairs) * (2**num_groups - 1)
    codes = common
    if controversial_share:
        apart = rng.permutation(num_pairs) < round(controversial_share * num_pairs)
        codes = np.where(apart, rng.integers(1, 2**num_groups - 1, size=num_pairs), common)
    labels: BoolArray = (codes[:, None] >> np.arange(num_groups)) & 1 > 0
    return labels


def draw_groups(num_users: int, shares: Sequence[float], rng: Generator) -> IntArray:
    """Draw the group of each user [U]; sizes of groups are in proportion to their shares, up to one.

    >>> np.bincount(draw_groups(10, (9.0, 1.0), np.random.default_rng(0))).tolist()
    [9, 1]
    """
    if len(set(shares)) == 1:
        return rng.permutation(np.arange(num_users) % len(shares))
    ends = np.rint(np.cumsum(shares) / np.sum(shares) * num_users).astype(np.int64)
    return rng.permutation(np.searchsorted(ends, np.arange(num_users), side="right"))
