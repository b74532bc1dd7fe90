"""Encoders that go on from what they have learnt: the same from the same graph, nearly what scratch gives from more."""

from __future__ import annotations

from functools import cache

import attrs
import numpy as np
import pytest
import torch

from copl.plugins import load
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.system.progress import SilentProgress
from copl.testing.planted import accuracy

ENCODERS = {
    "mf": {},
    "latent-groups": {},
    "gcf": {},
    "lightgcn": {"num_epochs": 60},
    "tastes": {},
    "stacked": {},
}


@pytest.fixture(scope="module")
def world():
    """A graph of users with tastes in two directions that texts show, and comparisons held out of it."""
    rng = np.random.default_rng(3)
    num_users, num_prompts = 60, 40
    tastes, traits = rng.normal(size=(num_users, 2)), rng.normal(size=(2 * num_prompts, 2))
    user = np.repeat(np.arange(num_users), num_prompts)
    first = 2 * np.tile(np.arange(num_prompts), num_users)
    margin = 2 * np.einsum("nk,nk->n", tastes[user], traits[first] - traits[first + 1])
    won = margin + rng.logistic(size=len(margin)) > 0
    rows = Comparisons(user, np.where(won, first, first + 1), np.where(won, first + 1, first))
    part = rng.permuted(np.tile(np.arange(num_prompts), (num_users, 1)), axis=1).reshape(-1)
    features = torch.from_numpy(np.hstack([traits, 0.1 * rng.normal(size=(len(traits), 4))])).float()
    graph = PreferenceGraph(
        tuple(f"user-{row}" for row in range(num_users)),
        tuple(f"response-{row}" for row in range(2 * num_prompts)),
        rows.take(part < 24),
        rows.take((part >= 24) & (part < 28)),
        features,
    )
    return graph, rows.take(part >= 28)


def build(name):
    return load().registry("encoder").create(name, ENCODERS[name])


def fit(name, graph):
    return build(name).fit(graph, seed=0, progress=SilentProgress())


def go_on(name, graph, former):
    return build(name).fit_from(graph, former, seed=0, progress=SilentProgress())


def earlier(graph):
    """The graph before its last two users came, a tenth of all else, and the first response's comparisons."""
    rows, rng = graph.comparisons, np.random.default_rng(1)
    late = rows.user >= graph.num_users - 2
    keep = ~late & (rng.random(len(rows)) < 0.95) & (rows.chosen > 1) & (rows.rejected > 1)
    validation = graph.validation
    validation = validation.take((validation.user < graph.num_users - 2) & (validation.chosen > 1))
    return attrs.evolve(
        graph,
        user_ids=graph.user_ids[:-2],
        response_keys=graph.response_keys[2:],
        comparisons=shifted(rows.take(keep)),
        validation=shifted(validation),
        response_features=None if graph.response_features is None else graph.response_features[2:],
    )


def shifted(rows):
    return attrs.evolve(rows, chosen=rows.chosen - 2, rejected=rows.rejected - 2)


@pytest.fixture(scope="module")
def scratch(world):
    """Return a function that gives what an encoder learns from the whole graph; learnt once."""
    return cache(lambda name: fit(name, world[0]))


@pytest.fixture(scope="module")
def before(world):
    """Return a function that gives what an encoder learns from the earlier graph; learnt once."""
    return cache(lambda name: fit(name, earlier(world[0])))


def scores(embeddings):
    return embeddings.users @ embeddings.responses.T + embeddings.response_bias


@pytest.mark.parametrize("name", ENCODERS)
def test_from_the_same_graph_comes_the_same(name, world, scratch):
    graph, _ = world
    former = scratch(name)
    again = go_on(name, graph, former)
    assert torch.allclose(scores(again), scores(former), atol=1e-4)
    assert again.dim == former.dim


@pytest.mark.parametrize("name", ENCODERS)
def test_from_fewer_comparisons_comes_nearly_what_scratch_gives(name, world, scratch, before):
    graph, heldout = world
    whole = scratch(name)
    grown = go_on(name, graph, before(name))
    assert grown.user_ids == graph.user_ids
    assert grown.response_keys == graph.response_keys
    assert accuracy(grown, grown.users, heldout) > accuracy(whole, whole.users, heldout) - 0.02
    late = heldout.take(heldout.user >= graph.num_users - 2)
    assert accuracy(grown, grown.users, late) > 0.6  # who came late is known


@pytest.mark.parametrize("name", ["mf", "stacked"])
def test_the_order_of_nodes_does_not_matter(name, world, before):
    graph, _ = world
    former = before(name)
    rng = np.random.default_rng(5)
    users, responses = rng.permutation(graph.num_users), rng.permutation(graph.num_responses)
    new_user, new_response = np.argsort(users), np.argsort(responses)
    assert graph.response_features is not None
    other = attrs.evolve(
        graph,
        user_ids=tuple(graph.user_ids[row] for row in users),
        response_keys=tuple(graph.response_keys[row] for row in responses),
        comparisons=graph.comparisons.renumbered(new_user, new_response),
        validation=graph.validation.renumbered(new_user, new_response),
        response_features=graph.response_features[torch.from_numpy(responses)],
    )
    one, two = scores(go_on(name, graph, former)), scores(go_on(name, other, former))
    assert torch.allclose(one, two[torch.from_numpy(new_user)][:, torch.from_numpy(new_response)], atol=2e-3)


def test_without_validation_comparisons_it_goes_on_too(world):
    graph, heldout = world
    bare = attrs.evolve(graph, validation=Comparisons.empty(), response_features=None)
    former = fit("stacked", attrs.evolve(earlier(bare), validation=Comparisons.empty()))
    grown = go_on("stacked", bare, former)
    assert accuracy(grown, grown.users, heldout) > 0.7


def test_generations(world, scratch):
    """Going on from what went on."""
    graph, heldout = world
    rows = graph.comparisons
    some = attrs.evolve(graph, comparisons=rows.take(np.arange(len(rows)) % 20 > 1))
    most = attrs.evolve(graph, comparisons=rows.take(np.arange(len(rows)) % 20 > 0))
    embeddings: NodeEmbeddings = fit("stacked", some)
    for grown in (most, graph):
        embeddings = go_on("stacked", grown, embeddings)
    whole = scratch("stacked")
    assert accuracy(embeddings, embeddings.users, heldout) > accuracy(whole, whole.users, heldout) - 0.02


@pytest.mark.parametrize("name", ["spectral", "none", "id"])
def test_who_does_not_go_on_says_so(name):
    assert not load().registry("encoder").create(name, {}).continues


def test_tastes_that_do_not_say_how_much_a_response_adds_go_on_by_the_middle(world, before):
    """Runs of the time before the variance was chosen."""
    graph, _ = world
    former = before("tastes")
    grown = [
        go_on("tastes", graph, attrs.evolve(former, memory=attrs.evolve(former.memory, facts=facts)))
        for facts in ({}, {"own": 0.1}, {"own": 0.1, "along": 1.0})
    ]
    assert torch.equal(grown[0].users, grown[1].users)
    assert torch.equal(grown[0].users, grown[2].users)
