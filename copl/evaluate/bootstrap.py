"""Bootstrap intervals of means over comparisons, which depend on each other where they share a user or a text.

Who was asked and what they were asked about were both drawn from larger populations, and a figure is meant for those.
So users are resampled, and texts are resampled, and the two deviations add up. The sum would count twice what neither
a user nor a text explains, the chance in a single answer; its width is therefore set to that of Student's t, for the
variance over all pairs of comparisons that share a user or a text, each pair once (Cameron, Gelbach and Miller 2011,
"Robust inference with multiway clustering", Journal of Business & Economic Statistics 29; for comparisons of two texts
Aronow, Samii and Assenova 2015, "Cluster-robust variance estimation for dyadic data", Political Analysis 23).
Resampling both at once (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1) counts that chance three
times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from copl.records import ComparisonSet, FloatArray, IntArray

_DRAWS_AT_ONCE = 4_000_000
_SPARSE, _COUNTED = 32, 4_000_000
"""Numbers up to so many for each comparison, and at most so many, are counted instead of sorted."""
_DRAWS_KEPT = 16_000_000
"""Metrics of a split resample the same clusters by the same seed; up to so many draws, of a byte each, are kept."""


def resampled_ratios(numerators: FloatArray, denominators: FloatArray, *, seed: int, num_resamples: int) -> FloatArray:
    """Return the ratio of sums in each of many resamples of the rows, drawn with replacement [num_resamples].

    Args:
        numerators: one row a cluster [C].
        denominators: positive, as many [C].
        seed: the same seed draws the same resamples.
        num_resamples: how many.
    """
    num_clusters = len(numerators)
    columns = np.stack([numerators, denominators], axis=1)
    few = num_clusters * num_resamples <= _DRAWS_KEPT
    drawn = (_kept_draws if few else _draws)(num_clusters, seed, num_resamples)
    sums = np.concatenate([times @ columns for times in drawn])
    ratios: FloatArray = sums[:, 0] / sums[:, 1]
    return ratios


def _draws(num_clusters: int, seed: int, num_resamples: int) -> Iterator[NDArray[np.uint8]]:
    """Yield how often each cluster is drawn in each of some resamples [n, C], until there are `num_resamples`."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // num_clusters)
    for start in range(0, num_resamples, at_once):
        size = min(at_once, num_resamples - start)
        drawn = generator.integers(num_clusters, size=(size, num_clusters), dtype=np.int64)
        times = np.empty((size, num_clusters), dtype=np.uint8)  # no cluster is drawn 256 times as often as on average
        for row, clusters in zip(times, drawn, strict=True):
            row[:] = np.bincount(clusters, minlength=num_clusters)
        yield times


@lru_cache(maxsize=4)
def _kept_draws(num_clusters: int, seed: int, num_resamples: int) -> Sequence[NDArray[np.uint8]]:
    return tuple(_draws(num_clusters, seed, num_resamples))


def interval(value: float, resampled: FloatArray) -> tuple[float, float]:
    """Return the 95 % percentile interval, widened where needed so that it holds the estimate itself."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return min(float(low), value), max(float(high), value)


def sampled_from(pairs: ComparisonSet) -> tuple[IntArray, IntArray]:
    """Return what the comparisons of a split were sampled from: users [N] and texts, [N] or [N, 2].

    A text is the prompt. Where all comparisons have the same one, as the statements of one conversation, nothing was
    sampled but the responses; then a comparison depends on the two it is about.
    """
    rows = pairs.comparisons
    prompts = pairs.responses.prompt_rows[rows.chosen]
    if len(prompts) and (prompts == prompts[0]).all():
        return rows.user, np.stack([rows.chosen, rows.rejected], axis=1)
    return rows.user, prompts


@final
@frozen
class Spread:
    """The variance of a mean over what was sampled.

    Attributes:
        variance: estimated variance of the mean.
        degrees: degrees of freedom of that estimate (Satterthwaite 1946), at least 1; where nothing varies, one less
            than there are clusters.
    """

    variance: float
    degrees: float

    @property
    def reach(self) -> float:
        """Half the width of the 95 % interval by Student's t."""
        from scipy.special import stdtrit

        return float(stdtrit(self.degrees, 0.975)) * float(np.sqrt(self.variance))

    def p_value(self, value: float) -> float:
        """Return the two-sided p-value of a mean by Student's t: below .05 where it is farther from 0 than `reach`.

        Where nothing varies, all clusters are on one side of zero: the sign test of that.
        """
        if not self.variance:
            return min(1.0, 2.0**-self.degrees) if value else 1.0
        from scipy.special import stdtr

        return 2 * float(stdtr(self.degrees, -abs(value) / self.variance**0.5))


