from __future__ import annotations

import json

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.data.checking.checks import check
from copl.data.pairs import pair_numbers
from copl.data.sources.planted import COMPONENTS, PlantedOptions, PlantedTruth, generate
from copl.data.sources.planted.drawing import draw_distinct, zipf_weights
from copl.data.sources.planted.world import draw_labels
from copl.errors import OptionsError
from copl.options import parse_options
from copl.records import SPLITS, Comparisons, PreferenceData

SMALL = PlantedOptions(
    num_seen_users=300, num_unseen_users=60, num_pairs=200, num_groups=3, cold_share=0.25, num_cold=2, spread=0.5
)


@pytest.fixture(scope="module")
def generated() -> tuple[PreferenceData, PlantedTruth]:
    return generate(SMALL, seed=3)


def pairs_of(rows: Comparisons) -> set[int]:
    assert (rows.chosen // 2 == rows.rejected // 2).all()
    return set((rows.chosen // 2).tolist())


def test_every_split_and_its_counts(generated: tuple[PreferenceData, PlantedTruth]) -> None:
    data, _ = generated
    assert list(data.present()) == list(SPLITS)
    assert (len(data.users), len(data.responses)) == (360, 400)
    for name, users, per_user in (("validation", 300, 1), ("test", 300, 10), ("cold", 300, 2), ("heldout", 60, 10)):
        assert np.unique(data.splits[name].user, return_counts=True)[1].tolist() == [per_user] * users
    for name in ("train", "support"):
        given_by_each = np.unique(data.splits[name].user, return_counts=True)[1]
        assert set(given_by_each) == set(range(4, 11))  # 7 times 0.5 to 1.5, rounded towards 7


def test_seen_and_unseen_users_are_apart(generated: tuple[PreferenceData, PlantedTruth]) -> None:
    data, _ = generated
    for name in SPLITS:
        prefix = "unseen-" if name in ("support", "heldout") else "seen-"
        assert all(data.users.ids[row].startswith(prefix) for row in data.splits[name].user)


def test_cold_pairs_are_in_no_other_split_and_test_pairs_are_trained_on(
    generated: tuple[PreferenceData, PlantedTruth],
) -> None:
    data, _ = generated
    warm = set().union(*(pairs_of(data.splits[name]) for name in SPLITS if name != "cold"))
    assert len(pairs_of(data.splits["cold"]) | warm) == 200
    assert len(warm) == 150
    assert pairs_of(data.splits["test"]) <= pairs_of(data.splits["train"])  # 2,100 comparisons of 150 pairs


def test_no_pair_of_a_user_comes_twice(generated: tuple[PreferenceData, PlantedTruth]) -> None:
    everything = Comparisons.concat(list(generated[0].splits.values()))
    assert len(np.unique(pair_numbers(everything))) == len(everything)


def test_users_choose_as_their_group_labels(generated: tuple[PreferenceData, PlantedTruth]) -> None:
    data, truth = generated
    assert np.bincount(truth.user_groups[:300]).tolist() == [100, 100, 100]
    assert [data.users.groups[row] for row in (0, 359)] == [f"group {truth.user_groups[row] + 1}" for row in (0, 359)]
    for rows in data.splits.values():
        pair = rows.chosen // 2
        likes_first = truth.labels[pair, truth.user_groups[rows.user]]
        assert (rows.chosen == np.where(likes_first, 2 * pair, 2 * pair + 1)).all()
        assert (rows.controversial == truth.controversial[pair]).all()


def test_controversial_pairs_have_every_mixed_labelling_equally_often() -> None:
    labels = draw_labels(30_000, 3, 0.8, np.random.default_rng(0))
    ways, counts = np.unique(labels @ [1, 2, 4], return_counts=True)
    assert ways.tolist() == list(range(8))
    mixed = counts[1:-1]
    assert mixed.sum() == 24_000
    assert np.abs(mixed - 4_000).max() < 5 * np.sqrt(4_000)
    assert abs(counts[0] - 3_000) < 5 * np.sqrt(1_500)


def test_label_noise_turns_comparisons_of_every_split() -> None:
    options = attrs.evolve(SMALL, label_noise=0.1, num_seen_users=3_000, num_unseen_users=600)
    data, truth = generate(options, seed=0)
    for name, rows in data.splits.items():
        pair = rows.chosen // 2
        turned = truth.labels[pair, truth.user_groups[rows.user]] != (rows.chosen == 2 * pair)
        assert turned.mean() == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / len(rows)))
        assert data.provenance["ceilings"][name]["group_oracle"] == pytest.approx(1 - turned.mean(), abs=1e-4)


def test_ceilings_by_hand() -> None:
    # groups 0 and 1 prefer the first response of pair 0, group 2 the second; they are even on nothing else
    truth = PlantedTruth(
        np.array([0, 2]), np.array([1, 3]), np.array([[True, True, False], [True, True, True]]), np.array([0, 2, 1])
    )
    rows = Comparisons([0, 1, 2, 0], [0, 1, 1, 2], [1, 0, 0, 3])  # the third user denies its group's label
    # most groups: right, wrong, wrong, right; the group of the user: right, right, wrong, right
    assert truth.ceilings(rows, np.array([0, 0, 0, 1])) == {"consensus": 0.5, "group_oracle": 0.75}
    even = PlantedTruth(np.array([0]), np.array([1]), np.array([[True, False]]), np.array([0, 1]))
    assert even.ceilings(Comparisons([0, 1], [0, 1], [1, 0]), np.array([0, 0]))["consensus"] == 0.5


def test_popularity_follows_zipf() -> None:
    options = PlantedOptions(num_seen_users=20_000, num_pairs=40, popularity=1.0, num_train=1, cold_share=0.0)
    data, _ = generate(attrs.evolve(options, num_validation=0, num_test=0), seed=0)
    counts = np.sort(np.bincount(data.splits["train"].chosen // 2, minlength=40))[::-1]
    expected = 20_000 / np.arange(1, 41) / (1 / np.arange(1, 41)).sum()
    assert np.abs(counts[:5] - expected[:5]).max() < 5 * np.sqrt(expected[0])


def test_popular_pairs_are_as_frequent_in_test_as_in_training() -> None:
    options = PlantedOptions(num_seen_users=4_000, num_pairs=60, popularity=1.5, num_train=6, num_test=6)
    data, _ = generate(options, seed=0)
    train, test = (np.bincount(data.splits[name].chosen // 2, minlength=60) for name in ("train", "test"))
    assert train.max() > 10 * np.median(train)
    assert np.abs(train - test).max() < 5 * np.sqrt(2 * train.max())


def test_labels_stay_when_the_numbers_of_comparisons_change(generated: tuple[PreferenceData, PlantedTruth]) -> None:
    _, truth = generated
    _, other = generate(attrs.evolve(SMALL, num_train=4, num_test=3), seed=3)
    assert (other.labels == truth.labels).all()
    assert (other.user_groups == truth.user_groups).all()


def test_the_same_seed_gives_the_same_data(generated: tuple[PreferenceData, PlantedTruth]) -> None:
    digest = generated[0].digest(*SPLITS)
    assert generate(SMALL, seed=3)[0].digest(*SPLITS) == digest
    assert generate(SMALL, seed=4)[0].digest(*SPLITS) != digest


def test_the_component_makes_data_without_faults() -> None:
    (component,) = COMPONENTS
    data = component.build(attrs.evolve(SMALL, num_unseen_users=0, num_cold=0)).load(seed=0)
    assert set(data.splits) == {"train", "validation", "test"}
    assert [finding.what for finding in check(data) if finding.severity != "info"] == []
    provenance = json.loads(json.dumps(data.provenance, allow_nan=False))
    assert provenance["counts"]["cold_pairs"] == 50
    assert provenance["options"]["label_noise"] == 0.0


def test_all_rules_across_options_are_reported_together() -> None:
    values = {"num_pairs": 20, "num_groups": 1, "num_train": 9, "num_cold": 3, "num_unseen_users": 1}
    with pytest.raises(OptionsError) as caught:
        parse_options(PlantedOptions, values, where="source.planted")
    # 9 + 1 + 10 of 18 pairs; the support of 7 and 10 held-out fit
    assert "seen users need up to 20 trained pairs each, there are 18" in str(caught.value)
    assert "num_cold is 3, there are 2 pairs" in str(caught.value)
    assert "one group cannot disagree" in str(caught.value)
    assert "unseen users need" not in str(caught.value)


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=30),
    num_things=st.integers(12, 40),
    exponent=st.sampled_from([0.0, 0.7, 3.0, 40.0]),
    seed=st.integers(0, 99),
)
def test_draws_are_distinct_and_complete(counts: list[int], num_things: int, exponent: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = draw_distinct(np.array(counts), zipf_weights(num_things, exponent, rng), rng)
    assert ((drawn >= 0) & (drawn < num_things)).all()
    parts = np.split(drawn, np.cumsum(counts)[:-1])
    assert [len(set(part.tolist())) for part in parts] == counts


@pytest.mark.parametrize("num_things", [3, 9])  # served exactly, and by drawing again
def test_draws_follow_the_weights(num_things: int) -> None:
    weights = np.array([6.0, 3.0, 1.0])[:num_things]
    weights = np.concatenate([weights, np.full(num_things - 3, 1e-12)])
    drawn = draw_distinct(np.full(40_000, 2), weights, np.random.default_rng(0)).reshape(-1, 2)
    left_out = np.bincount(3 - drawn.sum(axis=1), minlength=3)[:3] / 40_000
    # one after the other: 0 then 1 with .6 * .3/.4, 1 then 0 with .3 * .6/.7; 0 and 2 likewise
    without_2, without_1 = 0.6 * 3 / 4 + 0.3 * 6 / 7, 0.6 * 1 / 4 + 0.1 * 6 / 9
    expected = [1 - without_1 - without_2, without_1, without_2]
    assert left_out == pytest.approx(expected, abs=0.013)
    first = (drawn[:, 0] < drawn[:, 1]).mean()
    assert first == pytest.approx(0.5, abs=0.013)


def test_groups_may_differ_in_size() -> None:
    options = PlantedOptions(num_seen_users=200, num_unseen_users=50, num_pairs=100, group_shares=(9.0, 1.0))
    data, truth = generate(options, 0)
    assert np.bincount(truth.user_groups[:200]).tolist() == [180, 20]
    assert np.bincount(truth.user_groups[200:]).tolist() == [45, 5]
    even, _ = generate(attrs.evolve(options, group_shares=()), 0)
    assert even.responses.keys == data.responses.keys
    with pytest.raises(OptionsError, match="group_shares has 3 values for 2 groups"):
        parse_options(PlantedOptions, {"group_shares": "1,2,3"}, where="source")
    with pytest.raises(OptionsError, match="group_shares"):
        parse_options(PlantedOptions, {"group_shares": "1,0"}, where="source")
