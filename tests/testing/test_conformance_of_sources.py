"""Sources: the kit passes a good toy and catches a deliberately broken one of each fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from copl.records import (
    Comparisons,
    PreferenceData,
)
from copl.testing.planted import planted_data

COUNTER = itertools.count()


class ToySource:
    def load(self, *, seed: int) -> PreferenceData:
        return planted_data(seed)


def broken_source(change: Callable[[PreferenceData], Any]) -> Callable[[Any], ToySource]:
    class Broken(ToySource):
        def load(self, *, seed: int) -> PreferenceData:
            data: PreferenceData = change(super().load(seed=seed))
            return data

    return lambda options: Broken()


def with_split(data: PreferenceData, **splits: Comparisons) -> PreferenceData:
    return evolve(data, splits={**data.splits, **splits})


def test_a_good_source_passes(kit: Any) -> None:
    assert kit.not_passed(kit.check("source", lambda options: ToySource())) == set()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda d: d.splits, "load returned dict"),
        (lambda d: evolve(d, name=" "), "the data set has no name"),
        (
            lambda d: with_split(d, test=Comparisons([0], [0], [1], controversial=[2])),
            "test: controversial must be 1, 0 or -1",
        ),
        (lambda d: with_split(d, train=Comparisons.empty()), "no comparisons in the split 'train'"),
        (lambda d: with_split(d, dev=Comparisons.empty()), "unknown splits: dev"),
        (lambda d: with_split(d, test=Comparisons([99], [0], [1])), "test: 1 values of user lie outside 0 ... 17"),
        (lambda d: with_split(d, test=Comparisons([0], [-1], [1])), "test: 1 values of chosen lie outside"),
        (lambda d: with_split(d, test=Comparisons([0], [1], [1])), "1 comparisons of a response with itself"),
        (lambda d: with_split(d, test=Comparisons([0], [0], [1], weight=[-1])), "weights that are negative"),
        (lambda d: evolve(d, responses=evolve(d.responses, texts=[" "] * 16)), "16 responses without text"),
        (
            lambda d: evolve(d, responses=evolve(d.responses, texts=["x"] * 16)),
            "same prompt and text stand in two rows",
        ),
        (lambda d: with_split(d, test=d.splits["train"]), "stand in 'test' and in what is learnt from"),
        (
            lambda d: with_split(
                d, cold=evolve(d.splits["train"], chosen=d.splits["train"].rejected, rejected=d.splits["train"].chosen)
            ),
            "stand in 'cold' and in what is learnt from",
        ),
        (lambda d: with_split(d, heldout=d.splits["support"]), "stand in both 'support' and 'heldout'"),
        (lambda d: with_split(d, support=Comparisons([0], [0], [1])), "are in 'train' too"),
        (lambda d: with_split(d, support=Comparisons.empty()), "held-out comparisons but no support set"),
        (lambda d: evolve(d, provenance={"when": {1, 2}}), "not JSON serializable"),
        (lambda d: evolve(d, name=f"{np.random.rand()}"), "the global random state of numpy was changed"),  # noqa: NPY002
        (lambda d: evolve(d, name=f"{next(COUNTER)}"), "two loads with the same seed differ"),
    ],
)
def test_a_broken_source_is_caught(kit: Any, change: Callable[[PreferenceData], Any], finding: str) -> None:
    assert finding in kit.caught(kit.check("source", broken_source(change)))
