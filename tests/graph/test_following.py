"""New comparisons taken into a bilinear model: against a minimiser that knows nothing of it, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from copl.graph.following import Factors, Precisions, follow
from copl.graph.training import ComparisonTensors
from copl.records import Comparisons


def factors(seed=0, num_users=6, num_responses=5, dim=3):
    rng = np.random.default_rng(seed)
    tables = rng.normal(size=(num_users, dim)), rng.normal(size=(num_responses, dim)), rng.normal(size=num_responses)
    return Factors(*(torch.from_numpy(table) for table in tables))


def rows(seed=0, count=40, num_users=6, num_responses=5):
    rng = np.random.default_rng(seed)
    chosen = rng.integers(num_responses, size=count)
    rejected = (chosen + 1 + rng.integers(num_responses - 1, size=count)) % num_responses
    return ComparisonTensors.of(Comparisons(rng.integers(num_users, size=count), chosen, rejected))


def none(count):
    return torch.zeros(count, dtype=torch.bool)


def test_without_news_nothing_moves():
    start, said = factors(), rows()
    found = follow(start, said, Precisions(1.0, 0.5), new_of_user=none(40), new_of_response=none(40))
    for name in ("users", "responses", "bias"):
        assert torch.equal(getattr(found, name), getattr(start, name))


def test_a_user_is_the_mode_of_what_was_known_and_what_is_new():
    start, said = factors(), rows()
    is_new = (said.user == 2) & (torch.arange(40) % 2 == 0)
    precision = 0.7
    found = follow(start, said, Precisions(precision, 0.5), new_of_user=is_new, new_of_response=none(40))
    others = torch.arange(6) != 2
    assert torch.equal(found.users[others], start.users[others])

    design = (start.responses[said.chosen] - start.responses[said.rejected]).numpy()
    effects = (start.bias[said.chosen] - start.bias[said.rejected]).numpy()
    old, new = ((said.user == 2) & ~is_new).numpy(), is_new.numpy()
    at = start.users[2].numpy()
    chance = 1 / (1 + np.exp(-(design[old] @ at + effects[old])))
    hold = precision * np.eye(3) + design[old].T @ (design[old] * (chance * (1 - chance))[:, None])

    def loss(x):
        return np.logaddexp(0, -(design[new] @ x + effects[new])).sum() + 0.5 * (x - at) @ hold @ (x - at)

    expected = minimize(loss, at, tol=1e-12).x
    assert found.users[2].numpy() == pytest.approx(expected, abs=2e-4)


def test_a_user_nobody_knew_by_hand():
    # One comparison between responses at 1 and -1: the mode solves x = 2 sigmoid(-2 x) with precision 1.
    start = Factors(torch.zeros(1, 1).double(), torch.tensor([[1.0], [-1.0]]).double(), torch.zeros(2).double())
    said = ComparisonTensors.of(Comparisons([0], [0], [1]))
    found = follow(start, said, Precisions(1.0, 1.0), new_of_user=~none(1), new_of_response=none(1))
    x = float(found.users[0, 0])
    assert x == pytest.approx(2 / (1 + np.exp(2 * x)), abs=1e-6)


def test_responses_move_towards_what_is_new_of_them_and_no_others_do():
    start, said = factors(1), rows(1)
    is_new = torch.zeros(40, dtype=torch.bool)
    is_new[:3] = True
    found = follow(start, said, Precisions(1.0, 0.5), new_of_user=is_new, new_of_response=is_new)
    touched = torch.unique(torch.cat([said.chosen[:3], said.rejected[:3]]))
    untouched = [row for row in range(5) if row not in touched.tolist()]
    assert torch.equal(found.responses[untouched], start.responses[untouched])
    assert float(found.margins(said.take(is_new)).sum()) > float(start.margins(said.take(is_new)).sum())
