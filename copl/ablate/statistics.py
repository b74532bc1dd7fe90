"""What the numbers of a study say: intervals over seeds, paired differences pooled over seeds, corrected p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen
from scipy.special import ndtri, stdtrit

from copl.evaluate.bootstrap import Spread, added, spread, spread_between

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray

_LEVEL = 0.05
_NOTHING = Spread(0.0, float("inf"))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the same order.

    Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6: the
    smallest of m is multiplied by m, the next by m - 1, and so on; a corrected value is never below an earlier one. The
    chance of any false finding among all m is at most the level chosen, whatever depends on what.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    reached = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = reached
    return corrected


@final
@frozen(eq=False)
class SeedDifferences:
    """Differences of two methods on the same comparisons, for one seed; or what one method gets right, held to nothing.

    Attributes:
        values: difference of correctness of each comparison, -1 to 1 [N].
        users: the user of each comparison [N], the same text for the same user whatever the seed.
        texts: the prompt of each comparison, or its two responses, named alike for all seeds [N]; None leaves it at
            users.
    """

    values: FloatArray
    users: Sequence[str]
    texts: Sequence[str] | Sequence[tuple[str, str]] | None = None


@final
@frozen
class PairedDifference:
    """By how much a method is ahead of another on one split of one data set, or on the mean of several.

    Attributes:
        value: difference of accuracy.
        within: its variance over users and texts, were runs otherwise alike and independent.
        by_seed: the difference of each seed [S].
        shared: the covariance of two seeds, by the users and texts they share.
    """

    value: float
    within: Spread
    by_seed: tuple[float, ...] = ()
    shared: Spread = _NOTHING

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval: the wider one of those over seeds alone and over seeds and what they share (`widths`)."""
        reach = max(width.reach for width in self.widths)
        return self.value - reach, self.value + reach

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval, which holds zero wherever the p-value is .05 or more.

        It would not where nothing varies but those asked are too few for the sign test; then it reaches to zero.
        """
        low, high = self.interval
        return (low, high) if self.p_value < _LEVEL else (min(low, 0.0), max(high, 0.0))

    @property
    def p_value(self) -> float:
        """Two-sided, the larger one of the two: below .05 where `bounds` leave out zero."""
        return max(width.p_value(self.value) for width in self.widths)

    @property
    def widths(self) -> Sequence[Spread]:
        """The variances that the value is held against.

        With one seed, over users and texts. With more, V_s, that of the seeds' means with S - 1 degrees of freedom;
        and V = V_s + X, with X what the seeds share, and V^2 / (X^2 / d + V_s V / (S - 1)) degrees of freedom: a little
        below Satterthwaite's, which has V_s^2 there and trusts the shares of few seeds too much. Seeds may agree by
        luck: V_s is at least V_w / t(.975, S - 1)^2, V_w that within seeds, so that no interval reaches less far than a
        standard error over users and texts.
        """
        num_seeds = len(self.by_seed)
        if num_seeds < 2:
            return (self.within,)
        least = self.within.variance / float(stdtrit(num_seeds - 1, 0.975)) ** 2
        seeds = Spread(max(float(np.var(self.by_seed, ddof=1)) / num_seeds, least), num_seeds - 1)
        if not seeds.variance:
            return (self.within,)
        variance, shared = seeds.variance + self.shared.variance, self.shared
        unsure = shared.variance**2 / shared.degrees + seeds.variance * variance / seeds.degrees
        return seeds, Spread(variance, variance**2 / unsure)


def pooled_difference(by_seed: Sequence[SeedDifferences]) -> PairedDifference:
    """Return the mean of the seeds' mean differences, with what it varies by.

    Comparisons depend on each other where they share a user or a text, in one seed or in two
    (`copl.evaluate.bootstrap`). What makes whole runs differ is in the variance of the seeds' means, but not the luck
    that all of them have in common; that is estimated from comparisons of different seeds. With one seed the result
    says nothing about other seeds.

    Args:
        by_seed: the differences of each seed, at least one comparison each.

    Raises:
        ValueError: there are no comparisons.
    """
    if not by_seed or not all(len(d.values) for d in by_seed):
        raise ValueError("there are no comparisons to pool")
    means = tuple(float(d.values.mean()) for d in by_seed)
    num_seeds = len(by_seed)
    run = np.repeat(np.arange(num_seeds), [len(d.values) for d in by_seed])
    apart = [(d.values - mean) / (num_seeds * len(d.values)) for d, mean in zip(by_seed, means, strict=True)]
    sampled = _sampled(by_seed)
    within = added([spread(apart[k], [kind[run == k] for kind in sampled]) for k in range(num_seeds)])
    if num_seeds == 1:
        return PairedDifference(means[0], within)
    shared = spread_between(np.concatenate(apart), sampled, run)
    return PairedDifference(float(np.mean(means)), within, means, shared)


def pooled_runs(values: Sequence[float], reaches: Sequence[float], *, shared: bool) -> PairedDifference:
    """Return the mean of runs of which no more is known than a figure of each and its interval.

    As `pooled_difference`, except for what users and texts that runs share have in common: without the single
    comparisons it is not known apart, so it counts as all of what the intervals are made of, which is the most it can
    be.

    Args:
        values: the figure of each run, at least one.
        reaches: half the width of its 95 % interval over users and texts [S].
        shared: whether runs have users and texts in common; otherwise each has its own.

    >>> [round(end, 3) for end in pooled_runs([0.7, 0.8, 0.9], [0.1, 0.1, 0.1], shared=False).interval]
    [0.552, 1.048]
    """
    variances = np.square(np.asarray(reaches, dtype=np.float64) / float(ndtri(0.975)))
    within = Spread(float(variances.sum()) / len(values) ** 2, float("inf"))
    if len(values) == 1:
        return PairedDifference(values[0], within)
    together = Spread(float(variances.mean()), float("inf")) if shared else _NOTHING
    return PairedDifference(float(np.mean(values)), within, tuple(values), together)


def _sampled(by_seed: Sequence[SeedDifferences]) -> list[IntArray]:
    """Return the users of all comparisons [N], and their texts [N] or [N, 2], numbered alike over seeds."""
    kinds = [_numbered([user for d in by_seed for user in d.users])]
    texts = [text for d in by_seed for text in d.texts or ()]
    if len(texts) != len(kinds[0]):
        return kinds
    if isinstance(texts[0], str):
        return [*kinds, _numbered([str(text) for text in texts])]
    return [*kinds, _numbered([end for pair in texts for end in pair]).reshape(-1, 2)]


def _numbered(names: Sequence[str]) -> IntArray:
    number = {name: row for row, name in enumerate(dict.fromkeys(names))}
    return np.fromiter(map(number.__getitem__, names), dtype=np.int64, count=len(names))


def mean_difference(parts: Mapping[str, PairedDifference]) -> PairedDifference:
    """Return the mean of differences on several data sets, each counting the same.

    Data sets share no users and no texts; runs of one seed are held together. Where data sets have other numbers of
    seeds, each brings the variance it has by itself.
    """
    several = list(parts.values())
    value = float(np.mean([part.value for part in several]))
    if len({len(part.by_seed) for part in several}) > 1:
        return PairedDifference(value, _mean([max(part.widths, key=lambda w: w.reach) for part in several]))
    by_seed = tuple(np.mean([part.by_seed for part in several], axis=0).tolist())
    within, shared = (_mean([getattr(part, name) for part in several]) for name in ("within", "shared"))
    return PairedDifference(value, within, by_seed, shared)


def _mean(parts: Sequence[Spread]) -> Spread:
    return added([Spread(part.variance / len(parts) ** 2, part.degrees) for part in parts])
