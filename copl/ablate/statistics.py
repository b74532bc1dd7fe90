"""What the numbers of a study say: intervals over seeds, paired differences pooled over seeds, corrected p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen
from scipy.stats import norm
from scipy.stats import t as student

from copl.evaluate.bootstrap import Spread, crossed_resamples, interval, spread

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray

NUM_RESAMPLES = 10_000
"""Resamples behind a p-value."""

_FEW = 10
"""Below so many resamples on the far side of zero, a p-value is that of the tail of a distribution as wide as they."""


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
@frozen(eq=False)
class PairedDifference:
    """By how much a method is ahead of another on one split of one data set, or on the mean of several.

    Attributes:
        value: difference of accuracy.
        resampled: the same in each resample of users and texts [NUM_RESAMPLES].
        by_seed: the same for each seed [S].
        degrees: degrees of freedom of the resamples' width.
    """

    value: float
    resampled: FloatArray
    by_seed: tuple[float, ...] = ()
    degrees: float = float("inf")

    @property
    def bounds(self) -> tuple[float, float]:
        """The 95 % interval: that of the resamples, or of Student's t over seeds where that is wider."""
        low, high = interval(self.value, self.resampled)
        if len(self.by_seed) < 2:
            return low, high
        mean, half = t_interval(self.by_seed)
        return min(low, mean - half), max(high, mean + half)

    @property
    def p_value(self) -> float:
        """Two-sided: the larger of that of the resamples and that of Student's t over seeds.

        That of the resamples is twice the share on the far side of zero, those at zero among them. Where fewer than ten
        are there, their share says little, and could never survive a correction for hundreds of differences; then it
        is the tail of Student's t with the resamples' standard deviation, if smaller.
        """
        return max(self._resampled_p_value(), _student_p_value(self.by_seed))

    def _resampled_p_value(self) -> float:
        far = min(int((self.resampled <= 0).sum()), int((self.resampled >= 0).sum()))
        counted = min(1.0, 2 * (far + 1) / (len(self.resampled) + 1))
        width = float(self.resampled.std(ddof=1))
        if far >= _FEW or not width:
            return counted
        width *= float(norm.ppf(0.975) / student.ppf(0.975, self.degrees))  # what `crossed_resamples` has widened it by
        return min(counted, 2 * float(student.sf(abs(self.value) / width, self.degrees)))


def _student_p_value(by_seed: Sequence[float]) -> float:
    if len(by_seed) < 2:
        return 0.0
    values = np.asarray(by_seed)
    width = float(values.std(ddof=1)) / len(values) ** 0.5
    return 2 * float(student.sf(abs(float(values.mean())) / width, len(values) - 1)) if width else 0.0


def pooled_difference(
    by_seed: Sequence[SeedDifferences], *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> PairedDifference:
    """Return the mean of the seeds' mean differences, resampling users and texts.

    Comparisons depend on each other where they share a user or a text, in one seed or in two, and the resamples are as
    wide as that makes them (`copl.evaluate.bootstrap`). What makes whole runs differ beyond what their users and texts
    explain is added: V = V_b + max(0, V_s - V_w), with V_b the variance over users and texts, V_s that of the seeds'
    means and V_w the part of V_b within seeds. With one seed the result says nothing about other seeds.

    Args:
        by_seed: the differences of each seed, at least one comparison each.
        seed: the same seed draws the same resamples.
        num_resamples: how many.

    Raises:
        ValueError: there are no comparisons.
    """
    if not by_seed or not all(len(d.values) for d in by_seed):
        raise ValueError("there are no comparisons to pool")
    means = tuple(float(d.values.mean()) for d in by_seed)
    value = float(np.mean(means))
    run = np.repeat(np.arange(len(by_seed)), [len(d.values) for d in by_seed])
    weights = np.concatenate([np.full(len(d.values), 1 / (len(by_seed) * len(d.values))) for d in by_seed])
    apart = np.concatenate([d.values - mean for d, mean in zip(by_seed, means, strict=True)])
    sampled = _sampled(by_seed)
    width = _over_seeds(apart * weights, sampled, run, means)
    resampled = crossed_resamples(
        value + apart, sampled, seed=seed, num_resamples=num_resamples, weights=weights, variance=width
    )
    return PairedDifference(value, resampled, means, width.degrees)


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
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)


def _over_seeds(deviations: FloatArray, sampled: Sequence[IntArray], run: IntArray, means: Sequence[float]) -> Spread:
    over_all = spread(deviations, sampled)
    if len(means) < 2:
        return over_all
    within = [spread(deviations[run == k], [kind[run == k] for kind in sampled]) for k in range(len(means))]
    seeds = float(np.var(means, ddof=1)) / len(means)
    beyond = max(0.0, seeds - sum(part.variance for part in within))
    variance = over_all.variance + beyond
    unsure = over_all.variance**2 / over_all.degrees + beyond**2 / (len(means) - 1)
    return Spread(variance, max(1.0, variance**2 / unsure)) if unsure else over_all


def mean_difference(parts: Mapping[str, PairedDifference]) -> PairedDifference:
    """Return the mean of differences on several data sets, each counting the same; their resamples are independent."""
    several = list(parts.values())
    resampled = np.mean([part.resampled for part in several], axis=0)
    alike = len({len(part.by_seed) for part in several}) == 1
    by_seed = np.mean([part.by_seed for part in several], axis=0).tolist() if alike else []
    variances = np.array([part.resampled.var() for part in several])
    unsure = float(np.sum(variances**2 / [part.degrees for part in several]))
    degrees = float(variances.sum()) ** 2 / unsure if unsure else float("inf")
    return PairedDifference(float(np.mean([part.value for part in several])), resampled, tuple(by_seed), degrees)
