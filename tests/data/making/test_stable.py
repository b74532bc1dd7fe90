"""Splits by hash: what `tests/data/making/test_splits.py` holds of splits, and that added rows move nothing."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from copl.data.making.splits import ComparisonSplitOptions
from copl.data.making.stable import stable_splits
from copl.records import SPLITS, Comparisons, ComparisonSet, ResponseTable, UserTable

Row = tuple[str, str, str, str]
Options = dict[str, Any]


def random_rows(seed: int, count: int, users: int = 12, prompts: int = 8, per_prompt: int = 4) -> list[Row]:
    """Random rows of user, prompt, chosen and rejected, repeats and contradictions among them."""
    rng = np.random.default_rng(seed)
    rows = []
    for user, prompt in zip(rng.integers(users, size=count), rng.integers(prompts, size=count), strict=True):
        one, other = rng.permutation(per_prompt)[:2]
        rows.append((f"u{user}", f"p{prompt}", f"t{one}", f"t{other}"))
    return rows


def as_set(rows: list[Row]) -> ComparisonSet:
    """Rows as comparisons, users and responses in the order in which they first occur."""
    users = dict.fromkeys(user for user, *_ in rows)
    responses = dict.fromkeys((prompt, text) for _, prompt, *texts in rows for text in texts)
    user_row = {user: row for row, user in enumerate(users)}
    row_of = {response: row for row, response in enumerate(responses)}
    columns = [(user_row[u], row_of[p, c], row_of[p, r]) for u, p, c, r in rows]
    table = ResponseTable([prompt for prompt, _ in responses], [text for _, text in responses])
    user, chosen, rejected = (list(column) for column in zip(*columns, strict=True)) if columns else ([], [], [])
    return ComparisonSet(UserTable.ungrouped(list(users)), table, Comparisons(user, chosen, rejected))


def placed(data: ComparisonSet, splits: Any) -> dict[tuple[str, str, frozenset[str]], set[str]]:
    """The splits that each pair of each user is in."""
    places: dict[tuple[str, str, frozenset[str]], set[str]] = {}
    for name, part in splits.items():
        for user, chosen, rejected in zip(
            part.user.tolist(), part.chosen.tolist(), part.rejected.tolist(), strict=True
        ):
            texts = frozenset((data.responses.texts[chosen], data.responses.texts[rejected]))
            places.setdefault((data.users.ids[user], data.responses.prompts[chosen], texts), set()).add(name)
    return places


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
PROMPTS = st.sampled_from([(1, 15), (8, 3), (40, 3)])


@settings(max_examples=60)
@given(OPTIONS, st.integers(0, 1000), PROMPTS, st.integers(1, 120), st.integers(1, 120))
def test_added_rows_move_nothing(
    options: ComparisonSplitOptions, seed: int, prompts: tuple[int, int], old: int, new: int
) -> None:
    rows = random_rows(seed, old + new, prompts=prompts[0], per_prompt=prompts[1])
    few, all_of_them = as_set(rows[:old]), as_set(rows)
    before = placed(few, stable_splits(few, options, seed=seed).splits)
    after = placed(all_of_them, stable_splits(all_of_them, options, seed=seed).splits)
    if prompts[0] > 1 and len({row[1] for row in rows[:old]}) == 1:
        return  # what is one prompt may be split by response, several are split by prompt
    assert {pair: after.get(pair) for pair in before} == before


# the first user's first rows are cold, and so not known
@example(
    ComparisonSplitOptions(cold_fraction=0.2, unseen_fraction=0.2, support=1, cold_by="response"), 1, (8, 3), 3, 22
)
@settings(max_examples=60)
@given(OPTIONS, st.integers(0, 1000), PROMPTS, st.integers(1, 120), st.integers(0, 120))
def test_what_is_split_already_may_be_given_instead_of_its_rows(
    options: ComparisonSplitOptions, seed: int, prompts: tuple[int, int], old: int, new: int
) -> None:
    rows = random_rows(seed, old + new, prompts=prompts[0], per_prompt=prompts[1])
    if options.strategy == "response" and len({row[1] for row in rows[:old]}) == 1:
        return  # single responses: comparisons across splits are lost, and their responses not known of the user
    everything = as_set(rows)
    first = attrs.evolve(everything, comparisons=everything.comparisons.take(np.arange(old + new) < old))
    later = attrs.evolve(everything, comparisons=everything.comparisons.take(np.arange(old + new) >= old))
    known = {name: part for name, part in stable_splits(first, options, seed=seed).splits.items() if len(part)}
    added = stable_splits(later, options, seed=seed, known=known).splits
    together = {name: Comparisons.concat([known.get(name, Comparisons.empty()), added[name]]) for name in SPLITS}
    at_once = placed(everything, stable_splits(everything, options, seed=seed).splits)
    in_steps = placed(everything, together)
    if options.strategy == "response":  # support beyond its limit is lost, and then not known of its user
        unseen = {pair[0] for pair, names in in_steps.items() if names & {"support", "heldout"}}
        at_once, in_steps = ({p: n for p, n in one.items() if p[0] not in unseen} for one in (at_once, in_steps))
    assert all(at_once.get(pair, names) == names for pair, names in in_steps.items())
    # the others had been dropped, when less was known of their users
    dropped = placed(everything, {"": first.comparisons}).keys() - placed(everything, known).keys()
    assert at_once.keys() - in_steps.keys() <= dropped


@settings(max_examples=60)
@given(OPTIONS, st.integers(0, 1000), PROMPTS)
def test_guarantees(options: ComparisonSplitOptions, seed: int, prompts: tuple[int, int]) -> None:
    data = as_set(random_rows(seed, 150, prompts=prompts[0], per_prompt=prompts[1]))
    outcome = stable_splits(data, options, seed=seed)
    splits = outcome.splits
    users = {name: set(part.user.tolist()) for name, part in splits.items()}
    assert sum(map(len, splits.values())) + sum(outcome.dropped.values()) == len(data)
    assert users["heldout"] <= users["support"]
    assert not users["support"] & users["train"]
    assert (users["validation"] | users["test"] | users["cold"]) <= users["train"]
    assert all(len(names) == 1 for names in placed(data, splits).values())
    if options.strategy == "response":
        held = {
            n: {(u, e) for u, *ends in zip(p.user, p.chosen, p.rejected, strict=True) for e in ends}
            for n, p in splits.items()
        }
        assert all(one == other or not held[one] & held[other] for one in held for other in held)
    ends = {name: {int(r) for r in np.r_[part.chosen, part.rejected]} for name, part in splits.items()}
    assert all(not ends["cold"] & ends[name] for name in SPLITS if name != "cold")
    support = placed(data, {"support": splits["support"]})
    assert max(np.unique([user for user, _, _ in support], return_counts=True)[1], default=0) <= options.support


def test_neither_order_nor_company_decides_who_is_unseen_and_what_is_cold() -> None:
    rows = random_rows(0, 2000, users=200, prompts=100)
    data, shuffled = as_set(rows), as_set([rows[0], *np.random.default_rng(0).permutation(rows[1:]).tolist()])
    one, other = (stable_splits(one, ComparisonSplitOptions(), seed=0).splits for one in (data, shuffled))
    for name in ("support", "cold"):
        assert {p[0] for p in placed(data, {name: one["support"]})} == {
            p[0] for p in placed(shuffled, {name: other["support"]})
        }
    assert placed(data, {"cold": one["cold"]}) == placed(shuffled, {"cold": other["cold"]})


@pytest.mark.parametrize(("count", "cold_share"), [(2, 0.0), (3, 0.0), (20, 0.2)])
def test_fractions_are_met(count: int, cold_share: float) -> None:
    options = ComparisonSplitOptions(
        test_fraction=0.3, validation_fraction=0.1, cold_fraction=cold_share, unseen_fraction=0.25, support=7
    )
    data = as_set([(f"u{u}", f"p{u * 31 + n}", "a", "b") for u in range(2000) for n in range(count)])
    splits = stable_splits(data, options, seed=0).splits
    seen = sum(len(splits[name]) for name in ("train", "validation", "test"))
    assert len(splits["test"]) / seen == pytest.approx(0.3, abs=0.02)
    assert len(splits["validation"]) / seen == pytest.approx(0.1, abs=0.02)
    assert len(set(splits["support"].user.tolist())) / 2000 == pytest.approx(0.25, abs=0.03)
    assert len(splits["cold"]) / (seen + len(splits["cold"])) == pytest.approx(cold_share, abs=0.02)
    given = np.bincount(splits["support"].user)
    assert given.max() == min(count - 1, 7)


def test_the_first_comparison_of_everybody_says_something_about_them() -> None:
    data = as_set([(f"u{n}", f"p{n % 50}", "a", "b") for n in range(400)])
    options = ComparisonSplitOptions(cold_fraction=0.0, test_fraction=0.5, validation_fraction=0.4)
    splits = stable_splits(data, options, seed=0).splits
    assert len(splits["train"]) + len(splits["support"]) == 400
    assert 20 < len(splits["support"]) < 60


def test_another_seed_is_another_split() -> None:
    data = as_set(random_rows(0, 150))
    one, again, other = (placed(data, stable_splits(data, ComparisonSplitOptions(), seed=s).splits) for s in (1, 1, 2))
    assert one == again != other


def test_what_publishers_hold_out_is_cold() -> None:
    data = as_set(random_rows(0, 150))
    cold = np.array([prompt in ("p1", "p6") for prompt in data.responses.prompts])
    splits = stable_splits(data, ComparisonSplitOptions(cold_fraction=0.9), seed=0, cold=cold).splits
    assert {pair[1] for pair in placed(data, {"cold": splits["cold"]})} == {"p1", "p6"}
    assert len(splits["train"]) > len(splits["cold"]) > 0


def test_nothing_to_split() -> None:
    for strategy in ("pair", "response"):
        options = ComparisonSplitOptions(strategy=strategy)  # type: ignore[arg-type]  # one of the literals
        assert sum(map(len, stable_splits(as_set([]), options, seed=0).splits.values())) == 0
