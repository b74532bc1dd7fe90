"""The interval of one run, and that of a paired difference over several, for many trials at once.

`copl.evaluate.bootstrap.crossed_mean` and `copl.ablate.statistics.pooled_difference` take some milliseconds, most of
them for names and for numbering, and a simulation asks them a hundred thousand times. Here is the same arithmetic on
arrays of trials; `benchmarks.intervals` holds both against each other on the first trials of every row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, TypeAlias, final

import numpy as np
from attrs import frozen
from scipy.special import gammainc, stdtr, stdtrit

from copl.evaluate.bootstrap import resampled_ratios

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


@final
@frozen(eq=False)
class Pooled:
    """What is said of each trial: the mean, how far its interval reaches, and its p-value [T]."""

    value: Array
    reach: Array
    p_value: Array


def pooled(values: Array, users: Array, texts: Array, *, shared: bool) -> Pooled:
    """Return what `pooled_difference` says of each trial.

    Args:
        values: differences of each run in each trial [S, T, N], S two or more.
        users: the user of each comparison, the same in all runs and trials [N], from 0.
        texts: the prompt of each comparison [S, T, N], or its two responses [S, T, N, 2], from 0.
        shared: whether a number is the same user or text in all runs.
    """
    num_seeds, _, size = values.shape
    means = values.mean(axis=2)
    kinds = [*_kinds((values - means[..., None]) / (num_seeds * size), users, texts)]
    least = _within(kinds) / stdtrit(num_seeds - 1, 0.975) ** 2
    seeds = np.maximum(means.var(axis=0, ddof=1) / num_seeds, least)
    between, degrees = _between(kinds) if shared else (np.zeros_like(seeds), np.ones_like(seeds))
    both = seeds + between
    freedom = both**2 / (seeds * both / (num_seeds - 1) + between**2 / degrees)
    value = means.mean(axis=0)
    widths = ((seeds, np.full_like(seeds, num_seeds - 1)), (both, freedom))
    return Pooled(
        value,
        np.max([stdtrit(df, 0.975) * np.sqrt(variance) for variance, df in widths], axis=0),
        np.max([2 * stdtr(df, -abs(value) / np.sqrt(variance)) for variance, df in widths], axis=0),
    )


@final
@frozen(eq=False)
class Crossed:
    """What is said of each trial of one run: the interval over users and texts, and the reach over users [T]."""

    low: Array
    high: Array
    by_users: Array


def crossed(values: Array, users: Array, texts: Array, *, seed: int, num_resamples: int) -> Crossed:
    """Return what `crossed_mean` says of each trial.

    Args:
        values: what is averaged [T, N].
        users: the user of each comparison, the same in all trials [N], from 0.
        texts: the prompt of each comparison [T, N], or its two responses [T, N, 2], from 0.
        seed: the same seed draws the same resamples.
        num_resamples: how many.
    """
    mean = values.mean(axis=1)
    one, other, noise = _kinds((values - mean[:, None])[None] / values.shape[1], users, texts[None])
    single = noise.variance[0]
    variance, unsure = single, single**2 / np.maximum(1.0, noise.num_clusters - 1)
    for kind in (one, other):
        beyond, more = kind.beyond(single)
        variance, unsure = variance + beyond, unsure + more
    reach = stdtrit(np.maximum(1.0, variance**2 / unsure), 0.975) * np.sqrt(variance)
    deviation = np.zeros((len(values), num_resamples))
    of_user = np.broadcast_to(users, values.shape)
    of_texts = [texts] if texts.ndim == 2 else [texts[..., 0], texts[..., 1]]
    for number, ends in enumerate(([of_user], of_texts)):
        sums, sizes = _by_cluster(values, ends), _by_cluster(np.ones_like(values), ends)
        for trial in range(len(values)):
            there = sizes[trial] > 0
            ratios = resampled_ratios(
                sums[trial, there], sizes[trial, there], seed=seed + 7919 * number, num_resamples=num_resamples
            )
            deviation[trial] += len(ends) * (ratios - mean[trial])
    middle = np.percentile(deviation, [2.5, 97.5], axis=1)
    low, high = np.clip(mean + 2 * reach / (middle[1] - middle[0]) * middle, values.min(axis=1), values.max(axis=1))
    by_users = stdtrit(one.num_clusters - 1, 0.975) * np.sqrt(one.variance[0])
    return Crossed(np.minimum(low, mean), np.maximum(high, mean), by_users)


def _by_cluster(values: Array, ends: Sequence[Array]) -> Array:
    """Return the sum of the values of each cluster [T, C], values of two clusters in both."""
    number = int(max(end.max() for end in ends)) + 1
    start = np.arange(len(values))[:, None] * number
    sums = [np.bincount((start + end).ravel(), values.ravel(), minlength=len(values) * number) for end in ends]
    return _sum(sums).reshape(len(values), number)


@final
@frozen(eq=False)
class _Kind:
    """What comparisons that share a cluster of a kind add to a variance.

    Attributes:
        alone: sum of d_i d_j over all i, j of one run that share a cluster [S, T].
        together: the same over all runs, whose clusters are the same [T].
        factor_alone: for the clusters lost to the mean [S, T].
        factor: the same over all runs [T].
        num_clusters: clusters, counted as if all of a size [T].
        noise_degrees: degrees of freedom where comparisons are independent [T].
    """

    alone: Array
    together: Array
    factor_alone: Array
    factor: Array
    num_clusters: Array
    noise_degrees: Array

    @classmethod
    def of(cls, apart: Array, *ends: Array, pair: Array | None = None) -> _Kind:
        """Count comparisons by cluster.

        Args:
            apart: deviations [S, T, N].
            ends: the cluster of each comparison, or the two it is about [S, T, N], from 0.
            pair: the two clusters as one number [S, T, N].
        """
        num_seeds, num_trials, _ = apart.shape
        number = int(max(end.max() for end in ends)) + 1
        start = np.arange(num_seeds * num_trials).reshape(num_seeds, num_trials, 1) * number
        places, shape = [(start + end).ravel() for end in ends], (num_seeds, num_trials, number)
        flat, cells = np.ascontiguousarray(apart).ravel(), start.size * number
        by_cluster = _sum(np.bincount(place, flat, minlength=cells) for place in places).reshape(shape)
        sizes = _sum(np.bincount(place, minlength=cells) for place in places).reshape(shape)
        alone, together = _square(by_cluster), _square(_sum(by_cluster))
        if pair is not None:  # two comparisons of the same two clusters were counted for each
            alone = alone - np.stack([_squares(apart[[run]], pair[[run]]) for run in range(num_seeds)])
            together = together - _squares(apart, pair)
        lost, whole = len(ends), _sum(sizes).astype(np.float64)
        clusters = whole.sum(axis=1) ** 2 / _square(whole)
        return cls(
            alone,
            together,
            _factor(np.count_nonzero(sizes, axis=2), lost),
            _factor(np.count_nonzero(whole, axis=1), lost),
            clusters,
            np.maximum(1.0, clusters - 1 if lost == 1 else clusters / 4),
        )

    @property
    def variance(self) -> Array:
        """Of each run [S, T]."""
        variance: Array = np.maximum(0.0, self.alone) * self.factor_alone
        return variance

    def beyond(self, noise: Array) -> tuple[Array, Array]:
        """Return by how much the variance of one run exceeds that of single answers, and how unsure that is [T]."""
        variance = self.variance[0]
        beyond, within = np.maximum(0.0, variance - noise), np.minimum(variance, noise)
        deviation = beyond / np.maximum(1.0, self.num_clusters - 1) ** 0.5 + within / self.noise_degrees**0.5
        half = self.noise_degrees / 2
        certainty = np.maximum(0.0, 2 * gammainc(half, half * variance / np.where(noise > 0, noise, 1.0)) - 1)
        return beyond, np.where(noise > 0, certainty, 1.0) * (beyond > 0) * deviation**2


def _sum(parts: Iterable[Array]) -> Array:
    """Return the sum of a few arrays; `numpy.sum` over the first axis takes many times as long."""
    return reduce(np.add, parts)


def _square(array: Array) -> Array:
    """Return the sum of squares over the last axis."""
    squares: Array = np.einsum("...c,...c->...", array, array)
    return squares


def _factor(number: Array, lost: int) -> Array:
    factor: Array = (number / (number - lost)) ** lost
    return factor


def _squares(apart: Array, code: Array) -> Array:
    """Return the sum of squared sums of the deviations of one code, over the runs of each trial [T]."""
    num_trials = apart.shape[1]
    key = (np.arange(num_trials)[:, None] * (int(code.max()) + 1) + code).ravel()
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    sums = np.add.reduceat(apart.ravel()[order], first)
    trial = np.broadcast_to(np.arange(num_trials)[:, None], apart.shape).ravel()[order][first]
    squares: Array = np.bincount(trial, np.square(sums), minlength=num_trials)
    return squares


def _kinds(apart: Array, users: Array, texts: Array) -> Iterator[_Kind]:
    """Yield users, texts, and what is of one user and one text."""
    number = int(texts.max()) + 1
    of_user = np.broadcast_to(users, apart.shape)
    yield _Kind.of(apart, of_user)
    if texts.ndim == 3:
        yield _Kind.of(apart, texts)
        yield _Kind.of(apart, of_user * number + texts)
        return
    one, other, pair = texts[..., 0], texts[..., 1], texts.min(axis=3) * number + texts.max(axis=3)
    yield _Kind.of(apart, one, other, pair=pair)
    yield _Kind.of(apart, of_user * number + one, of_user * number + other, pair=of_user * number**2 + pair)


def _within(kinds: list[_Kind]) -> Array:
    """Return the variance over users and texts within runs [T]."""
    one, other, noise = (kind.variance for kind in kinds)
    variance: Array = (noise + np.maximum(0.0, one - noise) + np.maximum(0.0, other - noise)).sum(axis=0)
    return variance


def _between(kinds: list[_Kind]) -> tuple[Array, Array]:
    """Return the covariance of two runs, and its degrees of freedom [T]."""
    num_seeds = len(kinds[0].alone)
    one, other, both = ((kind.together - kind.alone.sum(axis=0)) * kind.factor for kind in kinds)
    shared: Array = np.maximum(0.0, one + other - both) * num_seeds / (num_seeds - 1)
    return shared, np.maximum(1.0, np.minimum(kinds[0].num_clusters, kinds[1].num_clusters) - 1)
