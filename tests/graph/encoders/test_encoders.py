"""What the encoders promise on graphs of any kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.errors import OptionsError, TrainingError
from copl.graph.encoders import mf
from copl.graph.training import BestState, ComparisonTensors, Judgement, held_out, learnable, node_embeddings
from copl.options import parse_options
from copl.plugins import load
from copl.records import Comparisons, PreferenceGraph
from copl.system.progress import SilentProgress

ALL = [load().registry("encoder").get(name).component for name in ("gcf", "mf", "latent-groups", "stacked")]
GCF, MF = ALL[:2]
QUICK = {
    "gcf": {"num_epochs": 6, "validate_every": 2, "start": "spectral"},
    "mf": {"num_steps": 6, "precision": [1.0]},
    "latent-groups": {"num_groups": [2], "group_precision": [0.5], "power": [1.0], "num_rounds": 5},
    "stacked": {"members": ["latent-groups"]},
}


def build(component, **values):
    return component.build(parse_options(component.options, values, where=component.name))


def graph_of(num_users, num_responses, comparisons, validation=None):
    return PreferenceGraph(
        tuple(f"u{row}" for row in range(num_users)),
        tuple(f"r{row}" for row in range(num_responses)),
        comparisons,
        validation if validation is not None else Comparisons.empty(),
    )


def planted(num_users=100, num_pairs=40, per_user=9, seed=0):
    """Two groups that disagree on half of the pairs (2p, 2p + 1); returns the graph and held-out comparisons."""
    rng = np.random.default_rng(seed)
    group = np.arange(num_users) % 2
    winner = rng.integers(0, 2, num_pairs)
    flips = np.arange(num_pairs) % 2
    user = np.repeat(np.arange(num_users), per_user + 6)
    pair = np.concatenate([rng.choice(num_pairs, per_user + 6, replace=False) for _ in range(num_users)])
    won = winner[pair] ^ (flips[pair] & group[user])
    rows = Comparisons(user, 2 * pair + won, 2 * pair + 1 - won)
    place = np.tile(np.arange(per_user + 6), num_users)
    graph = graph_of(
        num_users, 2 * num_pairs, rows.take(place < per_user), rows.take((place >= per_user) & (place < per_user + 2))
    )
    return graph, rows.take(place >= per_user + 2)


def accuracy(embeddings, rows):
    margins = ComparisonTensors.of(rows).margins(embeddings.users, embeddings.responses, embeddings.response_bias)
    return float((margins > 0).float().mean())


def consensus(graph, rows):
    counts = np.bincount(graph.comparisons.chosen, minlength=graph.num_responses)
    counts = counts - np.bincount(graph.comparisons.rejected, minlength=graph.num_responses)
    return float((counts[rows.chosen] > counts[rows.rejected]).mean())


class Recorded:
    def __init__(self):
        self.records = []
        self._silent = SilentProgress()

    def task(self, name, total=None):
        return self._silent.task(name, total)

    def log(self, stage, **values):
        self.records.append((stage, values))


@pytest.fixture(params=ALL, ids=lambda c: c.name)
def component(request):
    return request.param


def quick_fit(component, graph, seed=0, **values):
    return build(component, **QUICK[component.name], **values).fit(graph, seed=seed, progress=SilentProgress())


def test_default_finds_the_groups(component):
    graph, heldout = planted()
    embeddings = build(component).fit(graph, seed=0, progress=SilentProgress())
    assert consensus(graph, heldout) < 0.8
    assert accuracy(embeddings, heldout) > 0.93


@pytest.mark.parametrize("name", ["lightgcn", "ngcf", "signed-gcn", "gat"])
def test_defaults_of_other_networks_find_the_groups(name):
    graph, heldout = planted(num_users=40, num_pairs=16)
    component = load().registry("encoder").get(name).component
    embeddings = build(component).fit(graph, seed=0, progress=SilentProgress())
    assert all(values.isfinite().all() for values in (embeddings.users, embeddings.responses, embeddings.response_bias))
    assert accuracy(embeddings, heldout) > max(consensus(graph, heldout) + 0.05, 0.75)


@pytest.mark.parametrize(
    "values",
    [
        {"formula": "paper"},
        {"formula": "paper", "weights": "separate", "negative_edges": False},
        {"formula": "paper", "hadamard": False},
        {"weights": "separate"},
        {"negative_edges": False},
        {"hadamard": False, "edge_dropout": 0.1, "batch_size": 300, "sampling": "field", "supervision_share": 0.0},
    ],
    ids=str,
)
def test_gcf_variants_learn(values):
    graph, heldout = planted()
    encoder = build(GCF, num_epochs=50, start="spectral", **values)
    assert accuracy(encoder.fit(graph, seed=0, progress=SilentProgress()), heldout) > 0.8


def test_published_settings_run_in_small():
    graph, _ = planted(num_users=30)
    small = {**GCF.presets["paper"], "embedding_dim": 8, "num_epochs": 2, "batch_size": 64}
    embeddings = build(GCF, **small).fit(graph, seed=0, progress=SilentProgress())
    torch.testing.assert_close(embeddings.users.norm(dim=1), torch.ones(30))
    assert not embeddings.response_bias.any()


def test_published_settings():
    options = parse_options(GCF.options, GCF.presets["paper"], where="gcf")
    assert (options.embedding_dim, options.num_layers, options.batch_size) == (512, 4, 1024)
    assert (options.learning_rate, options.num_epochs, options.edge_dropout) == (1e-4, 100, 0.1)
    assert (options.supervision_share, options.precision, options.start) == (0.0, 0.0, "random")
    assert options.sampling == "field"


def test_normalised_users_with_response_effects_are_refused():
    with pytest.raises(OptionsError, match="response_bias"):
        build(GCF, normalize_users=True)


def test_repeats_itself_and_leaves_global_randomness_alone(component):
    graph, _ = planted(num_users=20)
    state = torch.random.get_rng_state()
    first = quick_fit(component, graph, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    second = quick_fit(component, graph, seed=4)
    for name in ("users", "responses", "response_bias"):
        assert torch.equal(getattr(first, name), getattr(second, name))


@settings(max_examples=15)
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
    comparisons = Comparisons(*drawn[:, :3].astype(np.int64).T, drawn[:, 3])
    for component in ALL:
        embeddings = quick_fit(component, graph_of(num_users, num_responses, comparisons))
        assert embeddings.users.shape == (num_users, embeddings.dim)
        assert embeddings.responses.shape == (num_responses, embeddings.dim)
        for tensor in (embeddings.users, embeddings.responses, embeddings.response_bias):
            assert torch.isfinite(tensor).all()
            assert not tensor.requires_grad


@pytest.mark.parametrize(("users", "responses"), [(0, 0), (2, 0), (2, 3)])
def test_without_comparisons_all_is_zero(component, users, responses):
    embeddings = quick_fit(component, graph_of(users, responses, Comparisons.empty()))
    assert embeddings.users.shape == (users, embeddings.dim)
    assert not embeddings.users.any()
    assert not embeddings.responses.any()
    assert not embeddings.response_bias.any()


def test_a_user_who_only_contradicts_leans_to_neither(component):
    # the first user says both, the second clearly prefers response 0; the first is never the surer of it
    rows = Comparisons([0, 0, 1, 1, 1], [0, 1, 0, 0, 0], [1, 0, 1, 1, 1])
    embeddings = build(component).fit(graph_of(2, 2, rows, rows), seed=0, progress=SilentProgress())
    ask = ComparisonTensors.of(Comparisons([0, 1], [0, 0], [1, 1]))
    torn, clear = ask.margins(embeddings.users, embeddings.responses, embeddings.response_bias)
    assert torn.abs() <= clear + 1e-6


def test_curves_are_logged(component):
    progress = Recorded()
    build(component, **QUICK[component.name]).fit(planted(num_users=10)[0], seed=0, progress=progress)
    assert progress.records
    for stage, values in progress.records:
        assert stage.startswith("graph")
        (accuracy,) = [value for name, value in values.items() if name.endswith("accuracy")]
        assert 0 <= accuracy <= 1
        assert all(value > 0 for name, value in values.items() if name.endswith("loss"))


def test_the_graph_keeps_all_its_comparisons(component):
    graph, _ = planted(num_users=10)
    assert quick_fit(component, graph).comparisons is graph.comparisons


@pytest.mark.parametrize("component", [GCF, MF], ids=lambda c: c.name)
def test_too_high_a_learning_rate_is_told(component):
    graph, _ = planted(num_users=10)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        quick_fit(component, graph, learning_rate=1e30)


def test_no_nan_leaves():
    with pytest.raises(TrainingError):
        node_embeddings(
            graph_of(1, 1, Comparisons.empty()), torch.tensor([[np.nan]]), torch.zeros(1, 1), torch.zeros(1)
        )


def test_holds_out_a_tenth_where_there_is_no_validation():
    user = np.repeat(np.arange(10), 10)
    rows = Comparisons(user, np.arange(100) % 7, np.arange(100) % 7 + 1)
    train, held = learnable(graph_of(10, 8, rows), seed=0)
    assert (len(train), len(held)) == (90, 10)
    assert set(train.user.tolist()) == set(range(10))
    assert learnable(graph_of(10, 8, rows), seed=0)[1].user.tolist() == held.user.tolist()
    assert learnable(graph_of(10, 8, rows), seed=1)[1].user.tolist() != held.user.tolist()


def test_given_validation_is_used_as_it_is():
    rows, validation = Comparisons([0, 0], [0, 1], [1, 2]), Comparisons([0], [0], [2])
    train, held = learnable(graph_of(1, 3, rows, validation), seed=0)
    assert len(train) == 2
    assert held.rejected.tolist() == [2]


def test_scarce_validation_is_joined_by_a_tenth_of_the_comparisons():
    user = np.repeat(np.arange(10), 10)
    rows = Comparisons(user, np.arange(100) % 7, np.arange(100) % 7 + 1)
    few, enough = rows.take(np.arange(9)), rows.take(np.arange(10))
    train, held = held_out(graph_of(10, 8, rows, few), seed=0)
    assert (len(train), len(held)) == (90, 19)
    train, held = held_out(graph_of(10, 8, rows, enough), seed=0)
    assert (len(train), len(held)) == (100, 10)
    train, held = held_out(graph_of(10, 8, rows), seed=0)
    assert (len(train), len(held)) == (90, 10)


def test_margins_by_hand():
    asked = ComparisonTensors.of(Comparisons([1], [0], [2], [5.0]))
    users, responses = torch.tensor([[9.0, 9.0], [1.0, 2.0]]), torch.tensor([[3.0, 1.0], [0.0, 0.0], [1.0, -1.0]])
    # (1, 2) . (2, 2) + 0.5 - 0.25
    assert asked.margins(users, responses, torch.tensor([0.5, 7.0, 0.25])).tolist() == [6.25]
    assert float(asked.loss(torch.tensor([0.0]))) == pytest.approx(np.log(2))
    assert float(asked.squared_norms(users, responses)) == pytest.approx(5 + 10 + 2)


def test_judged_at_the_best_scale():
    asked = ComparisonTensors.of(Comparisons([0] * 4, [0] * 4, [1] * 4))
    margins = torch.tensor([1.0, 1.0, 1.0, -1.0])  # right three times in four: log odds ln 3
    judgement = Judgement.of(asked, 10 * margins)
    assert judgement.scale == pytest.approx(np.log(3) / 10, rel=0.13)
    assert judgement.loss == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), abs=2e-3)
    assert judgement.accuracy == 0.75


def test_best_state_keeps_the_best_and_stops():
    best, value = BestState(patience=2), torch.zeros(1)
    losses, kept = [3.0, 1.0, 2.0, 2.5], []
    for number, loss in enumerate(losses):
        value.fill_(number)
        kept.append(best.offer(Judgement(loss, 2.0**number, 0.5), {"value": value}))
    assert kept == [True, True, True, False]
    assert float(best.tensors["value"]) == 1.0
    assert best.scale == 2.0


@settings(max_examples=15)
@given(seed=st.integers(0, 99), num=st.integers(1, 30))
def test_margins_of_mf_by_matrices_are_those_by_rows(seed, num):
    rng = np.random.default_rng(seed)
    rows = ComparisonTensors.of(Comparisons(rng.integers(0, 6, num), rng.integers(0, 5, num), rng.integers(0, 5, num)))
    tables = [torch.from_numpy(rng.normal(size=size)).float().requires_grad_() for size in ((6, 3), (5, 3), (5,))]
    found, expected = mf.Differences.of(rows, 6, 5).margins(*tables), rows.margins(*tables)
    torch.testing.assert_close(found, expected)
    near, far = (torch.autograd.grad(margins.square().sum(), tables) for margins in (found, expected))
    for one, other in zip(near, far, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
