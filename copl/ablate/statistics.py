"""What the numbers of a study say: intervals over seeds, paired differences pooled over seeds, corrected p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen
from scipy.stats import norm
from scipy.stats import t as student

from copl.evaluate.bootstrap import interval

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray

NUM_RESAMPLES = 10_000
"""Resamples behind a p-value."""

_FEW = 10
"""Below so many resamples on the far side of zero, a p-value is that of a normal distribution."""

_DRAWS_AT_ONCE = 4_000_000


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of independent runs and half the width of its 95 % interval.

    mean +- t(.975, S - 1) s / sqrt(S), with s the standard deviation of the S values, by Student's t.

    Raises:
        ValueError: fewer than two values have no interval.

    >>> mean, half = t_interval([0.7, 0.8, 0.9])
    >>> round(mean, 3), round(half, 3)
    (0.8, 0.248)
    """
    if len(values) < 2:
        raise ValueError(f"an interval over runs needs at least two, got {len(values)}")
    array = np.asarray(values, dtype=np.float64)
    quantile = float(student.ppf(0.975, len(array) - 1))
    return float(array.mean()), quantile * float(array.std(ddof=1)) / float(np.sqrt(len(array)))


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
    """Differences of two methods on the same comparisons, for one seed.

    Attributes:
        values: difference of correctness of each comparison, -1 to 1 [N].
        users: the user of each comparison [N], the same text for the same user whatever the seed.
    """

    values: FloatArray
    users: Sequence[str]


@final
@frozen(eq=False)
class PairedDifference:
    """By how much a method is ahead of another on one split of one data set, or on the mean of several.

    Attributes:
        value: difference of accuracy.
        resampled: the same in each resample [NUM_RESAMPLES].
    """

    value: float
    resampled: FloatArray

    @property
    def bounds(self) -> tuple[float, float]:
        """The 95 % interval."""
        return interval(self.value, self.resampled)

    @property
    def p_value(self) -> float:
        """Two-sided: twice the share of resamples on the far side of zero, those at zero among them.

        Where fewer than ten are there, their share says little, and could never survive a correction for hundreds of
        differences; then it is the tail of a normal distribution with the resamples' standard deviation, if smaller.
        """
        far = min(int((self.resampled <= 0).sum()), int((self.resampled >= 0).sum()))
        counted = min(1.0, 2 * (far + 1) / (len(self.resampled) + 1))
        spread = float(self.resampled.std(ddof=1))
        if far >= _FEW or not spread:
            return counted
        return min(counted, 2 * float(norm.sf(abs(self.value) / spread)))


def pooled_difference(
    by_seed: Sequence[SeedDifferences], *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> PairedDifference:
    """Return the mean difference over all comparisons of all seeds, resampling users and seeds independently.

    Comparisons of one user depend on each other, and so do those of one run: both users and seeds are drawn with
    replacement and a comparison counts as often as its user times its seed is drawn (the pigeonhole bootstrap of Owen
    2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1; it errs on the side of wide intervals). With one
    seed only users are drawn, and the result says nothing about other seeds.

    Args:
        by_seed: the differences of each seed, at least one comparison in all.
        seed: the same seed draws the same resamples.
        num_resamples: how many.

    Raises:
        ValueError: there are no comparisons.
    """
    names = {user: row for row, user in enumerate(sorted({user for d in by_seed for user in d.users}))}
    sums, counts = (np.zeros((len(names), len(by_seed))) for _ in range(2))
    for column, differences in enumerate(by_seed):
        rows: IntArray = np.array([names[user] for user in differences.users], dtype=np.int64)
        sums[:, column] = np.bincount(rows, differences.values, minlength=len(names))
        counts[:, column] = np.bincount(rows, minlength=len(names))
    if not counts.sum():
        raise ValueError("there are no comparisons to pool")
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // len(names))
    resampled = np.empty(num_resamples)
    for start in range(0, num_resamples, at_once):
        size = min(at_once, num_resamples - start)
        users = _times_drawn(generator, size, len(names))
        seeds = _times_drawn(generator, size, len(by_seed))
        drawn = ((users @ counts) * seeds).sum(axis=1)
        total = ((users @ sums) * seeds).sum(axis=1)
        # a seed, or the users, without any comparison in a resample: that resample knows nothing
        resampled[start : start + size] = np.divide(total, drawn, out=np.zeros(size), where=drawn > 0)
    return PairedDifference(float(sums.sum() / counts.sum()), resampled)


def _times_drawn(generator: np.random.Generator, size: int, number: int) -> FloatArray:
    drawn = generator.integers(number, size=(size, number), dtype=np.int64)
    drawn += np.arange(size)[:, None] * number
    times = np.bincount(drawn.ravel(), minlength=size * number).reshape(size, number)
    return times.astype(np.float64)


def mean_difference(parts: Mapping[str, PairedDifference]) -> PairedDifference:
    """Return the mean of differences on several data sets, each counting the same; their resamples are independent."""
    values = [part.value for part in parts.values()]
    resampled = np.mean([part.resampled for part in parts.values()], axis=0)
    return PairedDifference(float(np.mean(values)), resampled)
