from __future__ import annotations

import pytest
import torch

from copl.errors import DataError
from copl.graph.build import build_graph
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable, response_key

TEXTS = ("a", "b", "c", "d", "e")


def data(**splits):
    return PreferenceData(
        "toy",
        UserTable.ungrouped(["ada", "bob", "cyd", "dan"]),
        ResponseTable(["p"] * len(TEXTS), TEXTS),
        splits,
    )


def named(graph, rows):
    """Comparisons as (user id, chosen key, rejected key)."""
    return [
        (graph.user_ids[u], graph.response_keys[c], graph.response_keys[r])
        for u, c, r in zip(rows.user, rows.chosen, rows.rejected, strict=True)
    ]


def test_keeps_those_with_training_comparisons_and_renumbers():
    graph = build_graph(data(train=Comparisons([3, 1, 3], [4, 1, 1], [1, 3, 3])))
    assert graph.user_ids == ("bob", "dan")
    assert graph.response_keys == tuple(response_key("p", text) for text in "bde")
    key = {text: response_key("p", text) for text in TEXTS}
    assert named(graph, graph.comparisons) == [
        ("dan", key["e"], key["b"]),
        ("bob", key["b"], key["d"]),
        ("dan", key["b"], key["d"]),
    ]


def test_validation_outside_the_graph_is_left_out():
    graph = build_graph(
        data(train=Comparisons([0], [0], [1]), validation=Comparisons([0, 2, 0], [1, 0, 2], [0, 1, 0])),
    )
    assert named(graph, graph.validation) == [("ada", response_key("p", "b"), response_key("p", "a"))]


def test_unseen_users_are_not_nodes():
    graph = build_graph(data(train=Comparisons([0], [0], [1]), support=Comparisons([1], [0], [1])))
    assert graph.user_ids == ("ada",)


def test_says_nothing_is_left_out():
    train = Comparisons([0, 0, 1], [0, 2, 3], [1, 2, 4], [1.0, 1.0, 0.0])
    graph = build_graph(data(train=train))
    assert graph.user_ids == ("ada",)
    assert len(graph.comparisons) == 1
    assert graph.num_responses == 2


def test_features_keep_all_responses():
    features = torch.arange(10.0).reshape(5, 2)
    graph = build_graph(data(train=Comparisons([1], [4], [2])), response_features=features)
    assert graph.response_keys == tuple(response_key("p", text) for text in TEXTS)
    assert named(graph, graph.comparisons) == [("bob", response_key("p", "e"), response_key("p", "c"))]
    assert graph.response_features is features


def test_nothing_to_learn_from():
    with pytest.raises(DataError, match="toy: no comparisons to train on"):
        build_graph(data(test=Comparisons([0], [0], [1])))
