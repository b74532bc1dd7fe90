"""The weights of stacked encoders, and that what adds nothing is left out."""

from __future__ import annotations

import attrs
import numpy as np
import torch

from copl.graph.encoders import stacked
from copl.graph.training import ComparisonTensors
from copl.options import parse_options
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.system.progress import SilentProgress


def build(**values):
    return stacked.Stacked(parse_options(stacked.StackedOptions, values, where="stacked"))


def member(users, graph):
    """Embeddings whose margin of (0, 1) is 1 for users of value +1 and -1 for users of value -1."""
    users = torch.tensor(users)[:, None]
    responses = torch.tensor([[0.5], [-0.5]])
    return NodeEmbeddings(graph.user_ids, graph.response_keys, users, responses, torch.zeros(2), graph.comparisons)


def opinions(num_users=400, agreeing=0.75):
    rng = np.random.default_rng(0)
    kind = np.where(np.arange(num_users) % 2, 1.0, -1.0)
    flip = rng.permutation(num_users) >= agreeing * num_users
    first = np.where(flip, -kind, kind) > 0
    rows = Comparisons(np.arange(num_users), np.where(first, 0, 1), np.where(first, 1, 0))
    graph = PreferenceGraph(tuple(map(str, range(num_users))), ("a", "b"), rows)
    return graph, kind.astype(np.float32)


def test_the_weight_makes_margins_log_odds():
    graph, kind = opinions()
    judge = ComparisonTensors.of(graph.comparisons)
    loss, accuracy, weights = build(shrinkage=0)._weigh([member(kind, graph)], judge)
    np.testing.assert_allclose(weights, [np.log(3)], rtol=1e-3)
    assert accuracy == 0.75
    np.testing.assert_allclose(loss, -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), rtol=1e-6)


def test_a_member_that_misleads_gets_no_weight():
    graph, kind = opinions()
    liked_first = graph.comparisons.chosen == 0
    # right of one user in three, as often among those of whom the other member is right as among the rest
    right = np.zeros(400, dtype=bool)
    for agrees in (True, False):
        of = np.flatnonzero((kind > 0) == liked_first if agrees else (kind > 0) != liked_first)
        right[of[: len(of) // 3]] = True
    misleading = np.where(right == liked_first, 1.0, -1.0).astype(np.float32)
    judge = ComparisonTensors.of(graph.comparisons)
    weights = build(shrinkage=0)._weigh([member(kind, graph), member(misleading, graph)], judge)[2]
    np.testing.assert_allclose(weights, [np.log(3), 0], atol=1e-3)


def test_shrinkage_draws_to_equal_weights():
    graph, kind = opinions(num_users=4)
    judge = ComparisonTensors.of(graph.comparisons)
    weights = build(shrinkage=1e6)._weigh([member(kind, graph), member(-kind, graph)], judge)[2]
    np.testing.assert_allclose(weights, [0.5, 0.5], atol=1e-4)


def test_members_lie_side_by_side_with_their_margins_added():
    graph, kind = opinions(num_users=6)
    members = [member(kind, graph), member(-2 * kind, graph)]
    joined = stacked._side_by_side(graph, dict(zip(("mf", "gcf"), members, strict=True)), np.array([2.0, 0.25]), {})
    asked = ComparisonTensors.of(graph.comparisons)
    expected = sum(
        w * asked.margins(m.users, m.responses, m.response_bias) for w, m in zip([2, 0.25], members, strict=True)
    )
    torch.testing.assert_close(asked.margins(joined.users, joined.responses, joined.response_bias), expected)
    assert joined.dim == 2


class Recorded:
    def __init__(self):
        self.records = []
        self._silent = SilentProgress()

    def task(self, name, total=None):
        return self._silent.task(name, total)

    def log(self, stage, **values):
        if stage.endswith("stacking"):
            self.records.append(values)


def test_dearer_members_are_not_tried_when_one_adds_nothing():
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(40), 12)
    pair = np.concatenate([rng.choice(20, 12, replace=False) for _ in range(40)])
    won = (pair + user * (pair % 2)) % 2
    rows, place = Comparisons(user, 2 * pair + won, 2 * pair + 1 - won), np.tile(np.arange(12), 40)
    ids = tuple(map(str, range(40))), tuple(map(str, range(40)))
    graph = PreferenceGraph(*ids, rows.take(place < 9), rows.take(place >= 9))
    progress = Recorded()
    found = build(worthwhile=0.9).fit(graph, seed=0, progress=progress)
    assert [record["member"] for record in progress.records] == ["latent-groups", "mf"]
    alone = build(members=["latent-groups"]).fit(graph, seed=0, progress=SilentProgress())
    torch.testing.assert_close(found.users, alone.users)
    large = build(max_comparisons=10).fit(graph, seed=0, progress=SilentProgress())
    torch.testing.assert_close(large.users, alone.users)


def members_of(graph, **options):
    return build(**options).fit(graph, seed=0, progress=SilentProgress()).memory.facts["members"]


def test_too_few_held_out_weigh_nothing_and_tastes_stand_alone():
    graph, _ = opinions()
    graph = attrs.evolve(graph, response_features=torch.eye(2), validation=graph.comparisons.take(np.arange(400) < 40))
    assert members_of(graph, members=["tastes", "latent-groups"], least_held_out=41) == ["tastes"]
    assert "latent-groups" in members_of(graph, members=["tastes", "latent-groups"], least_held_out=40)


def test_too_few_held_out_and_no_texts_leave_the_first_member():
    graph, _ = opinions()
    assert members_of(graph, members=["latent-groups", "mf"], least_held_out=41) == ["latent-groups"]
