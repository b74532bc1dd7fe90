"""Metrics, intervals and paired differences."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.errors import OptionsError
from copl.evaluate import metrics
from copl.evaluate.context import SplitContext
from copl.evaluate.paired import accuracy_difference
from copl.options import parse_options
from copl.records import Comparisons, ComparisonSet, Measurement, PreferenceData, ResponseTable, UserTable

COMPONENTS = {c.name: c for c in metrics.COMPONENTS}


def measure(name: str, margins: Any, pairs: ComparisonSet, context: SplitContext | None = None) -> list[Measurement]:
    component = COMPONENTS[name]
    metric = component.build(parse_options(component.options, {}, where=name))
    return list(metric(np.array(margins, dtype=np.float64), pairs, context or SplitContext("test", {}, 0)))


def pairs_of(users: list[int], groups: Any = None, controversial: Any = None) -> ComparisonSet:
    num_users = max(users, default=-1) + 1
    table = UserTable([f"u{row}" for row in range(num_users)], groups or [None] * num_users)
    columns: dict[str, Any] = {}
    if controversial is not None:
        columns["controversial"] = np.array(controversial, dtype=np.int8)
    zeros = np.zeros(len(users), dtype=np.int64)
    return ComparisonSet(
        table,
        ResponseTable(["p", "p"], ["a", "b"]),
        Comparisons(np.array(users, dtype=np.int64), zeros, zeros + 1, **columns),
    )


def on_own_prompts(users: list[int], groups: list[str]) -> ComparisonSet:
    """Return comparisons of these users, each on a prompt of its own."""
    number = len(users)
    texts = ResponseTable([f"p{k // 2}" for k in range(2 * number)], [f"r{k}" for k in range(2 * number)])
    rows = Comparisons(np.array(users), 2 * np.arange(number), 2 * np.arange(number) + 1)
    return ComparisonSet(UserTable([f"u{k}" for k in range(len(groups))], groups), texts, rows)


def values(measurements: list[Measurement]) -> dict[tuple[str, str], tuple[float, int]]:
    return {(m.metric, m.subset): (m.value, m.count) for m in measurements}


def test_accuracy_counts_ties_half() -> None:
    (found,) = measure("accuracy", [2.0, -1.0, 0.0, 0.5], pairs_of([0, 0, 1, 1]))
    assert (found.split, found.subset, found.metric, found.count) == ("test", "all", "accuracy", 4)
    assert found.value == 2.5 / 4


def test_user_accuracy_counts_users_alike() -> None:
    (found,) = measure("user-accuracy", [1, 1, 1, 1, -1, 1], pairs_of([0, 0, 0, 0, 2, 2]))
    assert (found.metric, found.value, found.count) == ("user_accuracy", 0.75, 2)


def test_groups_and_the_worst_of_them() -> None:
    pairs = pairs_of([0, 0, 1, 2, 2, 3], groups=["b", "a", "a", None])
    assert values(measure("group-accuracy", [1, -1, 1, 1, 1, -1], pairs)) == {
        ("accuracy", "group:a"): (1.0, 3),
        ("accuracy", "group:b"): (0.5, 2),
        ("worst_group_accuracy", "all"): (0.5, 2),
    }


def test_the_interval_of_the_worst_group_allows_for_another_one() -> None:
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(200), 4).tolist()
    pairs = pairs_of(users, groups=[str(row % 4) for row in range(200)])
    found = measure("group-accuracy", np.where(generator.random(800) < 0.7, 1.0, -1.0), pairs)
    *groups, worst = found
    own = min(groups, key=lambda m: m.value)
    assert worst.value == own.value
    assert worst.high < own.high  # the worst of four in each resample lies below one chosen beforehand
    assert worst.low <= own.low


def test_controversial_and_common_pairs_apart() -> None:
    pairs = pairs_of([0, 1, 2, 3, 4], controversial=[1, 0, 0, -1, 1])
    assert values(measure("controversial-accuracy", [1, 1, -1, -1, -1], pairs)) == {
        ("accuracy", "common"): (0.5, 2),
        ("accuracy", "controversial"): (0.5, 2),
    }


def test_accuracy_by_number_of_comparisons() -> None:
    given = {"u0": 1, "u1": 2, "u2": 3, "u3": 5, "u4": 8, "u5": 16, "u6": 17, "u7": 900}
    found = measure(
        "comparisons-accuracy", [1, -1, 1, 1, 1, -1, 1, 1, -1], pairs_of(list(range(9))), SplitContext("test", given)
    )
    assert values(found) == {
        ("accuracy", "comparisons:0"): (0.0, 1),  # u8 has given none
        ("accuracy", "comparisons:1-2"): (0.5, 2),
        ("accuracy", "comparisons:3-4"): (1.0, 1),
        ("accuracy", "comparisons:5-8"): (1.0, 2),
        ("accuracy", "comparisons:9-16"): (0.0, 1),
        ("accuracy", "comparisons:17+"): (1.0, 2),
    }


def test_log_loss() -> None:
    (found,) = measure("log-loss", [0.0, 1000.0, -3.0], pairs_of([0, 1, 2]))
    assert found.metric == "log_loss"
    assert found.value == pytest.approx((np.log(2) + 0 + np.log1p(np.exp(3))) / 3)


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_nothing_to_measure(name: str) -> None:
    assert measure(name, [], pairs_of([])) == []


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_a_margin_that_is_no_number_is_a_bug(name: str) -> None:
    pairs = pairs_of([0, 1], groups=["a", "a"], controversial=[0, 1])
    with pytest.raises(ValueError, match="1 of 2 margins are not a number"):
        measure(name, [1.0, np.nan], pairs)


@pytest.mark.parametrize("name", sorted(COMPONENTS))
@given(data=st.data())
@settings(max_examples=10)
def test_every_interval_holds_its_estimate(name: str, data: st.DataObject) -> None:
    users = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=30))
    margins = data.draw(st.lists(st.sampled_from([-1.0, 0.0, 2.0]), min_size=len(users), max_size=len(users)))
    groups = ["a", "a", "b", "b", "c", "c"][: max(users) + 1]
    pairs = pairs_of(users, groups=groups, controversial=[1] * len(users))
    found = measure(name, margins, pairs)
    assert found
    for m in found:
        assert m.low <= m.value <= m.high
        assert 0 < m.count <= len(users)


def test_fewer_resamples_than_an_interval_needs_are_refused() -> None:
    with pytest.raises(OptionsError, match="num_resamples"):
        parse_options(metrics.MetricOptions, {"num_resamples": 10}, where="metric.accuracy")


# --- answers that are all alike ---


def test_every_accuracy_of_answers_that_are_all_right_has_the_same_bounds() -> None:
    pairs = on_own_prompts([0, 1, 2, 3, 4] * 2, ["g"] * 5)
    names = ("accuracy", "user-accuracy", "comparisons-accuracy", "group-accuracy")
    found = [m for name in names for m in measure(name, [1.0] * 10, pairs)]
    assert len(found) == 5
    assert {(m.value, round(m.low, 4), m.high) for m in found} == {(1.0, 0.4782, 1.0)}  # .025^(1/5)


def test_no_answer_and_a_constant_loss_have_no_width() -> None:
    (silent,) = measure("accuracy", [0.0] * 6, pairs_of([0, 1, 2] * 2))
    (loss,) = measure("log-loss", [0.0] * 6, pairs_of([0, 1, 2] * 2))
    assert (silent.low, silent.high) == (0.5, 0.5)
    assert loss.low == loss.high == pytest.approx(np.log(2))


def test_the_smallest_of_groups_that_are_all_right_bounds_the_worst() -> None:
    pairs = on_own_prompts([0, 1, 2, 3, 4, 5], ["a", "a", "a", "a", "b", "b"])
    *_, worst = measure("group-accuracy", [1.0] * 6, pairs)
    assert (worst.metric, worst.count) == ("worst_group_accuracy", 2)
    assert (worst.value, worst.low, worst.high) == (1.0, pytest.approx(0.025**0.5), 1.0)


# --- paired differences ---


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    generator = np.random.default_rng(5)
    users = np.repeat(np.arange(150), 6)
    pairs = pairs_of(users.tolist())
    baseline = np.where(generator.random(900) < generator.random(150)[users], 1.0, -1.0)
    better = np.where((baseline < 0) & (generator.random(900) < 0.05), 1.0, baseline)
    found = accuracy_difference(better, baseline, pairs, SplitContext("test", {}), versus="btl")
    apart = [measure("accuracy", margins, pairs)[0] for margins in (better, baseline)]
    assert (found.split, found.subset, found.metric, found.count) == ("test", "versus:btl", "accuracy_difference", 900)
    assert found.value == pytest.approx(apart[0].value - apart[1].value)
    assert 0 < found.low < found.high
    assert apart[0].low < apart[1].high  # the two intervals overlap and would not tell


def test_no_difference_from_itself() -> None:
    margins = np.array([1.0, -1.0, 0.0])
    found = accuracy_difference(margins, margins * 3, pairs_of([0, 1, 2]), SplitContext("test", {}), versus="same")
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_difference_needs_the_same_comparisons() -> None:
    with pytest.raises(ValueError, match="2 and 1 margins for 2 comparisons"):
        accuracy_difference(np.ones(2), np.ones(1), pairs_of([0, 1]), SplitContext("test", {}), versus="btl")


# --- context ---


def test_context_counts_training_comparisons_of_seen_and_support_of_unseen_users() -> None:
    def rows(users: list[int]) -> Comparisons:
        return Comparisons(np.array(users), np.zeros(len(users), dtype=int), np.ones(len(users), dtype=int))

    data = PreferenceData(
        "toy",
        UserTable.ungrouped(["a", "b"]),
        ResponseTable(["p", "p"], ["x", "y"]),
        {"train": rows([0, 0, 0]), "test": rows([0]), "support": rows([1]), "heldout": rows([1, 1])},
    )
    test, heldout = SplitContext.of(data, "test", seed=4), SplitContext.of(data, "heldout")
    assert (test.split, test.seed, dict(test.num_comparisons)) == ("test", 4, {"a": 3, "b": 0})
    assert dict(heldout.num_comparisons) == {"a": 0, "b": 1}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        test.seed = 1  # type: ignore[misc]  # that it fails is the point
