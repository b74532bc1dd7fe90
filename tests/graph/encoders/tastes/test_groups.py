"""Groups of users along the directions of taste, against plain computations."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

from copl.graph.encoders.catalogue import TastesOptions
from copl.graph.encoders.tastes import Tastes
from copl.graph.encoders.tastes.groups import TasteGroups, find_groups, tastes
from copl.graph.encoders.tastes.users import Evidence
from copl.graph.training import ComparisonTensors
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.records.passes import TastePass
from copl.system.progress import SilentProgress

CORNERS = torch.tensor([[1.2, 0.0], [-1.2, 0.0], [0.0, 1.2], [0.0, -1.2]]).double()
TAU2 = 0.5


def answers(places: Tensor, per_user: int, seed: int = 0) -> tuple[Evidence, np.ndarray]:
    """What users at these places choose, of pairs that nobody else has judged; axes say nothing."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(len(places)), per_user)
    along = torch.from_numpy(3 * rng.normal(size=(len(user), places.shape[1])))
    margin = (along * places[user]).sum(1).numpy()
    won = np.where(rng.random(len(user)) < 1 / (1 + np.exp(-margin)), 1.0, -1.0)
    zeros = torch.zeros(len(user), dtype=torch.float64)
    coordinates = along * torch.from_numpy(won)[:, None]
    return Evidence(torch.zeros(len(user), 1), coordinates, zeros, zeros, zeros + 1), user


def test_without_a_choice_there_is_one_group_of_unit_variance() -> None:
    groups, basis = find_groups(*answers(CORNERS.repeat(20, 1), 8), TAU2, (1,))
    assert (len(groups), groups.means.tolist(), groups.scale.tolist()) == (1, [[0.0, 0.0]], [1.0, 1.0])
    assert basis.tolist() == torch.eye(2).tolist()


def test_groups_are_found_by_evidence() -> None:
    places = CORNERS[torch.arange(400) % 4] + 0.1 * torch.randn(400, 2, generator=torch.Generator().manual_seed(1))
    evidence, user = answers(places, 12)
    groups, basis = find_groups(evidence, user, TAU2, (1, 2, 3, 4, 6))
    assert len(groups) == 4
    torch.testing.assert_close(groups.shares, torch.full((4,), 0.25).double(), atol=0.04, rtol=0)
    nearest = torch.cdist(groups.means @ basis.T, CORNERS).min(1)
    assert sorted(nearest.indices.tolist()) == [0, 1, 2, 3]
    assert float(nearest.values.max()) < 0.25
    assert float(groups.scale.max()) < 0.5
    torch.testing.assert_close(basis.T @ basis, torch.eye(2).double())


@pytest.mark.parametrize("numbers", [(1,), (5,), (1, 50)])
def test_no_more_groups_than_there_are_users_to_tell_them_by(numbers: tuple[int, ...]) -> None:
    evidence, user = answers(CORNERS, 3)
    assert len(find_groups(evidence, user, TAU2, numbers)[0]) == 1


def test_a_user_of_two_groups_is_where_numerical_integration_says() -> None:
    """One direction, no axes: the posterior of z is a density on a line. The bound is drawn tight, not exact."""
    evidence, user = answers(torch.tensor([[1.0]]).double(), 6, seed=3)
    groups = TasteGroups(
        torch.tensor([0.3, 0.7]).double(), torch.tensor([[1.5], [-1.0]]).double(), torch.tensor([0.4]).double()
    )
    z = torch.linspace(-6, 6, 20_001).double()
    density = sum(
        share * torch.exp(-((z - mean) ** 2) / (2 * groups.scale**2))
        for share, mean in zip(groups.shares, groups.means, strict=True)
    )
    likelihood = torch.sigmoid(evidence.coordinates * z).prod(0)
    exact = float((z * density * likelihood).sum() / (density * likelihood).sum())
    along, anyhow = tastes(evidence, user, 2, TAU2, groups)
    assert float(along[0, 0]) == pytest.approx(exact, abs=0.05)
    assert along[1].tolist() == pytest.approx([0.3 * 1.5 - 0.7])  # of whom nothing is known
    assert not anyhow.any()


