"""What users have in common: planted directions are found, and own parts where there is much to tell them by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from copl.graph.encoders.tastes.shared import Learning, Shared, Strengths, evidence_of
from copl.records import Comparisons


def learnt(texts: torch.Tensor, rows: Comparisons, strengths: Strengths, *, rounds: int) -> Shared:
    learning = Learning(texts, rows, strengths)
    for _ in range(rounds):
        learning.round()
    return learning.shared


def cosine(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(found.double(), expected.double(), dim=0))


def planted(num_users: int = 200, per_user: int = 10, seed: int = 0) -> tuple[torch.Tensor, Comparisons, torch.Tensor]:
    """Texts nobody shares; everybody likes the last coordinate, and each user the first one more or less."""
    rng = np.random.default_rng(seed)
    count = num_users * per_user
    user = np.repeat(np.arange(num_users), per_user)
    texts = rng.normal(size=(2 * count, 8)) / 4
    common, direction = 4.0 * np.eye(8)[7], 6.0 * np.eye(8)[0]
    tastes = common + rng.normal(size=(num_users, 1)) * direction
    margin = ((texts[:count] - texts[count:]) * tastes[user]).sum(1)
    won = rng.random(count) < 1 / (1 + np.exp(-margin))
    first, second = np.arange(count), count + np.arange(count)
    rows = Comparisons(user, np.where(won, first, second), np.where(won, second, first))
    return torch.from_numpy(texts).float(), rows, torch.from_numpy(np.stack([common, direction]))


def test_planted_directions_are_recovered() -> None:
    texts, rows, truth = planted()
    shared = learnt(texts, rows, Strengths(1, 0.01, 1.0, 0.01, 1.0), rounds=8)
    assert cosine(shared.text[:, 0], truth[0]) > 0.9
    assert abs(cosine(shared.text[:, 1], truth[1])) > 0.9
    assert 2.5 < float(shared.text[:, 0].norm()) < 6.0  # of length 4
    assert 3.5 < float(shared.text[:, 1].norm()) < 9.0  # of length 6


def test_without_directions_there_is_only_what_everybody_thinks() -> None:
    texts, rows, truth = planted(num_users=60)
    shared = learnt(texts, rows, Strengths(0, 1.0, 1.0, 0.01, 1.0), rounds=3)
    assert shared.text.shape == (8, 1)
    assert cosine(shared.text[:, 0], truth[0]) > 0.8


def test_own_parts_are_nothing_where_little_was_judged_and_all_where_much_was() -> None:
    num_users = 200
    texts = torch.zeros(8, 3)
    texts[5:] = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    user = np.arange(num_users)
    # everybody prefers 0 to 1, one of them 2 to 3; nobody judged 4; and something on the other texts
    rows = Comparisons.concat(
        [
            Comparisons(user, 0 * user, 0 * user + 1),
            Comparisons([0], [2], [3]),
            Comparisons(user, 5 + user % 3, 5 + (user + 1) % 3),
        ]
    )
    shared = learnt(texts, rows, Strengths(1, 1.0, 1.0, 0.1, 1.0), rounds=12)
    assert not shared.own[4].any()
    torch.testing.assert_close(shared.own_variance[4], torch.full((2,), 0.1).double())
    assert float(shared.own[0, 0]) > 0.8
    assert float(shared.own[1, 0]) == pytest.approx(-float(shared.own[0, 0]), rel=0.05)
    assert 0 < float(shared.own[2, 0]) < 0.1
    assert float(shared.own_variance[0, 0]) < 0.05 < float(shared.own_variance[2, 0])


def test_a_weight_is_as_many_comparisons_as_long_as_all_is_taken_for_known() -> None:
    """In the first round; later each comparison has an uncertainty of its own, which repetition averages out."""
    texts, rows, _ = planted(num_users=20, per_user=4)
    count = np.arange(len(rows)) % 3 + 1
    weighted = Comparisons(rows.user, rows.chosen, rows.rejected, count.astype(float))
    strengths = Strengths(0, 0.5, 1.0, 0.01, 1.0)
    found = learnt(texts, weighted, strengths, rounds=1)
    expected = learnt(texts, rows.take(np.repeat(np.arange(len(rows)), count)), strengths, rounds=1)
    torch.testing.assert_close(found.text, expected.text)


def test_another_variance_of_own_parts_goes_its_own_way_from_the_same_start() -> None:
    texts, rows, _ = planted(num_users=40)
    start = Learning(texts, rows, Strengths(1, 1.0, 1.0, 0.1, 0.5))
    before = start.shared
    other = start.with_own(1.0)
    for _ in range(2):
        other.round()
    assert start.shared.text.equal(before.text)
    assert start.shared.own_variance.equal(before.own_variance)
    expected = learnt(texts, rows, Strengths(1, 1.0, 1.0, 1.0, 0.5), rounds=2)
    torch.testing.assert_close(other.shared.text, expected.text)
    torch.testing.assert_close(other.shared.own, expected.own)


def test_evidence_by_hand() -> None:
    texts = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    text = torch.tensor([[1.0, 3.0], [2.0, 4.0]]).double()
    own, unsure = torch.tensor([[0.5, 0.0], [0.0, 0.25]]).double(), torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()
    told = evidence_of(texts, Shared(text, own, unsure), Comparisons([0], [0], [1], [0.5]))
    assert told.differences.tolist() == [[1.0, -2.0]]
    assert told.offset.tolist() == [1 - 4 + 0.5]
    assert told.coordinates.tolist() == [[3 - 8 - 0.25]]
    assert told.noise.tolist() == [10.0]
    assert told.weight.tolist() == [0.5]
