from __future__ import annotations

import numpy as np
import pytest

from benchmarks.limits import Answers, answers, consensus, mixture, posterior, share_right
from benchmarks.planted_cases import limits_cell
from copl.data.sources.planted import PlantedOptions, generate
from copl.options import options_to_dict


def given(*rows: tuple[int, int, bool]) -> Answers:
    user, pair, won = zip(*rows, strict=True)
    return Answers(np.array(user), np.array(pair), np.array(won))


def test_answers_number_the_pairs_of_all_splits_alike() -> None:
    options = PlantedOptions(num_seen_users=30, num_pairs=40, cold_share=0.0)
    data, truth = generate(options, seed=0)
    parts, num_pairs = answers(data, ("train", "test"))
    pairs = np.unique(np.concatenate([data.splits[name].chosen // 2 for name in ("train", "test")]))
    assert num_pairs == len(pairs)
    for name, part in parts.items():
        rows = data.splits[name]
        assert (pairs[part.pair] == rows.chosen // 2).all()
        assert (part.won == truth.labels[rows.chosen // 2, truth.user_groups[rows.user]]).all()


def test_consensus_is_the_majority_and_unknown_pairs_are_even() -> None:
    train = given((0, 0, True), (1, 0, True), (2, 0, False), (0, 1, False), (1, 3, True), (2, 3, False))
    asked = given((3, 0, True), (3, 1, True), (3, 2, True), (3, 3, False))
    assert consensus(train, asked, 4) == pytest.approx([2.5 / 4, 0.5 / 2, 0.5, 0.5])
    assert share_right(consensus(train, asked, 4), asked.won) == (1 + 0 + 0.5 + 0.5) / 4


def test_posterior_of_two_answers_by_hand() -> None:
    # One pair of two groups, half controversial: the labellings 00, 01, 10, 11 have a quarter each. A user whose group
    # nobody knows said the lower response wins: labelling 11 has 1/2, 01 and 10 a quarter each. So of another unknown
    # user 1/2 + 1/2 * 1/2 is expected.
    train, asked = given((0, 0, True)), given((1, 0, True))
    found = posterior(train, asked, 2, 1, 2, controversial_share=0.5, label_noise=0.0, seed=0)
    assert found == pytest.approx([0.75], abs=2e-3)
    without = posterior(train, asked, 2, 1, 2, controversial_share=0.0, label_noise=0.1, seed=0)
    assert without == pytest.approx([0.9 * 0.9 + 0.1 * 0.1])


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_known_more_of_is_answered_better(seed: int) -> None:
    options = PlantedOptions(num_seen_users=600, num_pairs=600, num_groups=3, num_train=9, num_test=20)
    found = limits_cell(options_to_dict(options), seed)
    assert 0.7 < found["consensus"] < found["mixture"] - 0.05
    assert found["mixture"] < found["limit"] + 0.01
    assert found["limit"] < 1


def test_the_mixture_of_one_group_is_consensus() -> None:
    options = PlantedOptions(
        num_seen_users=200, num_pairs=50, num_groups=1, controversial_share=0.0, label_noise=0.2, num_test=5
    )
    data, _ = generate(options, seed=0)
    parts, num_pairs = answers(data, ("train", "validation", "test"))
    train, held, asked = parts.values()
    rates = mixture(train, held, asked, 200, num_pairs, 1, seed=0)
    clear = np.abs(consensus(train, asked, num_pairs) - 0.5) > 1e-9
    assert ((rates > 0.5) == (consensus(train, asked, num_pairs) > 0.5))[clear].all()
