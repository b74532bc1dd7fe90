"""Metrics: the kit passes a good toy and catches a deliberately broken one of each fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from copl.records import (
    ComparisonSet,
    Measurement,
)

if TYPE_CHECKING:
    import numpy as np

COUNTER = itertools.count()


def toy_metric(margins: np.ndarray, pairs: ComparisonSet, context: Any) -> list[Measurement]:
    if not len(margins):
        return []
    value = float((margins > 0).mean())
    return [Measurement(context.split, "all", "accuracy", value, value, value, len(margins))]


def broken_metric(change: Callable[[Measurement], Any]) -> Callable[[Any], Any]:
    return lambda options: lambda m, p, c: [change(one) for one in toy_metric(m, p, c)]


def _no_empty_check(options: Any) -> Any:
    def metric(margins: np.ndarray, pairs: ComparisonSet, context: Any) -> list[Measurement]:
        value = float(margins.sum()) / len(margins)
        return [Measurement(context.split, "all", "mean", value, value, value, len(margins))]

    return metric


def _sorts_in_place(options: Any) -> Any:
    def metric(margins: np.ndarray, pairs: ComparisonSet, context: Any) -> list[Measurement]:
        margins.sort()
        return toy_metric(margins, pairs, context)

    return metric


def test_a_good_metric_passes(kit: Any) -> None:
    assert kit.not_passed(kit.check("metric", lambda options: toy_metric)) == set()


@pytest.mark.parametrize(
    ("build", "finding"),
    [
        (broken_metric(lambda m: m.value), "returned float, not Measurement"),
        (broken_metric(lambda m: evolve(m, split="train")), "split must be that of the context, got 'train'"),
        (broken_metric(lambda m: evolve(m, low=m.value + 0.1)), "lies outside its interval"),
        (broken_metric(lambda m: evolve(m, high=float("nan"))), "not finite"),
        (broken_metric(lambda m: evolve(m, count=0)), "a measurement over 0 comparisons"),
        (broken_metric(lambda m: evolve(m, subset="")), "must be named"),
        (lambda options: lambda m, p, c: toy_metric(m, p, c) * 2, "measured twice"),
        (lambda options: lambda m, p, c: [], "nothing was measured"),
        (_no_empty_check, "raised ZeroDivisionError"),
        (_sorts_in_place, "the metric changed its arguments"),
        (
            broken_metric(lambda m: evolve(m, value=0.0, low=0.0, high=float(next(COUNTER)))),
            "two calls with the same seed differ",
        ),
    ],
)
def test_a_broken_metric_is_caught(kit: Any, build: Callable[..., Any], finding: str) -> None:
    assert finding in kit.caught(kit.check("metric", build))
