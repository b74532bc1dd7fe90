"""Checks of metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import attrs
import numpy as np

from copl.records import Comparisons, ComparisonSet, FloatArray, Measurement
from copl.testing.check import Check, CheckResult, fingerprint_of, global_randomness_untouched, require, run_checks
from copl.testing.common import Described
from copl.testing.planted import Planted


@final
@attrs.frozen
class _Context:
    split: str
    num_comparisons: Mapping[str, int]
    seed: int


@final
@attrs.frozen(eq=False)
class _Subject:
    described: Described
    pairs: ComparisonSet
    margins: FloatArray

    def measure(self, margins: FloatArray, pairs: ComparisonSet) -> Sequence[object]:
        metric = self.described.component.build(self.described.options())
        context = _Context("test", {user: 1 + row % 5 for row, user in enumerate(pairs.users.ids)}, seed=0)
        measurements = list(metric(margins, pairs, context))
        _require_valid(measurements)
        return measurements


def _require_valid(measurements: Sequence[Any]) -> None:
    for one in measurements:
        require(isinstance(one, Measurement), f"returned {type(one).__name__}, not Measurement")
        require(one.split == "test", f"split must be that of the context, got {one.split!r}")
        require(bool(one.metric) and bool(one.subset), "metric and subset must be named")
        require(one.count > 0, f"{one.metric}/{one.subset}: a measurement over {one.count} comparisons; leave it out")
        numbers = (one.low, one.value, one.high)
        require(all(math.isfinite(n) for n in numbers), f"{one.metric}/{one.subset}: not finite: {numbers}")
        require(
            one.low <= one.value <= one.high,
            f"{one.metric}/{one.subset}: value {one.value} lies outside its interval {one.low} ... {one.high}",
        )
    keys = [(one.metric, one.subset) for one in measurements]
    require(len(set(keys)) == len(keys), "the same metric and subset is measured twice")


def measures(subject: _Subject) -> None:
    """gives Measurement records whose values lie in their intervals"""
    require(len(subject.measure(subject.margins, subject.pairs)) > 0, "nothing was measured")


def extremes(subject: _Subject) -> None:
    """all right, all wrong and all even margins are no problem"""
    for margins in (np.ones_like(subject.margins), -np.ones_like(subject.margins), np.zeros_like(subject.margins)):
        subject.measure(margins, subject.pairs)


def little_data(subject: _Subject) -> None:
    """one comparison, or none, is no problem"""
    for count in (1, 0):
        rows = subject.pairs.comparisons.take(np.arange(count))
        subject.measure(subject.margins[:count], ComparisonSet(subject.pairs.users, subject.pairs.responses, rows))


def leaves_the_world_alone(subject: _Subject) -> None:
    """measuring changes no argument and no global random state, and repeats itself"""
    fresh = _subject(subject.described)  # earlier checks may have changed theirs already
    before = fingerprint_of((fresh.margins, fresh.pairs))
    with global_randomness_untouched():
        first = fresh.measure(fresh.margins, fresh.pairs)
    require(fingerprint_of((fresh.margins, fresh.pairs)) == before, "the metric changed its arguments")
    require(first == fresh.measure(fresh.margins, fresh.pairs), "two calls with the same seed differ")


_CHECKS: list[Check[_Subject]] = [measures, extremes, little_data, leaves_the_world_alone]


def _subject(described: Described) -> _Subject:
    rng, planted = np.random.default_rng(0), Planted.make(12, 8)
    rows = planted.compare(np.arange(12), 8, rng)
    controversial = rng.integers(-1, 2, size=len(rows))
    pairs = ComparisonSet(
        planted.users,
        planted.responses,
        Comparisons(rows.user, rows.chosen, rows.rejected, rows.weight, controversial),
    )
    return _Subject(described, pairs, rng.normal(0.5, 1.0, size=len(pairs)))


def check_metric(described: Described) -> list[CheckResult]:
    """Check a metric on random margins."""
    return run_checks(_CHECKS, _subject(described))
