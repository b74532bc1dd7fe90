"""Encoders that pass no messages: ``spectral``, ``none`` and ``id``, and the response effects two of them use."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from copl.bradley_terry import mean_log_loss
from copl.graph.effects import best_scale, response_effects
from copl.graph.store import load_embeddings, save_embeddings
from copl.options import parse_options
from copl.plugins import load
from copl.records import Comparisons
from copl.system.progress import SilentProgress
from copl.testing.planted import Planted, accuracy, bare_graph, newcomers, planted_graph

SPECTRAL, NONE, FREE = (load().registry("encoder").get(name).component for name in ("spectral", "none", "id"))


def fit(component, graph, seed=0, **values):
    encoder = component.build(parse_options(component.options, values, where=component.name))
    return encoder.fit(graph, seed=seed, progress=SilentProgress())


def test_all_are_registered():
    names = load().registry("encoder").names()
    assert {"spectral", "none", "id", "lightgcn", "ngcf", "signed-gcn", "gat"} <= set(names)


def test_effects_by_hand():
    # response 0 beats 1 three times in four: 3 sigma(-d) - sigma(d) = precision b with b = d / 2 each way
    train = Comparisons([0, 1, 2, 3], [0, 0, 0, 1], [1, 1, 1, 0])
    found = response_effects(train, train, 3)
    gaps = [
        brentq(lambda d, p=p: 3 / (1 + np.exp(d)) - 1 / (1 + np.exp(-d)) - p * d / 2, 0, 5)
        for p in (0.1, 0.3, 1.0, 3.0, 10.0)
    ]
    loss = [mean_log_loss(np.array([g, g, g, -g]), np.ones(4)) for g in gaps]
    assert found[0] - found[1] == pytest.approx(gaps[int(np.argmin(loss))], abs=1e-3)
    assert found[0] == pytest.approx(-found[1], abs=1e-4)
    assert found[2] == 0


def test_effects_that_do_not_carry_over_are_left_out():
    train, validation = Comparisons([0], [0], [1]), Comparisons([1], [1], [0])
    assert not response_effects(train, validation, 2).any()


def test_best_scale_leaves_out_what_misleads():
    margins, weight = np.array([1.0, 1.0, 1.0, -1.0]), np.ones(4)
    scale, loss = best_scale(margins, np.zeros(4), weight)
    assert scale == pytest.approx(np.log(3), rel=0.3)
    assert loss < np.log(2)
    assert best_scale(-margins, np.zeros(4), weight)[0] == 0


def test_spectral_finds_the_groups():
    case = planted_graph()
    embeddings = fit(SPECTRAL, case.graph)
    assert accuracy(embeddings, embeddings.users, case.heldout) > 0.9


def test_spectral_margins_are_those_of_the_matrix():
    # two users who disagree about two responses: S = [[1, -1], [-1, 1]] / 2, rank 1, singular value 1
    rows = Comparisons([0, 1], [0, 1], [1, 0])
    embeddings = fit(SPECTRAL, bare_graph(2, 2, rows), embedding_dim=1, smoothing=[0])
    margins = embeddings.users @ embeddings.responses.T
    assert margins[0, 0] > 0
    torch.testing.assert_close(margins, margins[0, 0] * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))


def test_none_tells_no_users_apart():
    case = planted_graph()
    embeddings = fit(NONE, case.graph)
    assert embeddings.users.shape == (case.graph.num_users, 1)
    assert not embeddings.users.any()
    assert not embeddings.responses.any()


def test_none_learns_what_all_share():
    rows = Comparisons([0, 1, 2, 0], [0, 0, 0, 1], [1, 1, 2, 2])
    bias = fit(NONE, bare_graph(3, 3, rows)).response_bias
    assert bias[0] > bias[1] > bias[2]


def test_id_is_marked_as_trainable_and_the_mark_is_kept(tmp_path):
    graph = planted_graph().graph
    embeddings = fit(FREE, graph, embedding_dim=5, scale=0.5)
    save_embeddings(embeddings, tmp_path)
    assert load_embeddings(tmp_path).trainable_users
    assert embeddings.users.shape == (graph.num_users, 5)
    assert embeddings.users.std() == pytest.approx(0.5, rel=0.25)
    assert not embeddings.responses.any()


def test_id_takes_nothing_from_the_graph():
    graph = planted_graph().graph
    other = attrs.evolve(graph, comparisons=graph.comparisons.take(np.arange(3)))
    assert torch.equal(fit(FREE, graph).users, fit(FREE, other).users)
    assert not torch.equal(fit(FREE, graph).users, fit(FREE, graph, seed=1).users)


@pytest.mark.parametrize("strategy", ["two-hop", "mean", "posterior", "empirical"])
@pytest.mark.parametrize("component", [NONE, FREE], ids=lambda c: c.name)
def test_newcomers_can_be_placed_where_the_encoder_says_nothing(component, strategy):
    support, _ = newcomers(Planted.make())
    trained = fit(component, planted_graph().graph)
    chosen = load().registry("adapter").get(strategy).component
    adapted = chosen.build(chosen.options()).adapt(support, trained)
    assert len(adapted.user_ids) == 6
    assert torch.isfinite(adapted.embeddings).all()


@settings(max_examples=15)
@given(st.data())
def test_any_graph_gives_finite_embeddings(data):
    num_users, num_responses = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 4))
    rows = st.tuples(
        st.integers(0, max(num_users - 1, 0)),
        st.integers(0, num_responses - 1),
        st.integers(0, num_responses - 1),
        st.sampled_from([0.0, 1.0, 3.0]),
    )
    drawn = np.array(data.draw(st.lists(rows, max_size=8 if num_users else 0))).reshape(-1, 4)
    graph = bare_graph(num_users, num_responses, Comparisons(*drawn[:, :3].astype(np.int64).T, drawn[:, 3]))
    for component in (SPECTRAL, NONE, FREE):
        embeddings = fit(component, graph)
        assert embeddings.users.shape == (num_users, embeddings.dim)
        assert embeddings.responses.shape == (num_responses, embeddings.dim)
        for tensor in (embeddings.users, embeddings.responses, embeddings.response_bias):
            assert torch.isfinite(tensor).all()
