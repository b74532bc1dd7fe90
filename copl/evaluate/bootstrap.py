"""Bootstrap intervals of ratios, resampling users: comparisons of one user are not independent of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray

_DRAWS_AT_ONCE = 4_000_000


def sums_by(clusters: IntArray, values: FloatArray) -> FloatArray:
    """Return the sum of `values` [N] in each cluster [C], clusters in ascending order of their number."""
    _, position = np.unique(clusters, return_inverse=True)
    return np.bincount(position, values).astype(np.float64)


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
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // num_clusters)
    ratios = np.empty(num_resamples)
    for start in range(0, num_resamples, at_once):
        size = min(at_once, num_resamples - start)
        drawn = generator.integers(num_clusters, size=(size, num_clusters), dtype=np.int64)
        drawn += np.arange(size)[:, None] * num_clusters
        times = np.bincount(drawn.ravel(), minlength=size * num_clusters).reshape(size, num_clusters)
        sums = times @ columns
        ratios[start : start + size] = sums[:, 0] / sums[:, 1]
    return ratios


def interval(value: float, resampled: FloatArray) -> tuple[float, float]:
    """Return the 95 % percentile interval, widened where needed so that it holds the estimate itself."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return min(float(low), value), max(float(high), value)


def clustered_resamples(values: FloatArray, clusters: IntArray, *, seed: int, num_resamples: int) -> FloatArray:
    """Return the mean of `values` [N] in each resample of whole clusters [N].

    A single cluster says nothing about how clusters differ; its values are resampled instead.
    """
    if len(np.unique(clusters)) == 1:
        clusters = np.arange(len(values))
    sums, sizes = sums_by(clusters, values), sums_by(clusters, np.ones(len(values)))
    return resampled_ratios(sums, sizes, seed=seed, num_resamples=num_resamples)


def clustered_mean(
    values: FloatArray, clusters: IntArray, *, seed: int, num_resamples: int
) -> tuple[float, float, float]:
    """Return the mean of `values` [N] with its 95 % interval, resampling whole clusters [N]."""
    value = float(np.mean(values))
    return value, *interval(value, clustered_resamples(values, clusters, seed=seed, num_resamples=num_resamples))
