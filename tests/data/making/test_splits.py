from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.data.making.splits import ComparisonSplitOptions, SplitOptions, deal, make_splits, shares
from copl.errors import OptionsError
from copl.options import parse_options
from copl.records import SPLITS, Comparisons, ComparisonSet, ResponseTable, UserTable

SEEN, UNSEEN = ("train", "validation", "test", "cold"), ("support", "heldout")


def random_set(seed: int, users: int = 12, prompts: int = 8, per_prompt: int = 4, count: int = 150) -> ComparisonSet:
    """Random comparisons within prompts, repeats and contradictions among them."""
    rng = np.random.default_rng(seed)
    prompt = rng.integers(prompts, size=count)
    two = np.array([rng.permutation(per_prompt)[:2] for _ in range(count)])
    rows = prompt[:, None] * per_prompt + two
    responses = ResponseTable(
        [f"prompt {p}" for p in range(prompts) for _ in range(per_prompt)],
        [f"text {t}" for _ in range(prompts) for t in range(per_prompt)],
    )
    user = rng.integers(users, size=count)
    return ComparisonSet(
        UserTable.ungrouped([f"u{u}" for u in range(users)]), responses, Comparisons(user, rows[:, 0], rows[:, 1])
    )


def units(part: Comparisons, strategy: str) -> set[tuple[int, ...]]:
    rows = zip(part.user.tolist(), part.chosen.tolist(), part.rejected.tolist(), strict=True)
    if strategy == "pair":
        return {(user, min(one, other), max(one, other)) for user, one, other in rows}
    return {(user, response) for user, one, other in rows for response in (one, other)}


OPTIONS = st.builds(
    ComparisonSplitOptions,
    strategy=st.sampled_from(["pair", "response"]),
    cold_by=st.sampled_from(["prompt", "response"]),
    test_fraction=st.sampled_from([0.0, 0.2, 0.5]),
    validation_fraction=st.sampled_from([0.0, 0.1, 0.4]),
    cold_fraction=st.sampled_from([0.0, 0.2, 0.5]),
    unseen_fraction=st.sampled_from([0.0, 0.2, 0.5]),
    support=st.integers(1, 9),
)


def test_what_publishers_hold_out_is_cold() -> None:
    data = random_set(0)
    cold = np.array([prompt in ("prompt 1", "prompt 6") for prompt in data.responses.prompts])
    made = make_splits(data, ComparisonSplitOptions(cold_fraction=0.9), seed=0, cold=cold)
    used = {name: set(part.chosen.tolist() + part.rejected.tolist()) for name, part in made.splits.items()}
    assert used["cold"] <= set(np.flatnonzero(cold).tolist())
    assert not any(used[name] & used["cold"] for name in SPLITS if name != "cold")
    assert len(made.splits["train"]) > len(made.splits["cold"]) > 0


@settings(max_examples=80)
@given(OPTIONS, st.integers(0, 1000), st.sampled_from([1, 8, 40]))
def test_guarantees(options: ComparisonSplitOptions, seed: int, prompts: int) -> None:
    data = random_set(seed, prompts=prompts, per_prompt=3 if prompts > 1 else 15)
    made = make_splits(data, options, seed=seed)
    splits = made.splits
    users = {name: set(part.user.tolist()) for name, part in splits.items()}
    assert set(splits) == set(SPLITS)
    assert sum(map(len, splits.values())) + sum(made.dropped.values()) == len(data)
    # users have one role, and what the role needs
    assert users["support"] == users["heldout"]
    assert not users["support"] & users["train"]
    assert (users["validation"] | users["test"] | users["cold"]) <= users["train"]
    # no two splits of a user share a pair, or a response
    held = {name: units(part, options.strategy) for name, part in splits.items()}
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or not held[one] & held[other]
    # cold responses are cold
    ends = {name: {int(r) for r in np.r_[part.chosen, part.rejected]} for name, part in splits.items()}
    assert all(not ends["cold"] & ends[name] for name in SPLITS if name != "cold")
    # no more support than asked for
    for user in users["support"]:
        rows = splits["support"].take(splits["support"].user == user)
        assert len(units(rows, "pair")) <= options.support


def test_same_seed_same_splits_and_another_seed_others() -> None:
    data, options = random_set(0), ComparisonSplitOptions()
    first, again, other = (make_splits(data, options, seed=seed).splits for seed in (1, 1, 2))
    assert all(np.array_equal(first[name].chosen, again[name].chosen) for name in SPLITS)
    assert not np.array_equal(first["train"].chosen, other["train"].chosen)