def added(parts: Sequence[Spread]) -> Spread:
    """Return the variance of a sum of what is independent, with the degrees of freedom of Satterthwaite (1946)."""
    variance = sum(part.variance for part in parts)
    unsure = sum(part.variance**2 / part.degrees for part in parts)
    return Spread(variance, variance**2 / unsure if unsure else min(part.degrees for part in parts))


def certainty(variance: float, noise: float, degrees: float) -> float:
    """Return how surely clusters add to a variance, from 0 to 1.

    max(0, 2 P - 1), with P the chance that comparisons which are independent would make it less: as chi squared with
    so many degrees of freedom, times the noise over the degrees.

    >>> certainty(1.0, 1.0, 1e6) < 0.001 < 0.999 < certainty(5.0, 1.0, 20.0)
    True
    """
    from scipy.special import gammainc

    return max(0.0, 2 * float(gammainc(degrees / 2, degrees / 2 * variance / noise)) - 1) if noise else 1.0


def spread(deviations: FloatArray, sampled: Sequence[IntArray]) -> Spread:
    """Return the variance of a mean whose comparisons deviate from it by so much.

    V = V_12 + max(0, V_1 - V_12) + max(0, V_2 - V_12), with V_k the sum of d_i d_j over all i, j that share a cluster
    of the k-th kind, V_12 over those that share one of both kinds, each times C / (C - 1) for its C clusters; without
    the zeros it is V_1 + V_2 - V_12 of Cameron, Gelbach and Miller. Each part is as unsure as its clusters are few, by
    what it adds to V (`_Shared.unsure`). A kind with a single cluster says nothing about how clusters differ and is
    left out; where none is left, comparisons count as independent.

    Args:
        deviations: (value - mean) times weight over total weight [N].
        sampled: one or two kinds of clusters; of each comparison the cluster [N], or the two it is about [N, 2].
    """
    kinds = _several(sampled, len(deviations))
    shares = [_Shared.of(deviations, kind) for kind in kinds]
    fewest = max(1.0, min(share.num_clusters for share in shares) - 1)
    if len(shares) == 1:
        return Spread(shares[0].variance, fewest)
    noise = _Shared.of(deviations, *kinds)
    variance = noise.variance + sum(share.beyond(noise) for share in shares)
    if not variance:
        return Spread(0.0, fewest)
    unsure = noise.variance**2 / max(1.0, noise.num_clusters - 1) + sum(share.unsure(noise) for share in shares)
    return Spread(variance, max(1.0, variance**2 / unsure))


def spread_between(deviations: FloatArray, sampled: Sequence[IntArray], run: IntArray) -> Spread:
    """Return the covariance of two runs' means: what comparisons of different runs share, users, texts or both.

    X = max(0, X_1 + X_2 - X_12) S / (S - 1), with X_k the part of V_k (see `spread`) from i and j of different runs; S
    runs have S (S - 1) of S^2 pairs. Runs that share no user and no text have none. Its degrees of freedom are one less
    than the clusters of the kind that has fewest.

    Args:
        deviations: (value - mean of its run) times weight over total weight [N].
        sampled: as for `spread`, numbered alike over runs.
        run: the run of each comparison, 0 to S - 1, two or more [N].
    """
    kinds = _several(sampled, len(deviations))
    shared = [_Shared.of(deviations, kind) for kind in kinds]
    between = [s.over(_Shared.of(deviations, kind, run)) for s, kind in zip(shared, kinds, strict=True)]
    if len(kinds) > 1:
        both = _Shared.of(deviations, *kinds)
        between.append(-both.over(_Shared.of(deviations, *kinds, run)))
    num_runs = int(run.max()) + 1
    fewest = min(s.num_clusters for s in shared)
    return Spread(max(0.0, sum(between)) * num_runs / (num_runs - 1), max(1.0, fewest - 1))


