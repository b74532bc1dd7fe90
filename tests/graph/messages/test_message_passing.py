"""What the encoders that pass messages promise, each on graphs of any kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.errors import DataError, OptionsError, TrainingError
from copl.graph.encoders import lightgcn, ngcf
from copl.graph.messages.message_graph import MessageGraph
from copl.graph.training import ComparisonTensors
from copl.options import parse_options
from copl.plugins import load
from copl.records import Comparisons, PreferenceGraph
from copl.system.progress import SilentProgress
from copl.testing.planted import accuracy, bare_graph, planted_graph

COMPONENTS = [load().registry("encoder").get(name).component for name in ("lightgcn", "ngcf", "signed-gcn", "gat")]
QUICK = {"num_epochs": 4, "validate_every": 2, "embedding_dim": 4}
COLD = 6  # the last responses of `told_by_text` are never compared in training


@pytest.fixture(params=COMPONENTS, ids=lambda c: c.name)
def component(request):
    return request.param


def fit(component, graph, seed=0, **values):
    encoder = component.build(parse_options(component.options, values, where=component.name))
    return encoder.fit(graph, seed=seed, progress=SilentProgress())


def tensors(embeddings):
    return embeddings.users, embeddings.responses, embeddings.response_bias


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"sampling": "field", "batch_size": 90},
        {"sampling": "users", "batch_size": 40},
        {"start": "random", "supervision_share": 0.2},
        {"start": "mf"},
    ],
    ids=str,
)
def test_finds_the_groups(component, values):
    case = planted_graph()
    embeddings = fit(component, case.graph, num_epochs=15, **values)
    assert accuracy(embeddings, embeddings.users, case.heldout) > 0.9


@pytest.mark.parametrize("values", [{"negative_edges": False}, {"response_bias": False}, {"num_layers": 1}], ids=str)
def test_ablations_learn(values):
    case = planted_graph()
    for component in COMPONENTS[:2]:
        embeddings = fit(component, case.graph, num_epochs=60, **values)
        assert accuracy(embeddings, embeddings.users, case.heldout) > 0.85
        assert embeddings.response_bias.any() == values.get("response_bias", True)


@settings(max_examples=6)
@given(st.data())
def test_any_graph_gives_finite_embeddings(data):
    num_users, num_responses = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    rows = st.tuples(
        st.integers(0, num_users - 1),
        st.integers(0, num_responses - 1),
        st.integers(0, num_responses - 1),
        st.sampled_from([0.0, 1.0, 3.0]),
    )
    drawn = np.array(data.draw(st.lists(rows, max_size=8))).reshape(-1, 4)
    graph = bare_graph(num_users, num_responses, Comparisons(*drawn[:, :3].astype(np.int64).T, drawn[:, 3]))
    sampling = data.draw(st.sampled_from(["full", "field", "users"]))
    for component in COMPONENTS:
        embeddings = fit(component, graph, sampling=sampling, batch_size=2, **QUICK)
        assert embeddings.users.shape == (num_users, embeddings.dim)
        assert embeddings.responses.shape == (num_responses, embeddings.dim)
        for tensor in tensors(embeddings):
            assert torch.isfinite(tensor).all()
            assert not tensor.requires_grad


@pytest.mark.parametrize(("users", "responses"), [(0, 0), (2, 0), (2, 3)])
def test_without_comparisons_all_is_zero(component, users, responses):
    embeddings = fit(component, bare_graph(users, responses, Comparisons.empty()), **QUICK)
    assert embeddings.users.shape[0] == users
    assert embeddings.responses.shape == (responses, embeddings.dim)
    assert not any(tensor.any() for tensor in tensors(embeddings))


def test_width_is_the_same_with_and_without_comparisons(component):
    bare = fit(component, bare_graph(2, 3, Comparisons.empty()), **QUICK)
    assert fit(component, bare_graph(2, 3, Comparisons([0], [0], [1])), **QUICK).dim == bare.dim


@pytest.mark.parametrize("sampling", ["full", "field", "users"])
def test_repeats_itself_and_leaves_global_randomness_alone(component, sampling):
    graph, quick = planted_graph().graph, {**QUICK, "sampling": sampling, "batch_size": 30}
    state = torch.random.get_rng_state()
    first = fit(component, graph, seed=4, **quick)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    second = fit(component, graph, seed=4, **quick)
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))


def test_too_high_a_learning_rate_is_told(component):
    with pytest.raises(TrainingError, match="lower the learning rate"):
        fit(component, planted_graph().graph, learning_rate=1e30, num_epochs=10)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("signed-gcn", {"embedding_dim": 5}, "even"),
        ("gat", {"embedding_dim": 5}, "num_heads must divide"),
        ("lightgcn", {"num_neighbours": 0}, "num_neighbours"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, values, message):
    (component,) = [c for c in COMPONENTS if c.name == name]
    with pytest.raises(OptionsError, match=message):
        parse_options(component.options, values, where=name)


def edges_of_one_comparison():
    return MessageGraph(Comparisons([0], [0], [1]), 1, 2).whole()


def test_lightgcn_by_hand():
    network = lightgcn.LightGcnNetwork(lightgcn.LightGcnOptions(embedding_dim=1, num_layers=2))
    # user 1 with chosen 2 and rejected 3: layer 1 is (2 - 3, 1, -1), layer 2 is (1 + 1, -1, 1); means with layer 0
    found = network(torch.tensor([[1.0], [2.0], [3.0]]), [edges_of_one_comparison()] * 2)
    torch.testing.assert_close(found, torch.tensor([[1 - 1 + 2.0], [2 + 1 - 1.0], [3 - 1 + 1.0]]) / 3)


def test_ngcf_layer_by_hand():
    layer = ngcf.NgcfLayer(1, negative_edges=True)
    with torch.no_grad():
        for linear, value in zip((layer.plain, layer.product, *layer.rejected), (2.0, 3.0, 5.0, 7.0), strict=True):
            linear.weight.fill_(value)
    found = layer(torch.tensor([[1.0], [2.0], [3.0]]), edges_of_one_comparison())
    user = 2 * (1 + 2) + 3 * (2 * 1) - 5 * 3 - 7 * (3 * 1)
    chosen, rejected = 2 * (2 + 1) + 3 * (1 * 2), 2 * 3 - 5 * 1 - 7 * (1 * 3)
    torch.testing.assert_close(found, torch.tensor([[0.2 * user], [float(chosen)], [0.2 * rejected]]))


def told_by_text(seed=0):
    """Users of two groups who like opposite things that the features tell; the last responses are never compared."""
    rng = np.random.default_rng(seed)
    num_users, num_responses = 40, 30
    features = rng.normal(size=(num_responses, 5))
    taste = np.where(np.arange(num_users) % 2, 1.0, -1.0)
    user = np.repeat(np.arange(num_users), 14)

    def compare(pool):
        pairs = np.array([rng.choice(pool, 2, replace=False) for _ in user])
        gap = taste[user] * (features[pairs[:, 0], 0] - features[pairs[:, 1], 0])
        chosen, rejected = np.where(gap > 0, pairs.T, pairs.T[::-1])
        return Comparisons(user, chosen, rejected)

    graph = PreferenceGraph(
        tuple(f"u{row}" for row in range(num_users)),
        tuple(f"r{row}" for row in range(num_responses)),
        compare(np.arange(num_responses - COLD)),
        response_features=torch.from_numpy(features).float(),
    )
    return graph, compare(np.arange(num_responses - COLD, num_responses))


def test_features_place_responses_that_nobody_compared(component):
    graph, cold = told_by_text()
    told = fit(component, graph, num_epochs=80, response_features=True)
    assert accuracy(told, told.users, cold) > 0.8


def test_without_features_responses_that_nobody_compared_are_all_alike():
    graph, cold = told_by_text()
    plain = fit(COMPONENTS[0], graph, num_epochs=20)
    assert not ComparisonTensors.of(cold).margins(*tensors(plain)).any()


def test_features_work_with_parts_of_the_graph():
    graph, cold = told_by_text()
    told = fit(COMPONENTS[0], graph, num_epochs=80, response_features=True, sampling="users", batch_size=200)
    assert accuracy(told, told.users, cold) > 0.8


def test_features_that_are_not_there_are_told(component):
    with pytest.raises(DataError, match="without features"):
        fit(component, bare_graph(1, 2, Comparisons([0], [0], [1])), response_features=True)


def test_features_are_not_used_unless_asked_for(component):
    graph, _ = told_by_text()
    without = PreferenceGraph(graph.user_ids, graph.response_keys, graph.comparisons)
    for found, other in zip(
        tensors(fit(component, graph, **QUICK)), tensors(fit(component, without, **QUICK)), strict=True
    ):
        assert torch.equal(found, other)
