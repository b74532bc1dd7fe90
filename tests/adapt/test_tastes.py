"""Newcomers among tastes in texts, and users whose texts nobody else has read."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from copl.adapt.laplace import group_posteriors, posterior_margins, posterior_modes
from copl.adapt.online import RunningEstimate
from copl.adapt.strategies.catalogue import EmpiricalOptions
from copl.adapt.strategies.empirical import Empirical
from copl.adapt.strategies.encode import Encode
from copl.adapt.support import match
from copl.adapt.tastes import tastes_of
from copl.graph.encoders.catalogue import TastesOptions
from copl.graph.encoders.tastes import Tastes
from copl.options import NoOptions
from copl.records import (
    Comparisons,
    ComparisonSet,
    NodeEmbeddings,
    PreferenceGraph,
    ResponseTable,
    UserTable,
)
from copl.records.passes import GroupPass, MemberPass, SideBySidePass, TastePass, TextMap
from copl.system.progress import SilentProgress

SIZE = 5
TASTE = TastePass(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.5, 0.5]))


def texts_of(prefix: str, count: int) -> ResponseTable:
    return ResponseTable(["p"] * count, [f"{prefix} {row}" for row in range(count)])


def chosen_by(
    user: np.ndarray, tastes: np.ndarray, features: torch.Tensor, first: np.ndarray, second: np.ndarray
) -> Comparisons:
    """What users with these tastes choose, without error."""
    won = ((features[first] - features[second]).numpy() * tastes[user]).sum(1) > 0
    return Comparisons(user, np.where(won, first, second), np.where(won, second, first))


class World:
    """Users with a taste in any direction of the texts; no two of them read the same text."""

    def __init__(self, num_users: int = 60, per_user: int = 16, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        count = num_users * per_user
        self.tastes = rng.normal(size=(num_users, SIZE))
        features = torch.from_numpy(rng.normal(size=(2 * count, SIZE))).float()
        user = np.repeat(np.arange(num_users), per_user)
        rows = chosen_by(user, self.tastes, features, np.arange(count), count + np.arange(count))
        ids = tuple(f"seen {row}" for row in range(num_users))
        graph = PreferenceGraph(ids, texts_of("old", 2 * count).keys, rows, Comparisons.empty(), features)
        self.trained = Tastes(TastesOptions()).fit(graph, seed=0, progress=SilentProgress())


def support_of(features: torch.Tensor, rows: Comparisons, users: list[str], prefix: str = "new") -> ComparisonSet:
    return ComparisonSet(UserTable.ungrouped(users), texts_of(prefix, len(features)), rows, features)


def empirical() -> Empirical:
    return Empirical(EmpiricalOptions())


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def small() -> NodeEmbeddings:
    """Three coordinates of taste, doubled, and two of two groups; texts say where all lie."""
    generator = torch.Generator().manual_seed(0)
    responses = torch.randn(10, 5, generator=generator)
    bias = torch.randn(10, generator=generator)
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    tastes = torch.cat([torch.ones(8, 1), torch.randn(8, 2, generator=generator)], dim=1)
    users = torch.cat([2 * tastes, points[torch.arange(8) % 2]], dim=1)
    members = (
        MemberPass(TASTE, 2.0, torch.zeros(10)),
        MemberPass(GroupPass(points, torch.tensor([0.5, 0.5]).log()), 1.0, bias),
    )
    weight = torch.randn(4, 6, generator=generator)
    text_map = TextMap(torch.zeros(4), torch.ones(4), torch.zeros(0, 4), weight, torch.zeros(6))
    rows = Comparisons(np.arange(8), np.arange(8), np.arange(8) + 1)
    keys = texts_of("old", 10).keys
    ids = tuple(f"seen {row}" for row in range(8))
    return NodeEmbeddings(
        ids, keys, users, responses, bias, rows, newcomer_pass=SideBySidePass(members), text_map=text_map
    )


# ---------------------------------------------------------------- the closed forms


def test_a_diagonal_prior_is_that_matrix(small: NodeEmbeddings) -> None:
    told = match(support_of(torch.randn(6, 4), Comparisons([0, 0, 1], [0, 2, 4], [1, 3, 5]), ["a", "b"]), small)
    scale = torch.linspace(0, 2, 5).double()
    mean = torch.ones(5).double()
    shares, *as_one_group = group_posteriors(told, mean[None], scale, torch.zeros(1).double())
    assert shares.tolist() == [[1.0], [1.0]]
    for found, expected in zip(as_one_group, posterior_modes(told, mean, torch.diag(scale)), strict=True):
        torch.testing.assert_close(found[:, 0], expected)


@given(st.integers(0, 500), st.integers(0, 7))
def test_margins_of_questions_are_those_of_the_dense_posterior(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    trained = NodeEmbeddings(
        (), texts_of("new", 16).keys, torch.zeros(0, 3), torch.randn(16, 3, generator=generator), torch.zeros(16),
        Comparisons.empty(),
    )  # fmt: skip
    said = Comparisons(np.zeros(count, np.int64), 2 * np.arange(count), 2 * np.arange(count) + 1)
    told = match(ComparisonSet(UserTable.ungrouped(["a"]), texts_of("new", 16), said), trained)
    asked = torch.randn(4, 3, generator=generator).double()
    mean, scale = torch.tensor([1.0, 0.0, 0.5]).double(), torch.tensor([0.0, 1.0, 2.0]).double()
    found, variance = posterior_margins(told, mean, scale, asked)
    mode = mean.clone()
    precision = torch.zeros(3, 3).double()
    if count:
        mode = posterior_modes(told, mean, torch.diag(scale))[0][0]
        chance = torch.sigmoid(told.differences @ mode)
        precision = told.differences.T @ (told.differences * (chance * (1 - chance))[:, None])
    root = torch.diag(scale)
    covariance = root @ torch.linalg.inv(torch.eye(3) + root @ precision @ root) @ root
    torch.testing.assert_close(found, asked @ mode)
    torch.testing.assert_close(variance, ((asked @ covariance) * asked).sum(1))


def test_encode_gives_the_most_likely_taste(small: NodeEmbeddings) -> None:
    """Where the slope of the posterior is 0: e = mu + sigma^2 sum of w sigma(-m) differences."""
    own = attrs.evolve(small, users=small.users[:, :3], responses=small.responses[:, :3], newcomer_pass=TASTE)
    asked = ComparisonSet(
        UserTable.ungrouped(["a"]), texts_of("old", 10), Comparisons([0, 0], [3, 5], [1, 2], [1.0, 2.0])
    )
    found = Encode(NoOptions()).adapt(asked, attrs.evolve(own, text_map=None)).embeddings[0].double()
    differences = (own.responses[[3, 5]] - own.responses[[1, 2]]).double()
    bias = (own.response_bias[[3, 5]] - own.response_bias[[1, 2]]).double()
    pull = torch.tensor([1.0, 2.0]) * torch.sigmoid(-(differences @ found + bias))
    expected = TASTE.mean[0] + TASTE.scale.square() * (pull @ differences)
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-5)


def test_empirical_joins_tastes_and_the_seen_users_one_is_like(small: NodeEmbeddings) -> None:
    values = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    asked = support_of(values, Comparisons([0, 0, 1], [0, 2, 4], [1, 3, 5]), ["a", "b"])
    found = empirical().adapt(asked, small)
    told, tastes = match(asked, small), tastes_of(small)
    assert tastes is not None
    own = attrs.evolve(told, differences=told.differences[:, :3], bias=torch.zeros(3).double())
    modes, _ = posterior_modes(own, TASTE.mean[0].double(), torch.diag(TASTE.scale.double()))
    torch.testing.assert_close(found.embeddings[:, :3], 2 * modes.float())
    # the other two coordinates are those of a model that has no others
    assert small.text_map is not None
    rest = attrs.evolve(
        small,
        users=small.users[:, 3:],
        responses=small.responses[:, 3:],
        newcomer_pass=None,
        text_map=attrs.evolve(small.text_map, weight=small.text_map.weight[:, 3:], offset=small.text_map.offset[3:]),
    )
    torch.testing.assert_close(found.embeddings[:, 3:], empirical().adapt(asked, rest).embeddings)
    assert found.how == ("empirical", "empirical")


# ---------------------------------------------------------------- texts nobody else has read


def test_a_text_nobody_has_compared_is_embedded_by_what_it_says(small: NodeEmbeddings) -> None:
    values = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    table = ResponseTable(["p"] * 3, ["new 0", "new 1", "old 4"])
    asked = ComparisonSet(UserTable.ungrouped(["a"]), table, Comparisons([0, 0], [0, 2], [1, 0]), values)
    told = match(asked, small)
    assert small.text_map is not None
    by_text = small.text_map(values).double()
    trained = torch.cat([small.responses[4], small.response_bias[4:5]]).double()
    expected = torch.stack([by_text[0] - by_text[1], trained - by_text[0]])
    torch.testing.assert_close(torch.cat([told.differences, told.bias[:, None]], dim=1), expected)
    # without features there is nothing to know them by: one comparison is left, with an average response
    blind = match(attrs.evolve(asked, features=None), small)
    assert len(blind.newcomer) == 1
    torch.testing.assert_close(blind.differences[0], trained[:-1] - small.responses.double().mean(0))


def test_one_comparison_of_texts_nobody_else_has_seen_moves_a_user_in_the_right_direction(world: World) -> None:
    rng = np.random.default_rng(1)
    count, per_user = 200, 30
    tastes = rng.normal(size=(count, SIZE))
    values = torch.from_numpy(rng.normal(size=(2 * count, SIZE))).float()
    user = np.arange(count)
    said = chosen_by(user, tastes, values, user, count + user)
    names = [f"new {row}" for row in range(count)]
    adapted = empirical().adapt(support_of(values, said, names), world.trained)
    assert set(adapted.how) == {"empirical"}
    assert (adapted.confidence > 0).all()
    assert world.trained.text_map is not None
    mean = world.trained.users.mean(dim=0)
    told = world.trained.text_map(values)[:, :-1]
    difference = told[said.chosen] - told[said.rejected]
    assert ((difference * adapted.embeddings).sum(1) > difference @ mean).all()  # of what they said themselves

    others = torch.from_numpy(rng.normal(size=(2 * count * per_user, SIZE))).float()
    everyone, first = np.repeat(user, per_user), np.arange(count * per_user)
    heldout = chosen_by(everyone, tastes, others, first, first + len(first))
    embedded = world.trained.text_map(others)[:, :-1]
    difference = embedded[heldout.chosen] - embedded[heldout.rejected]
    known = float(((difference * adapted.embeddings[everyone]).sum(1) > 0).double().mean())
    average = float((difference @ mean > 0).double().mean())
    assert known > average + 0.05


def test_of_whom_nothing_is_known_the_confidence_is_0(world: World) -> None:
    values = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(0))
    mute = support_of(values, Comparisons([0, 1], [0, 2], [1, 2], [0.0, 1.0]), ["a", "b"])
    found = empirical().adapt(mute, world.trained)
    assert found.how == ("population", "population")
    assert found.confidence.tolist() == [0.0, 0.0]
    torch.testing.assert_close(found.embeddings, world.trained.users.mean(dim=0).repeat(2, 1))
    user = RunningEstimate("a", world.trained, empirical())
    assert (user.adapted.how, user.adapted.confidence.tolist()) == (("population",), [0.0])


def test_more_seen_users_than_points_of_whom_only_tastes_are_known() -> None:
    """Nothing is left to condense where no other member of the encoder has anything to say, as on islands."""
    many = World(num_users=270, per_user=3)
    values = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(0))
    said = support_of(values, Comparisons([0, 1], [0, 2], [1, 3]), ["a", "b"])
    found = empirical().adapt(said, many.trained)
    assert set(found.how) == {"empirical"}
    few = Empirical(attrs.evolve(EmpiricalOptions(), num_points=None)).adapt(said, many.trained)
    torch.testing.assert_close(found.embeddings, few.embeddings)
    assert (empirical().information(said.of_user("a"), said.of_user("b"), many.trained) > 0).all()


def test_more_comparisons_make_it_surer(world: World) -> None:
    rng = np.random.default_rng(2)
    values = torch.from_numpy(rng.normal(size=(64, SIZE))).float()
    user = RunningEstimate("a", world.trained, empirical())
    sure = []
    for row in range(8):
        said = chosen_by(np.zeros(1, np.int64), world.tastes, values, np.array([row]), np.array([row + 32]))
        sure.append(float(user.add(support_of(values, said, ["a"])).confidence[0]))
    assert sure == sorted(sure)
    assert 0 < sure[0] < sure[-1] < 1


def test_a_question_about_new_texts_is_worth_something_where_something_can_be_learnt(world: World) -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(4, SIZE, generator=generator)
    values[3] = values[2]
    questions = support_of(values, Comparisons([0, 0], [0, 2], [1, 3]), ["a"])
    user = RunningEstimate("a", world.trained, empirical())
    told, nothing = user.information(questions)
    assert 0 < told <= 1
    assert nothing == pytest.approx(0, abs=1e-6)  # two texts that read the same
    user.add(attrs.evolve(questions, comparisons=Comparisons([0], [0], [1], [5.0])))
    assert user.information(questions)[0] < told / 2
    blind = attrs.evolve(questions, features=None)
    assert RunningEstimate("a", world.trained, empirical()).information(blind).tolist() == [0.0, 0.0]


def test_texts_are_read_once_and_remembered(world: World) -> None:
    values = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(4))
    calls: list[int] = []

    def read(comparisons: ComparisonSet) -> ComparisonSet:
        calls.append(len(comparisons))
        return attrs.evolve(comparisons, features=values)

    user = RunningEstimate("a", world.trained, empirical(), read)
    for chosen, rejected in ((0, 1), (2, 3)):
        unread = support_of(values, Comparisons([0], [chosen], [rejected]), ["a"])
        found = user.add(attrs.evolve(unread, features=None))
    assert calls == [1, 1]
    together = empirical().adapt(support_of(values, Comparisons([0, 0], [0, 2], [1, 3]), ["a"]), world.trained)
    torch.testing.assert_close(found.embeddings, together.embeddings)


def test_a_seen_user_keeps_what_training_knows(world: World) -> None:
    """One comparison against their taste: of 16 in training, at least 15 stay as they were."""
    trained, rng = world.trained, np.random.default_rng(5)
    before, after = [], []
    for row in range(20):
        values = torch.from_numpy(rng.normal(size=(2, SIZE))).float()
        against = chosen_by(np.zeros(1, np.int64), -world.tastes[[row]], values, np.array([0]), np.array([1]))
        adapted = empirical().adapt(support_of(values, against, [f"seen {row}"]), trained)
        own = trained.comparisons.take(trained.comparisons.user == row)
        difference = trained.responses[own.chosen] - trained.responses[own.rejected]
        before.append(int((difference @ trained.users[row] > 0).sum()))
        after.append(int((difference @ adapted.embeddings[0] > 0).sum()))
    assert np.mean(before) >= 15
    assert np.mean(after) >= np.mean(before) - 1


def test_what_a_seen_user_said_in_training_is_added(world: World) -> None:
    trained = world.trained
    own = trained.comparisons.take(trained.comparisons.user == 7)
    table = ResponseTable(["p", "p"], [f"old {own.chosen[0]}", f"old {own.rejected[1]}"])
    pair = ComparisonSet(UserTable.ungrouped(["seen 7"]), table, Comparisons([0], [0], [1], [0.5]))
    told = match(pair, trained)
    assert sorted(told.chosen.tolist()) == sorted([*own.chosen.tolist(), own.chosen[0]])
    assert told.weight.sum() == 16.5
    assert len(match(pair, trained, with_training=False).newcomer) == 1
