"""Strategies `knn` and `refit` by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from copl.adapt.strategies.catalogue import KnnOptions, RefitOptions
from copl.adapt.strategies.knn import Knn
from copl.adapt.strategies.refit import Refit
from copl.records import Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable

TABLE = ResponseTable(["prompt"] * 4, ["a", "b", "c", "d"])


def trained(users: Any, chosen: list[int], rejected: list[int], responses: Any = None) -> NodeEmbeddings:
    """One training comparison of each user."""
    table = torch.zeros(4, len(users[0])) if responses is None else torch.tensor(responses)
    rows = Comparisons(np.arange(len(chosen)), chosen, rejected)
    ids = tuple(f"seen {row}" for row in range(len(users)))
    return NodeEmbeddings(ids, TABLE.keys, torch.tensor(users), table, torch.zeros(4), rows)


def asked(*pairs: tuple[int, int]) -> ComparisonSet:
    chosen, rejected = zip(*pairs, strict=True)
    return ComparisonSet(UserTable.ungrouped(["new"]), TABLE, Comparisons([0] * len(pairs), chosen, rejected))


def test_knn_weighs_by_cosine() -> None:
    # histories: a - b, a - c, b - a; the newcomer says a - b
    model = trained([[1.0], [3.0], [9.0]], [0, 0, 1], [1, 2, 0])
    found = Knn(KnnOptions()).adapt(asked((0, 1)), model)
    # cosines 1, 1/2 and -1: the last one disagrees and takes no part
    assert float(found.embeddings[0, 0]) == pytest.approx((1 * 1 + 0.5 * 3) / 1.5)
    assert (found.how, found.num_neighbours.tolist()) == (("knn",), [2])
    assert found.confidence[0] == pytest.approx(0.5)


def test_knn_takes_the_most_similar_and_all_that_tie() -> None:
    model = trained([[1.0], [2.0], [6.0], [8.0]], [0, 0, 0, 0], [1, 1, 2, 3])
    found = Knn(KnnOptions(num_neighbours=1)).adapt(asked((0, 1)), model)
    assert float(found.embeddings[0, 0]) == pytest.approx(1.5)
    found = Knn(KnnOptions(num_neighbours=3)).adapt(asked((0, 1)), model)  # the third and the fourth tie
    assert found.num_neighbours.tolist() == [4]


def test_knn_of_contradictions_and_of_disagreement_is_the_population() -> None:
    model = trained([[1.0], [5.0]], [0, 0], [1, 1])
    for pairs in ([(0, 1), (1, 0)], [(1, 0)], [(2, 3)]):
        found = Knn(KnnOptions()).adapt(asked(*pairs), model)
        assert found.how == ("population",)
        assert float(found.embeddings[0, 0]) == pytest.approx(3.0)


def test_refit_reaches_the_optimum_with_many_steps() -> None:
    model = trained([[1.0], [-1.0]], [0, 1], [1, 0], responses=[[2.0], [0.0], [0.0], [0.0]])
    found = Refit(RefitOptions(num_steps=2000, learning_rate=0.02, precision=0.5)).adapt(asked((0, 1)), model)
    place = float(found.embeddings[0, 0])
    # where the pull of the comparison, 2 sigmoid(-2 e), and that of the prior, e / 2, are equal
    assert place / 2 == pytest.approx(2 / (1 + math.exp(2 * place)), abs=1e-4)
    fitted = 1 / (1 + math.exp(-2 * place))
    assert found.confidence[0] == pytest.approx((2 * fitted - 1) / 2, abs=1e-6)


def test_refit_takes_few_steps_of_bounded_length() -> None:
    model = trained([[1.0], [-1.0]], [0, 1], [1, 0], responses=[[2.0], [0.0], [0.0], [0.0]])
    found = Refit(RefitOptions(num_steps=3, learning_rate=0.1)).adapt(asked((0, 1)), model)
    assert 0 < float(found.embeddings[0, 0]) <= 0.3 + 1e-6
