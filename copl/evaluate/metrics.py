"""Metrics of reward models: how often, and for whom, the margin has the right sign.

All count each comparison once, whatever its training weight. A margin of zero is half right. Intervals are 95 %
bootstrap intervals over users and prompts (`copl.evaluate.bootstrap`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, final

import attrs
import numpy as np

from copl.bradley_terry import correct, log_loss
from copl.evaluate.bootstrap import (
    crossed_mean,
    crossed_resamples,
    crossed_share,
    interval,
    sampled_from,
    share_interval,
)
from copl.interfaces import EvaluationContext
from copl.options import option
from copl.plugins import Component
from copl.records import ComparisonSet, Measurement

if TYPE_CHECKING:
    from copl.records import BoolArray, FloatArray, IntArray

BUCKETS: tuple[tuple[int, int | None], ...] = ((0, 0), (1, 2), (3, 4), (5, 8), (9, 16), (17, None))
"""Ranges of the number of comparisons a user has given, both ends included; the last has no upper end."""


@final
@attrs.frozen
class MetricOptions:
    num_resamples: int = option(
        1000, help="bootstrap resamples behind the 95 % interval", validator=attrs.validators.ge(100)
    )


def bucket_name(low: int, high: int | None) -> str:
    """Return the subset name of a range of numbers of comparisons.

    >>> bucket_name(3, 4), bucket_name(17, None), bucket_name(0, 0)
    ('comparisons:3-4', 'comparisons:17+', 'comparisons:0')
    """
    return f"comparisons:{low}" + ("+" if high is None else "" if high == low else f"-{high}")


class _MeanMetric(ABC):
    """A mean over comparisons, on one or several subsets of them."""

    name = "accuracy"
    mean = staticmethod(crossed_share)

    def __init__(self, options: MetricOptions) -> None:
        self._options = options

    def __call__(self, margins: FloatArray, pairs: ComparisonSet, context: EvaluationContext) -> Sequence[Measurement]:
        values, sampled = self.values(margins), sampled_from(pairs)
        return [
            self._measure(values[mask], [kind[mask] for kind in sampled], subset, context)
            for subset, mask in self.subsets(pairs, context)
            if mask.any()
        ]

    def values(self, margins: FloatArray) -> FloatArray:
        """Return what is averaged [N]."""
        return correct(margins)

    @abstractmethod
    def subsets(self, pairs: ComparisonSet, context: EvaluationContext) -> Iterator[tuple[str, BoolArray]]:
        """Yield the name of each subset with a mask over the comparisons [N]."""

    def _measure(
        self, values: FloatArray, sampled: Sequence[IntArray], subset: str, context: EvaluationContext
    ) -> Measurement:
        estimate = self.mean(values, sampled, seed=context.seed, num_resamples=self._options.num_resamples)
        return Measurement(context.split, subset, self.name, *estimate, len(values))


@final
class Accuracy(_MeanMetric):
    """Reward accuracy over all comparisons."""

    def subsets(self, pairs: ComparisonSet, context: EvaluationContext) -> Iterator[tuple[str, BoolArray]]:
        yield "all", np.ones(len(pairs), dtype=bool)


@final
class ControversialAccuracy(_MeanMetric):
    """Reward accuracy apart for the pairs users are known to disagree on, and those they agree on."""

    def subsets(self, pairs: ComparisonSet, context: EvaluationContext) -> Iterator[tuple[str, BoolArray]]:
        yield "common", pairs.comparisons.controversial == 0
        yield "controversial", pairs.comparisons.controversial == 1


@final
class ComparisonsAccuracy(_MeanMetric):
    """Reward accuracy by the number of comparisons the user has given to the model."""

    def subsets(self, pairs: ComparisonSet, context: EvaluationContext) -> Iterator[tuple[str, BoolArray]]:
        given = np.array([context.num_comparisons.get(user, 0) for user in pairs.users.ids], dtype=np.int64)
        given = given[pairs.comparisons.user]
        for low, high in BUCKETS:
            yield bucket_name(low, high), (given >= low) & (given <= (np.inf if high is None else high))


@final
class LogLoss(_MeanMetric):
    """Mean of -log sigmoid(margin): low where the model is both right and rightly sure (Bradley-Terry loss)."""

    name = "log_loss"
    mean = staticmethod(crossed_mean)

    def values(self, margins: FloatArray) -> FloatArray:
        correct(margins)
        return log_loss(margins)

    def subsets(self, pairs: ComparisonSet, context: EvaluationContext) -> Iterator[tuple[str, BoolArray]]:
        yield "all", np.ones(len(pairs), dtype=bool)


@final
class UserAccuracy:
    """Reward accuracy of each user, averaged over users: everybody counts the same. `count` is the number of users."""

    def __init__(self, options: MetricOptions) -> None:
        self._options = options

    def __call__(self, margins: FloatArray, pairs: ComparisonSet, context: EvaluationContext) -> Sequence[Measurement]:
        users = pairs.comparisons.user
        if not len(users):
            return []
        answers = np.bincount(users)
        estimate = crossed_share(
            correct(margins),
            sampled_from(pairs),
            weights=1 / answers[users],
            seed=context.seed,
            num_resamples=self._options.num_resamples,
        )
        return [Measurement(context.split, "all", "user_accuracy", *estimate, int((answers > 0).sum()))]


@final
class GroupAccuracy:
    """Reward accuracy of each known group of users, and that of the group served worst.

    Users without a known group are left out. The interval of the worst group takes the worst of each resample, so it
    allows for another group being the worst one; `count` is the number of comparisons of the group that is.
    """

    def __init__(self, options: MetricOptions) -> None:
        self._options = options

    def __call__(self, margins: FloatArray, pairs: ComparisonSet, context: EvaluationContext) -> Sequence[Measurement]:
        right, users, sampled = correct(margins), pairs.comparisons.user, sampled_from(pairs)
        names = sorted({group for group in pairs.users.groups if group is not None})
        number = {group: row for row, group in enumerate(names)}
        group = np.array([-1 if g is None else number[g] for g in pairs.users.groups], dtype=np.int64)[users]
        measurements, resamples = [], []
        for row, name in enumerate(names):
            values, where = right[group == row], [kind[group == row] for kind in sampled]
            if not len(values):
                continue
            resampled = crossed_resamples(
                values, where, seed=context.seed + row, num_resamples=self._options.num_resamples
            )
            value = float(values.mean())
            low_high = share_interval(value, resampled, where)
            measurements.append(Measurement(context.split, f"group:{name}", "accuracy", value, *low_high, len(values)))
            resamples.append(resampled)
        if measurements:
            worst = min(measurements, key=lambda m: (m.value, m.low))
            low_high = interval(worst.value, np.min(resamples, axis=0))
            if worst.value in (0, 1):  # nothing varies in its resamples
                low_high = worst.low, worst.high
            measurements.append(
                Measurement(context.split, "all", "worst_group_accuracy", worst.value, *low_high, worst.count)
            )
        return measurements


COMPONENTS = [
    Component("accuracy", MetricOptions, Accuracy, "reward accuracy over all comparisons; a tie is half right"),
    Component("user-accuracy", MetricOptions, UserAccuracy, "reward accuracy averaged over users"),
    Component("group-accuracy", MetricOptions, GroupAccuracy, "reward accuracy of each group, and of the worst one"),
    Component(
        "controversial-accuracy",
        MetricOptions,
        ControversialAccuracy,
        "reward accuracy where users disagree, and where they agree",
    ),
    Component(
        "comparisons-accuracy",
        MetricOptions,
        ComparisonsAccuracy,
        "reward accuracy by the number of comparisons a user has given",
    ),
    Component("log-loss", MetricOptions, LogLoss, "Bradley-Terry loss of the margins"),
]