def test_who_is_unseen_and_what_is_cold_does_not_hang_on_other_fractions() -> None:
    data = random_set(3, count=400)
    options = ComparisonSplitOptions(unseen_fraction=0.3, cold_fraction=0.2)
    first = make_splits(data, options, seed=0).splits
    second = make_splits(data, attrs.evolve(options, test_fraction=0.5, support=2), seed=0).splits
    assert set(first["support"].user.tolist()) == set(second["support"].user.tolist())
    assert np.array_equal(first["cold"].chosen, second["cold"].chosen)


def test_fractions_are_met() -> None:
    data = random_set(5, users=40, prompts=100, count=8000)
    options = ComparisonSplitOptions(
        test_fraction=0.3, validation_fraction=0.1, cold_fraction=0.2, unseen_fraction=0.25, support=7
    )
    splits = make_splits(data, options, seed=0).splits
    seen = sum(len(splits[name]) for name in ("train", "validation", "test"))
    assert len(splits["test"]) / seen == pytest.approx(0.3, abs=0.02)
    assert len(splits["validation"]) / seen == pytest.approx(0.1, abs=0.02)
    assert len(set(splits["support"].user.tolist())) == 10
    cold_prompts = {data.responses.prompts[row] for row in splits["cold"].chosen.tolist()}
    assert len(cold_prompts) == 20
    given = np.bincount(splits["support"].user)
    # repeated pairs count once, so a user may say a little more than seven comparisons
    assert given[given > 0].min() >= 7


def test_repeated_pairs_stay_together() -> None:
    rows = Comparisons([0] * 8, [0, 1, 0, 2, 3, 2, 4, 5], [1, 0, 1, 3, 2, 3, 5, 4])
    data = ComparisonSet(UserTable.ungrouped(["u"]), ResponseTable(["p"] * 6, list("abcdef")), rows)
    options = ComparisonSplitOptions(test_fraction=0.5, validation_fraction=0.0, cold_fraction=0.0, unseen_fraction=0.0)
    splits = make_splits(data, options, seed=0).splits
    assert {len(splits["train"]), len(splits["test"])} <= {2, 3, 5, 6}
    assert len(splits["train"]) + len(splits["test"]) == 8


def test_a_user_whose_votes_all_hang_together_is_split_by_response() -> None:
    one, other = np.triu_indices(20, 1)  # each of twenty responses against each other
    data = ComparisonSet(
        UserTable.ungrouped(["u"]), ResponseTable(["p"] * 20, map(str, range(20))), Comparisons([0] * 190, one, other)
    )
    options = ComparisonSplitOptions(
        strategy="response", test_fraction=0.3, validation_fraction=0.0, cold_fraction=0.0, unseen_fraction=0.0
    )
    made = make_splits(data, options, seed=0)
    # 14 responses for training and 6 for test: 14·13/2 and 6·5/2 comparisons, the 84 between them dropped
    assert (len(made.splits["train"]), len(made.splits["test"]), sum(made.dropped.values())) == (91, 15, 84)


def test_prompts_of_a_user_stay_whole_under_the_response_strategy() -> None:
    data = random_set(1, users=3, prompts=30, per_prompt=2, count=200)
    made = make_splits(data, ComparisonSplitOptions(strategy="response", unseen_fraction=0.0), seed=0)
    assert not made.dropped


def test_nothing_to_split() -> None:
    data = ComparisonSet(UserTable.ungrouped([]), ResponseTable([], []), Comparisons.empty())
    for strategy in ("pair", "response"):
        made = make_splits(data, ComparisonSplitOptions(strategy=strategy), seed=0)  # type: ignore[arg-type]
        assert sum(map(len, made.splits.values())) == 0


@settings(max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.floats(0, 0.6), st.floats(0, 0.39), st.integers(0, 99))
def test_shares_leave_one_and_deal_deals_them(counts: list[int], one: float, other: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    quotas = shares(np.array(counts), (one, other), rng)
    assert (quotas.sum(axis=1) <= np.maximum(np.array(counts) - 1, 0)).all()
    owner = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    part = deal(owner, quotas, rng)
    for row, (count, quota) in enumerate(zip(counts, quotas.tolist(), strict=True)):
        assert np.bincount(part[owner == row], minlength=3).tolist() == [count - sum(quota), *quota]


def test_shares_are_right_on_average() -> None:
    quotas = shares(np.full(20_000, 4), (0.2,), np.random.default_rng(0))
    assert set(quotas.ravel().tolist()) == {0, 1}
    assert quotas.mean() == pytest.approx(0.8, abs=0.02)


def test_options_that_leave_nothing_to_train_on() -> None:
    with pytest.raises(OptionsError, match="nothing to train on"):
        parse_options(SplitOptions, {"test_fraction": 0.6, "validation_fraction": "0.4"}, where="x")
    with pytest.raises(OptionsError, match="cold_fraction"):
        parse_options(SplitOptions, {"cold_fraction": 1.0}, where="x")
