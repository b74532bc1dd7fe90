"""One number of an evaluation."""

from __future__ import annotations

from typing import final

from attrs import frozen


@final
@frozen
class Measurement:
    """One number of an evaluation.

    Attributes:
        split: the split measured on.
        subset: "all", or the part of the split: "controversial", "common", a group, a number of comparisons.
        metric: name of the metric.
        value: the estimate.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        count: number of comparisons (or users, for metrics over users) it was taken over.
    """

    split: str
    subset: str
    metric: str
    value: float
    low: float
    high: float
    count: int
