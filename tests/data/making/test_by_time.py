from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.data.checking.checks import check
from copl.data.making.by_time import time_splits
from copl.data.making.splits import ComparisonSplitOptions, make_splits
from copl.data.pairs import compact
from copl.errors import DataError, OptionsError
from copl.records import Comparisons, ComparisonSet, PreferenceData, ResponseTable, UserTable

NOBODY = ComparisonSplitOptions(strategy="time", unseen_fraction=0.0, cold_fraction=0.0)


def said(times: list[float], users: list[int] | None = None, prompts: list[int] | None = None) -> ComparisonSet:
    """A comparison a time, all of other pairs, of one user to one prompt unless told."""
    count = len(times)
    user = np.zeros(count, np.int64) if users is None else np.array(users)
    prompt = [0] * count if prompts is None else prompts
    table = ResponseTable([f"p{n}" for n in prompt for _ in range(2)], [f"t{n}" for n in range(2 * count)])
    rows = np.arange(count)
    comparisons = Comparisons(user, 2 * rows, 2 * rows + 1, time=np.array(times, dtype=np.float64))
    return ComparisonSet(UserTable.ungrouped([f"u{n}" for n in range(user.max() + 1)]), table, comparisons)


def times(splits: Any) -> dict[str, list[float]]:
    return {name: sorted(part.time.tolist()) for name, part in splits.items() if len(part)}


def test_the_future_is_judged_by_the_past() -> None:
    # of ten the first seven train, up to the eighth validates, the last two test; the order of rows tells nothing
    order = [3, 7, 1, 10, 2, 9, 4, 8, 5, 6]
    split = time_splits(said([float(t) for t in order]), NOBODY, seed=0)
    assert times(split.splits) == {"train": [1, 2, 3, 4, 5, 6, 7], "validation": [8], "test": [9, 10]}
    assert not split.dropped


def test_what_was_said_at_once_is_not_parted() -> None:
    split = time_splits(said([1.0] * 5 + [2.0] * 5), NOBODY, seed=0)
    assert times(split.splits) == {"train": [1] * 5 + [2] * 5}


@given(st.integers(0, 99), st.integers(2, 80))
def test_nothing_judged_is_of_before_what_is_learnt(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    data = said(
        rng.integers(0, 40, count).astype(float).tolist(),
        rng.integers(0, 5, count).tolist(),
        rng.integers(0, 4, count).tolist(),
    )
    options = ComparisonSplitOptions(strategy="time", unseen_fraction=0.4, cold_fraction=0.3, support=2)
    split = time_splits(data, options, seed=seed)
    assert sum(split.dropped.values()) + sum(map(len, split.splits.values())) == count
    parts = split.splits
    end = parts["train"].time.max(initial=-np.inf)
    assert all((parts[name].time > end).all() for name in ("validation", "test", "cold", "heldout"))
    assert parts["validation"].time.max(initial=-np.inf) <= parts["test"].time.min(initial=np.inf)
    for user in np.unique(parts["heldout"].user):
        own = parts["support"].time[parts["support"].user == user]
        assert len(own) > 0
        assert own.max() <= parts["heldout"].time[parts["heldout"].user == user].min()
    users, responses, kept = compact(data.users, data.responses, parts)
    made = PreferenceData("x", users, responses, kept, {"split": "time"})
    grave = [found for found in check(made) if found.severity == "error"]
    assert [found.what for found in grave if found.what != "nothing to train on"] == []


def test_a_leak_from_the_future_is_found() -> None:
    data = said([5.0, 1.0])
    splits = {"train": data.comparisons.take(np.array([0])), "test": data.comparisons.take(np.array([1]))}
    made = PreferenceData("x", data.users, data.responses, splits, {"split": "time"})
    assert "comparisons that training is later than" in [found.what for found in check(made)]


def test_added_rows_move_none() -> None:
    rng = np.random.default_rng(3)
    whole = said(np.arange(60.0).tolist(), rng.integers(0, 6, 60).tolist(), rng.integers(0, 8, 60).tolist())
    options = ComparisonSplitOptions(strategy="time", unseen_fraction=0.3)
    first = attrs.evolve(whole, comparisons=whole.comparisons.take(np.arange(40)))
    before = time_splits(first, options, seed=1).splits
    rest = attrs.evolve(whole, comparisons=whole.comparisons.take(np.arange(40, 60)))
    after = time_splits(rest, options, seed=1, known=before)
    assert set(times(after.splits)) <= {"test", "heldout", "cold"}  # later than everything


def test_without_times_there_is_no_split_by_time() -> None:
    data = said([1.0, np.nan])
    with pytest.raises(DataError, match="needs a time for every comparison"):
        time_splits(data, NOBODY, seed=0)
    with pytest.raises(OptionsError, match="tells no times"):
        make_splits(data, NOBODY, seed=0)