def _several(sampled: Sequence[IntArray], size: int) -> list[IntArray]:
    kinds = [kind for kind in sampled if (kind != kind.flat[0]).any()] if size else []
    return kinds or [np.arange(size)]


@final
@frozen
class _Shared:
    """What comparisons that share a cluster add to a variance.

    Attributes:
        total: sum of d_i d_j over all i, j that share a cluster.
        factor: for the clusters lost to the mean.
        num_clusters: clusters, counted as if all of a size.
        noise_degrees: degrees of freedom of `total` where comparisons are independent: C - 1, but C / 4 where each is
            about two clusters (tr(M)^2 / tr(M^2) for M the matrix of which comparisons share one).
    """

    total: float
    factor: float
    num_clusters: float
    noise_degrees: float

    @classmethod
    def of(cls, deviations: FloatArray, *kinds: IntArray) -> _Shared:
        """Take the sum of d_i d_j over all i, j that share a cluster of every kind; at most one kind is of two."""
        ends = next((kind for kind in kinds if kind.ndim == 2), None)
        if ends is None:
            code = _code(kinds)
            total = float(np.square(np.bincount(code, deviations)).sum())
            sizes, lost = np.bincount(code), 1
        else:
            others = [kind for kind in kinds if kind.ndim == 1]
            left, right = (_joined(ends, others, column) for column in (0, 1))
            code = _renumbered(np.concatenate([left, right]))
            total = float(np.square(np.bincount(code, np.tile(deviations, 2))).sum())
            # two comparisons of the same two texts share both, and were counted for each
            both = _code([*others, ends.min(axis=1), ends.max(axis=1)])
            total -= float(np.square(np.bincount(both, deviations)).sum())
            sizes, lost = np.bincount(code), 2
        number = float(sizes.sum()) ** 2 / float(np.square(sizes.astype(np.float64)).sum())
        whole = len(sizes)
        noise_degrees = max(1.0, number - 1 if lost == 1 else number / 4)
        return cls(total, (whole / max(1, whole - lost)) ** lost, number, noise_degrees)

    @property
    def variance(self) -> float:
        return max(0.0, self.total) * self.factor

    def over(self, part: _Shared) -> float:
        """Return what is left of the variance without that part of it."""
        return (self.total - part.total) * self.factor

    def beyond(self, noise: _Shared) -> float:
        """Return by how much the variance exceeds what single answers explain."""
        return max(0.0, self.variance - noise.variance)

    def unsure(self, noise: _Shared) -> float:
        """Return half the variance of what this part adds to a variance, after Satterthwaite.

        What clusters add has C - 1 degrees of freedom, the noise in it `noise_degrees`. The part counts as surely as it
        is there (`certainty`): the noise itself is in all parts, and is known from many cells.
        """
        if not (beyond := self.beyond(noise)):
            return 0.0
        within = min(self.variance, noise.variance)
        deviation = beyond / max(1.0, self.num_clusters - 1) ** 0.5 + within / self.noise_degrees**0.5
        return float(certainty(self.variance, noise.variance, self.noise_degrees) * deviation**2)


def _joined(ends: IntArray, others: Sequence[IntArray], column: int) -> IntArray:
    base = int(ends.max()) + 1
    code = ends[:, column].astype(np.int64)
    return code + base * _code(others) if others else code


def _code(kinds: Sequence[IntArray]) -> IntArray:
    """Return one number for each combination of clusters, from 0 without gaps [N]."""
    code = _renumbered(kinds[0])
    for kind in kinds[1:]:
        place = _renumbered(kind)
        code = _renumbered(code * (int(place.max()) + 1) + place)
    return code


def _renumbered(code: IntArray) -> IntArray:
    """Return numbers from 0 without gaps in the order of the codes, as `numpy.unique` does; unsorted where it may."""
    if len(code) and 0 <= int(code.min()) <= int(code.max()) < min(_SPARSE * len(code), _COUNTED):
        rank: IntArray = np.cumsum(np.bincount(code) > 0) - 1
        return rank[code]
    inverse: IntArray = np.unique(code, return_inverse=True)[1]
    return inverse


