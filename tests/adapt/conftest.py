"""Small trained sets and support sets that all tests of adaptation share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
import torch

from copl.records import Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable

Problem: TypeAlias = tuple[ComparisonSet, NodeEmbeddings]


@pytest.fixture(scope="session")
def planted_problem() -> Callable[..., Problem]:
    """Return a function that makes two groups of seen users, who disagree on all pairs, and newcomers of each."""

    def make(
        seed: int = 0,
        *,
        num_users: int = 40,
        num_pairs: int = 15,
        num_newcomers: int = 6,
        support: int = 4,
    ) -> Problem:
        rng = np.random.default_rng(seed)
        side = np.where(np.arange(num_users) % 2 == 0, 1.0, -1.0)
        users = side[:, None] * [[1.0, 0.0, 0.0]] + 0.2 * rng.normal(size=(num_users, 3))
        table = np.stack([np.tile([2.0, 0.0], num_pairs), *(0.3 * rng.normal(size=(2, 2 * num_pairs)))], axis=1)

        def votes(count: int, per_user: int) -> Comparisons:
            user = np.repeat(np.arange(count), per_user)
            pair = np.concatenate([rng.choice(num_pairs, per_user, replace=False) for _ in range(count)])
            own = user % 2
            return Comparisons(user, 2 * pair + own, 2 * pair + 1 - own)

        responses = ResponseTable(["prompt"] * (2 * num_pairs), [f"text {row}" for row in range(2 * num_pairs)])
        trained = NodeEmbeddings(
            tuple(f"seen {row}" for row in range(num_users)),
            responses.keys,
            torch.tensor(users, dtype=torch.float32),
            torch.tensor(table, dtype=torch.float32),
            torch.tensor(0.1 * rng.normal(size=2 * num_pairs), dtype=torch.float32),
            votes(num_users, 6),
        )
        newcomers = UserTable.ungrouped([f"new {row}" for row in range(num_newcomers)])
        return ComparisonSet(newcomers, responses, votes(num_newcomers, support)), trained

    return make
