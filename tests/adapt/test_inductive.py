"""What the built-in encoders leave for `encode`: passes that place newcomers as training placed the seen users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from copl.adapt.strategies.encode import Encode
from copl.graph.encoders import gcf, latent_groups, lightgcn, stacked
from copl.graph.encoders.catalogue import PAPER, GcfOptions, LatentGroupsOptions
from copl.graph.encoders.latent_groups.em import EffectPrior, LatentGroups
from copl.graph.encoders.latent_groups.evidence import Evidence
from copl.graph.messages.message_graph import MessageGraph
from copl.graph.newcomers import response_degrees
from copl.graph.store import load_embeddings, save_embeddings
from copl.options import NoOptions, parse_options
from copl.plugins import load
from copl.records import AdaptedUsers, Comparisons, ComparisonSet, NodeEmbeddings, PreferenceGraph, UserTable
from copl.records.passes import SignedPass
from copl.system.progress import SilentProgress
from copl.testing.planted import Planted, accuracy, bare_graph, newcomers, planted_graph

COMPONENTS = {
    name: load().registry("encoder").get(name).component
    for name in ("latent-groups", "mf", "gcf", "lightgcn", "stacked", "tastes")
}
EVERY = pytest.mark.parametrize("name", sorted(COMPONENTS))
QUICK: dict[str, dict[str, Any]] = {
    "gcf": {"num_epochs": 20, "validate_every": 10, "start": "spectral"},
    "lightgcn": {"num_epochs": 30, "validate_every": 15},
}


def fit(name: str, graph: PreferenceGraph, **values: Any) -> NodeEmbeddings:
    component = COMPONENTS[name]
    encoder = component.build(parse_options(component.options, values, where=name))
    fitted: NodeEmbeddings = encoder.fit(graph, seed=0, progress=SilentProgress())
    return fitted


def encode(support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
    adapted = Encode(NoOptions()).adapt(support, trained)
    assert set(adapted.how) == {"encode"}
    return adapted


def copies(rows: Comparisons, num_users: int = 24) -> ComparisonSet:
    """Return newcomers who say what the seen users of a planted graph said."""
    return ComparisonSet(
        UserTable.ungrouped([f"copy-{row}" for row in range(num_users)]), Planted.make().responses, rows
    )


def weighted_graph() -> PreferenceGraph:
    """Return a planted graph whose comparisons weigh between 1 and 4."""
    graph = planted_graph().graph
    weight = np.random.default_rng(0).uniform(1, 4, len(graph.comparisons))
    return attrs.evolve(graph, comparisons=attrs.evolve(graph.comparisons, weight=weight))


@EVERY
def test_newcomers_are_placed_in_their_group(name: str, tmp_path: Path) -> None:
    trained = fit(name, planted_graph().graph, **QUICK.get(name, {}))
    support, heldout = newcomers(Planted.make())
    adapted = encode(support, trained)
    assert accuracy(trained, adapted.embeddings, heldout.comparisons) > 0.9
    save_embeddings(trained, tmp_path)
    assert torch.equal(encode(support, load_embeddings(tmp_path)).embeddings, adapted.embeddings)


@EVERY
def test_the_unit_of_weights_does_not_matter(name: str) -> None:
    graph = weighted_graph()
    rows = graph.comparisons
    scaled = attrs.evolve(rows, weight=8 * rows.weight)  # a power of two, so that training rounds alike
    one, other = (fit(name, attrs.evolve(graph, comparisons=found), **QUICK.get(name, {})) for found in (rows, scaled))
    torch.testing.assert_close(one.users, other.users, rtol=1e-3, atol=1e-4)
    first, second = encode(copies(rows), one).embeddings, encode(copies(scaled), other).embeddings
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


def test_latent_groups_give_the_posterior_of_a_newcomer() -> None:
    """The pass over a seen user's comparisons is the encoder's own posterior with nothing left out.

    All seen users have as many comparisons, so that the exponent for a mean user is that for each.
    """
    graph = planted_graph().graph
    options = LatentGroupsOptions(num_groups=(3,), power=(0.3,), group_precision=(0.5,))
    encoder = latent_groups.LatentGroupsEncoder(options)
    found = encoder.find(graph, seed=0, progress=SilentProgress())
    assert found is not None
    trained, groups = found.embeddings(graph), found.groups
    algorithm = LatentGroups(
        Evidence(graph.comparisons, graph.num_users, graph.num_responses),
        EffectPrior(found.setting.precision, found.setting.shared),
        power=found.setting.power,
        leave_one_out=False,
    )
    posterior, _ = algorithm.update_membership(groups.membership, groups.effects, groups.shares)
    expected = torch.from_numpy((posterior - groups.membership.mean(axis=0)) * found.scale).float()
    adapted = encode(copies(graph.comparisons), trained)
    torch.testing.assert_close(adapted.embeddings, expected, rtol=1e-4, atol=1e-5)
    # and the embeddings of training differ from it by what leaving out takes away alone
    assert float((adapted.embeddings - trained.users).abs().max()) < 0.5 * float(trained.users.abs().max())


def test_mf_gives_the_maximum_a_posteriori() -> None:
    """Where training has converged, the pass over a seen user's comparisons is that user's embedding."""
    graph = weighted_graph()
    graph = attrs.evolve(graph, validation=graph.comparisons)
    trained = fit("mf", graph, precision=[3.0], num_steps=601, validate_every=600)
    adapted = encode(copies(graph.comparisons), trained)
    torch.testing.assert_close(adapted.embeddings, trained.users, rtol=0, atol=0.02 * float(trained.users.abs().max()))


def test_gcf_takes_over_the_pass_of_the_factors_it_cannot_better() -> None:
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, 20, 600)
    rows = Comparisons(rng.integers(0, 50, 600), chosen, (chosen + rng.integers(1, 20, 600)) % 20)
    factors = fit("mf", bare_graph(50, 20, rows))
    refined = gcf.build(GcfOptions(num_epochs=1, learning_rate=1.0), factors)
    trained = refined.fit(bare_graph(50, 20, rows), seed=0, progress=SilentProgress())
    assert torch.equal(trained.users, factors.users)
    assert trained.newcomer_pass is factors.newcomer_pass


def test_newcomers_of_the_published_settings_have_length_one() -> None:
    small = {**PAPER, "embedding_dim": 8, "num_epochs": 2, "batch_size": 64}
    adapted = encode(newcomers(Planted.make())[0], fit("gcf", planted_graph().graph, **small))
    torch.testing.assert_close(adapted.embeddings.norm(dim=1), torch.ones(6))


@pytest.mark.parametrize("negative_edges", [True, False])
def test_lightgcn_encodes_a_seen_user_as_in_training(negative_edges: bool) -> None:
    graph = weighted_graph()
    options = lightgcn.LightGcnOptions(embedding_dim=3, num_layers=3, negative_edges=negative_edges)
    network, rows = lightgcn.LightGcnNetwork(options), graph.comparisons
    hop = MessageGraph(rows, graph.num_users, graph.num_responses).whole()
    nodes = torch.randn(graph.num_users + graph.num_responses, 3, generator=torch.Generator().manual_seed(0))
    expected = network(nodes, [hop] * 3)
    bare = NodeEmbeddings(
        graph.user_ids,
        graph.response_keys,
        expected[: graph.num_users],
        expected[graph.num_users :],
        torch.zeros(graph.num_responses),
        rows,
    )
    for user in (0, 5):
        degrees = response_degrees(rows, graph.num_responses)
        layers, anywhere = network.newcomer_layers(nodes, hop), torch.zeros(3, 0)
        passed = SignedPass(nodes[user], anywhere, degrees, layers, slope=network.slope)
        trained = attrs.evolve(bare, newcomer_pass=passed)
        found = encode(copies(rows.take(rows.user == user)), trained).embeddings[0]
        torch.testing.assert_close(found, expected[user], rtol=1e-5, atol=1e-5)


def test_stacked_has_the_passes_of_its_members() -> None:
    graph = planted_graph().graph
    members = [fit("latent-groups", graph), fit("lightgcn", graph, num_epochs=4, validate_every=2)]
    weights = np.array([2.0, 0.25])
    joined = stacked._side_by_side(graph, dict(zip(("latent-groups", "lightgcn"), members, strict=True)), weights, {})
    support, _ = newcomers(Planted.make())
    alone = [weight * encode(support, member).embeddings for member, weight in zip(members, weights, strict=True)]
    torch.testing.assert_close(encode(support, joined).embeddings, torch.cat(alone, dim=1).float())