def crossed_resamples(
    values: FloatArray,
    sampled: Sequence[IntArray],
    *,
    seed: int,
    num_resamples: int,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Return the mean of `values` in each of many resamples of what was sampled [num_resamples].

    Clusters of each kind are drawn with replacement, apart; the deviations of the mean add up and are scaled so that
    the middle 95 % of them are as wide as `spread` says. No resample lies outside the values.

    Args:
        values: what is averaged [N].
        sampled: one or two kinds of clusters; of each comparison the cluster [N], or the two it is about [N, 2].
        seed: the same seed draws the same resamples.
        num_resamples: how many.
        weights: how much each value counts [N]; all the same where None.
    """
    weights = np.ones(len(values)) if weights is None else weights
    mean = float(weights @ values / weights.sum())
    deviation = np.zeros(num_resamples)
    for number, kind in enumerate(_several(sampled, len(values))):
        ends = kind.ndim
        code = _renumbered(kind.T.ravel())
        sums, sizes = (np.bincount(code, np.tile(column, ends)) for column in (weights * values, weights))
        ratios = resampled_ratios(
            sums.astype(np.float64), sizes.astype(np.float64), seed=seed + 7919 * number, num_resamples=num_resamples
        )
        deviation += ends * (ratios - mean)
    low, high = np.percentile(deviation, [2.5, 97.5])
    if not high > low:
        return np.full(num_resamples, mean)
    reach = spread(weights * (values - mean) / weights.sum(), sampled).reach
    resampled: FloatArray = np.clip(mean + 2 * reach / (high - low) * deviation, values.min(), values.max())
    return resampled


def crossed_mean(
    values: FloatArray,
    sampled: Sequence[IntArray],
    *,
    seed: int,
    num_resamples: int,
    weights: FloatArray | None = None,
) -> tuple[float, float, float]:
    """Return the mean of `values` [N] with its 95 % interval over all that was sampled; see `crossed_resamples`."""
    mean = float(np.average(values, weights=weights))
    resampled = crossed_resamples(values, sampled, seed=seed, num_resamples=num_resamples, weights=weights)
    return mean, *interval(mean, resampled)


def crossed_share(
    values: FloatArray,
    sampled: Sequence[IntArray],
    *,
    seed: int,
    num_resamples: int,
    weights: FloatArray | None = None,
) -> tuple[float, float, float]:
    """Return the mean of what is right, 0 to 1 [N], with its `share_interval`; otherwise as `crossed_mean`."""
    mean = float(np.average(values, weights=weights))
    resampled = crossed_resamples(values, sampled, seed=seed, num_resamples=num_resamples, weights=weights)
    return mean, *share_interval(mean, resampled, sampled)


def share_interval(share: float, resampled: FloatArray, sampled: Sequence[IntArray]) -> tuple[float, float]:
    """Return the 95 % interval of a share: `interval`, or `unanimous_interval` where no resample has another share.

    Half right, where every margin is zero, is no sample of anything: its interval has no width.

    Args:
        share: 0 to 1.
        resampled: the share in each of many resamples [R].
        sampled: the kinds of clusters of the answers, as for `spread`.
    """
    unanimous = share in (0, 1) and not np.ptp(resampled)
    return unanimous_interval(share, sampled) if unanimous else interval(share, resampled)


def unanimous_interval(share: float, sampled: Sequence[IntArray]) -> tuple[float, float]:
    """Return the 95 % interval of a share of right answers where all are right or all are wrong.

    That says little where few were asked, though nothing varies. It counts as one answer of each cluster, of the kind
    that has fewest: .025^(1/C) to 1, or 0 to 1 - .025^(1/C) (Clopper and Pearson 1934, "The use of confidence or
    fiducial limits illustrated in the case of the binomial", Biometrika 26).

    Args:
        share: 0 or 1.
        sampled: one or two kinds of clusters; of each answer the cluster [N], or the two it is about [N, 2].

    >>> [round(end, 3) for end in unanimous_interval(1.0, [np.arange(20)])]
    [0.832, 1.0]
    """
    num_clusters = spread(np.zeros(len(sampled[0])), sampled).degrees + 1
    least = float(0.025 ** (1 / num_clusters))
    return (least, 1.0) if share else (0.0, 1 - least)
