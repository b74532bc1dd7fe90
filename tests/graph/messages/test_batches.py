"""Batches: what supervises is no edge, and what reaches a batch gives every network what the whole graph gives it."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from copl.graph.encoders import gat, gcf, lightgcn, ngcf, signed_gcn
from copl.graph.encoders.catalogue import GcfOptions
from copl.graph.messages.batches import STRATEGIES, ReceptiveFields
from copl.graph.messages.message_graph import MessageGraph
from copl.graph.messages.options import MessagePassingOptions
from copl.options import parse_options
from copl.plugins import load
from copl.records import Comparisons, PreferenceGraph
from copl.system.progress import SilentProgress

NETWORKS = {
    "gcf": gcf.GcfNetwork,
    "lightgcn": lightgcn.LightGcnNetwork,
    "ngcf": ngcf.NgcfNetwork,
    "signed-gcn": signed_gcn.SignedGcnNetwork,
    "gat": gat.GatNetwork,
}
COMPONENTS = {
    name: load().registry("encoder").get(name).component for name in ("gcf", "lightgcn", "ngcf", "signed-gcn", "gat")
}
VARIANTS = [
    *((name, {}) for name in NETWORKS),
    ("gcf", {"formula": "paper"}),
    ("gcf", {"formula": "paper", "weights": "separate", "hadamard": False}),
    ("gcf", {"weights": "separate"}),
    ("gcf", {"negative_edges": False}),
    ("lightgcn", {"negative_edges": False}),
    ("ngcf", {"negative_edges": False}),
]
U, R, D = 12, 15, 4


def comparisons(num, seed):
    rng = np.random.default_rng(seed)
    chosen = rng.integers(R, size=num)
    return Comparisons(rng.integers(U, size=num), chosen, (chosen + rng.integers(1, R, size=num)) % R)


def gradients(loss, parameters):
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


@pytest.mark.parametrize(("name", "values"), VARIANTS, ids=str)
@pytest.mark.parametrize(("num", "size", "num_layers"), [(1, 1, 1), (12, 2, 2), (30, 6, 3), (60, 5, 4)])
def test_a_field_gives_every_network_what_the_whole_graph_gives(name, values, num, size, num_layers):
    """Losses and gradients, of the nodes before the first layer and of all weights, are equal."""
    options = parse_options(
        COMPONENTS[name].options, {"embedding_dim": D, "num_layers": num_layers, **values}, where=name
    )
    graph = MessageGraph(comparisons(num, num), U, R)
    rows = torch.arange(num)[:size]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(num)
        network = NETWORKS[name](options).eval().double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(0.5 * torch.randn(parameter.shape))
        nodes = torch.randn(U + R, D).double().requires_grad_()
    batch = ReceptiveFields(graph, options).around(rows)
    with graph.without(rows):
        whole = graph.whole()
    doubled = [in_double(hop) for hop in (*batch.hops, whole)]
    near = network(nodes[batch.nodes], doubled[:-1])
    far = network(nodes, doubled[-1:] * num_layers)
    no_bias = torch.zeros(R).double()
    users, responses = near.split([batch.hops[-1].num_users, len(batch.judged)])
    found = batch.comparisons.margins(users, responses, no_bias[: len(batch.judged)])
    expected = graph.comparisons.take(rows).margins(*far.split([U, R]), no_bias)
    torch.testing.assert_close(found, expected)
    parameters = [nodes, *network.parameters()]
    pairs = zip(
        gradients(found.square().sum(), parameters), gradients(expected.square().sum(), parameters), strict=True
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def in_double(hop):
    """Return the hop with values in double precision, so that gradients can be compared closely."""
    edges = {}
    for sign in ("chosen", "rejected"):
        of_sign = getattr(hop, sign)
        matrix = attrs.evolve(
            of_sign.matrix, matrix=of_sign.matrix.matrix.double(), transpose=of_sign.matrix.transpose.double()
        )
        edges[sign] = attrs.evolve(of_sign, matrix=matrix)
    return attrs.evolve(hop, **edges)


@pytest.mark.parametrize("values", [{}, {"supervision_share": 0.0, "formula": "paper"}])
def test_training_by_fields_of_all_comparisons_is_training_over_the_whole_graph(values):
    names = (tuple(f"user-{row}" for row in range(U)), tuple(f"response-{row}" for row in range(R)))
    graph = PreferenceGraph(*names, comparisons(60, 0), comparisons(10, 1))
    made = GcfOptions(embedding_dim=4, start="spectral", num_epochs=3, validate_every=1, supervision_share=0.0)
    one, other = (
        gcf.build(attrs.evolve(made, sampling=sampling, **values)).fit(graph, seed=0, progress=SilentProgress())
        for sampling in ("field", "full")
    )
    torch.testing.assert_close(one.users, other.users, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.responses, other.responses, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["full", "field", "users"])
def test_batches_supervise_by_what_is_not_an_edge(kind, share):
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(12), 4)
    liked = np.concatenate([rng.permutation(20)[:4] for _ in range(12)])  # nobody chooses a response twice
    rows = Comparisons(user, liked, 39 - liked)
    known = {*zip(rows.user.tolist(), rows.chosen.tolist(), strict=True)}
    graph = MessageGraph(rows, 12, 40)
    torch.manual_seed(0)
    batches = STRATEGIES[kind](graph, MessagePassingOptions(num_layers=1, supervision_share=share, batch_size=10))
    for _ in range(2):
        epoch = list(batches)
        assert len(epoch) == len(batches)
        for batch in epoch:
            hop, supervising = batch.hops[-1], batch.comparisons
            place = hop.own(torch.arange(hop.chosen.matrix.matrix.shape[1]))
            mine = {*zip(place[hop.num_users + supervising.chosen].tolist(), supervising.user.tolist(), strict=True)}
            edges = {*map(tuple, hop.chosen.index().T.tolist())}
            assert mine
            assert (mine <= edges) if share == 0 else not mine & edges
            pairs = zip(batch.nodes[place[supervising.user]], batch.judged[supervising.chosen], strict=True)
            assert {(int(user), int(response)) for user, response in pairs} <= known
        assert {node for batch in epoch for node in batch.nodes.tolist() if node < 12} == set(range(12))
