"""Checks of dataset sources."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any, final

import attrs
import numpy as np

from copl.records import SPLITS, Comparisons, PreferenceData
from copl.testing.check import (
    Check,
    CheckResult,
    CheckWarning,
    Once,
    fingerprint_of,
    global_randomness_untouched,
    require,
    run_checks,
)
from copl.testing.common import Described


@final
@attrs.frozen(eq=False)
class _Subject:
    described: Described

    def load(self, seed: int = 0) -> Any:
        return self.described.component.build(self.described.options()).load(seed=seed)

    @cached_property
    def _once(self) -> Once[PreferenceData]:
        return Once(self.load)

    @property
    def data(self) -> PreferenceData:
        return self._once.get()


def loads(subject: _Subject) -> None:
    """load gives a PreferenceData with comparisons to train on, and touches no global random state"""
    with global_randomness_untouched():
        data = subject.data
    require(isinstance(data, PreferenceData), f"load returned {type(data).__name__}, not PreferenceData")
    unknown = sorted(set(data.splits) - set(SPLITS))
    require(not unknown, f"unknown splits: {', '.join(unknown)}; there are {', '.join(SPLITS)}")
    require(len(data.split("train")) > 0, "no comparisons in the split 'train'")
    require(bool(data.name.strip()), "the data set has no name")


def rows_hold(subject: _Subject) -> None:
    """every row refers to a user and two different responses, with a sensible weight"""
    for split, rows in subject.data.splits.items():
        _require_in_range(split, "user", rows.user, len(subject.data.users))
        for column in ("chosen", "rejected"):
            _require_in_range(split, column, getattr(rows, column), len(subject.data.responses))
        same = int((rows.chosen == rows.rejected).sum())
        require(same == 0, f"{split}: {same} comparisons of a response with itself")
        valid = np.isfinite(rows.weight) & (rows.weight >= 0)
        require(bool(valid.all()), f"{split}: weights that are negative or not finite")
        require(bool(np.isin(rows.controversial, (-1, 0, 1)).all()), f"{split}: controversial must be 1, 0 or -1")


def _require_in_range(split: str, column: str, rows: Any, size: int) -> None:
    outside = int(((rows < 0) | (rows >= size)).sum())
    require(outside == 0, f"{split}: {outside} values of {column} lie outside 0 ... {size - 1}")


def tables_hold(subject: _Subject) -> None:
    """responses are told apart by prompt and text, and none is empty"""
    responses = subject.data.responses
    empty = sum(not text.strip() for text in responses.texts)
    require(empty == 0, f"{empty} responses without text; leave them out and count them in the provenance")
    require(len(set(responses.keys)) == len(responses), "the same prompt and text stand in two rows")


def splits_do_not_leak(subject: _Subject) -> None:
    """no comparison is both learnt from and judged by; unseen users are unseen"""
    data = subject.data
    learnt = _pairs(data, "train") | _pairs(data, "validation")
    for split in ("test", "cold"):
        both = len(learnt & _pairs(data, split))
        require(both == 0, f"{both} pairs of a user stand in {split!r} and in what is learnt from")
    twice = len(_pairs(data, "support") & _pairs(data, "heldout"))
    require(twice == 0, f"{twice} pairs of a user stand in both 'support' and 'heldout'")
    seen = {int(user) for split in ("train", "validation") for user in _rows(data, split).user}
    unseen = {int(user) for split in ("support", "heldout") for user in _rows(data, split).user}
    require(not seen & unseen, f"{len(seen & unseen)} users of 'support' or 'heldout' are in 'train' too")
    without = {int(user) for user in _rows(data, "heldout").user} - {int(user) for user in _rows(data, "support").user}
    if without:
        raise CheckWarning(f"{len(without)} users have held-out comparisons but no support set")


def _rows(data: PreferenceData, split: str) -> Comparisons:
    return data.split(split).comparisons


def _pairs(data: PreferenceData, split: str) -> set[tuple[int, int, int]]:
    rows = _rows(data, split)
    low, high = np.minimum(rows.chosen, rows.rejected), np.maximum(rows.chosen, rows.rejected)
    return set(zip(rows.user.tolist(), low.tolist(), high.tolist(), strict=True))


def repeats_itself(subject: _Subject) -> None:
    """the same seed gives the same data"""
    first = fingerprint_of(subject.data)
    require(first == fingerprint_of(subject.load()), "two loads with the same seed differ")


def provenance_is_plain(subject: _Subject) -> None:
    """provenance can be written as JSON"""
    json.dumps(subject.data.provenance)


_CHECKS: list[Check[_Subject]] = [
    loads,
    rows_hold,
    tables_hold,
    splits_do_not_leak,
    repeats_itself,
    provenance_is_plain,
]


def check_source(described: Described) -> list[CheckResult]:
    """Check a dataset source with the options given."""
    return run_checks(_CHECKS, _Subject(described))