def gathered(
    num_users: int = 120, per_user: int = 14, seed: int = 0, spread: float = 0.0
) -> tuple[PreferenceGraph, Comparisons]:
    """Users of four tastes, no two of whom share a text; of each two comparisons are held out and two tested."""
    rng = np.random.default_rng(seed)
    count = num_users * per_user
    user, first = np.repeat(np.arange(num_users), per_user), np.arange(count)
    features = torch.from_numpy(rng.normal(size=(2 * count, 5))).float()
    taste = 4 * (CORNERS[user % 4] * (1 - spread) + spread * torch.from_numpy(rng.normal(size=(num_users, 2)))[user])
    margin = ((features[:count, :2] - features[count:, :2]) * taste).sum(1).numpy()
    won = rng.random(count) < 1 / (1 + np.exp(-margin))
    rows = Comparisons(user, np.where(won, first, first + count), np.where(won, first + count, first))
    ids = tuple(f"u{n}" for n in range(num_users)), tuple(f"r{n}" for n in range(2 * count))
    place = first % per_user
    train, held = rows.take(place < per_user - 4), rows.take((place >= per_user - 4) & (place < per_user - 2))
    return PreferenceGraph(*ids, train, held, features), rows.take(place >= per_user - 2)


def fit(graph: PreferenceGraph, **options: object) -> NodeEmbeddings:
    return Tastes(attrs.evolve(TastesOptions(), **options)).fit(graph, seed=0, progress=SilentProgress())


def accuracy(learnt: NodeEmbeddings, rows: Comparisons) -> float:
    return float(
        (ComparisonTensors.of(rows).margins(learnt.users, learnt.responses, learnt.response_bias) > 0).double().mean()
    )


@pytest.fixture(scope="module")
def world() -> tuple[PreferenceGraph, Comparisons, NodeEmbeddings]:
    graph, tested = gathered()
    return graph, tested, fit(graph)


def test_users_who_gather_are_known_better_by_their_group(
    world: tuple[PreferenceGraph, Comparisons, NodeEmbeddings],
) -> None:
    graph, tested, learnt = world
    taste = learnt.newcomer_pass
    assert isinstance(taste, TastePass)
    assert len(taste.mean) == 4
    assert float(taste.log_share.exp().sum()) == pytest.approx(1)
    assert taste.mean[:, 0].tolist() == [1.0] * 4
    assert accuracy(learnt, tested) > accuracy(fit(graph, groups=(1,)), tested) + 0.01


def test_users_who_gather_nowhere_form_no_groups() -> None:
    graph, _ = gathered(spread=1.0)
    learnt = fit(graph)
    assert learnt.memory is not None
    assert learnt.memory.facts["groups"] == 1


def test_groups_that_what_is_held_out_does_not_need_are_left_out(
    world: tuple[PreferenceGraph, Comparisons, NodeEmbeddings],
) -> None:
    graph, _, _ = world
    held = graph.validation
    against = attrs.evolve(held, chosen=held.rejected, rejected=held.chosen)
    for validation in (against, Comparisons.empty()):
        learnt = fit(attrs.evolve(graph, validation=validation))
        assert learnt.memory is not None
        assert learnt.memory.facts["groups"] == 1
    given = fit(attrs.evolve(graph, validation=Comparisons.empty()), groups=(4,))
    assert given.memory is not None
    assert given.memory.facts["groups"] == 4


def test_more_directions_only_where_what_is_held_out_needs_them() -> None:
    rng = np.random.default_rng(4)
    num_users, per_user = 150, 16
    count, who = num_users * per_user, np.arange(num_users)
    user, first = np.repeat(who, per_user), np.arange(count)
    features = torch.from_numpy(rng.normal(size=(2 * count, 12))).float()
    differences = (features[:count] - features[count:]).numpy()
    sizes = []
    for num_tastes in (1, 4):
        taste = np.zeros((num_users, 12))
        taste[who, who % num_tastes] = np.where(who // num_tastes % 2, 5, -5)
        won = (differences * taste[user]).sum(1) > 0
        rows = Comparisons(user, np.where(won, first, first + count), np.where(won, first + count, first))
        ids = tuple(f"u{n}" for n in range(num_users)), tuple(f"r{n}" for n in range(2 * count))
        late = first % per_user >= per_user - 4
        learnt = fit(PreferenceGraph(*ids, rows.take(~late), rows.take(late), features))
        assert learnt.memory is not None
        sizes.append(learnt.memory.shared["text"].shape[1] - 1)
    assert sizes == [2, 4]


def test_who_goes_on_keeps_the_groups(world: tuple[PreferenceGraph, Comparisons, NodeEmbeddings]) -> None:
    graph, tested, learnt = world
    grown = attrs.evolve(graph, comparisons=Comparisons.concat([graph.comparisons, tested]))
    after = Tastes(TastesOptions()).fit_from(grown, learnt, seed=0, progress=SilentProgress())
    assert isinstance(after.newcomer_pass, TastePass)
    assert isinstance(learnt.newcomer_pass, TastePass)
    torch.testing.assert_close(after.newcomer_pass.mean, learnt.newcomer_pass.mean)
    same = Tastes(TastesOptions()).fit_from(graph, learnt, seed=0, progress=SilentProgress())
    torch.testing.assert_close(same.users, learnt.users, atol=1e-3, rtol=1e-3)
