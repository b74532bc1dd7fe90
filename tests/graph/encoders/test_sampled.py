"""Sampled neighbourhoods: run where pyg-lib imports; what is said where it does not."""

from __future__ import annotations

import pytest
import torch

from copl.errors import OptionsError
from copl.graph.encoders import gat, gcf, lightgcn, ngcf, signed_gcn
from copl.graph.messages.batches import Neighbourhoods
from copl.graph.messages.geometric import pyg_lib_available, pyg_lib_install_command
from copl.graph.messages.message_graph import MessageGraph
from copl.options import parse_options
from copl.plugins import load
from copl.system.progress import SilentProgress
from copl.testing.planted import accuracy, planted_graph

needs_pyg_lib = pytest.mark.skipif(not pyg_lib_available(), reason=f"pyg-lib is not here: {pyg_lib_install_command()}")
NETWORKS = {
    "lightgcn": lightgcn.LightGcnNetwork,
    "ngcf": ngcf.NgcfNetwork,
    "signed-gcn": signed_gcn.SignedGcnNetwork,
    "gat": gat.GatNetwork,
    "gcf": gcf.GcfNetwork,
}
COMPONENTS = {
    name: load().registry("encoder").get(name).component for name in ("lightgcn", "ngcf", "signed-gcn", "gat", "gcf")
}


def options_of(name, **values):
    return parse_options(COMPONENTS[name].options, values, where=name)


def fit(name, graph, **values):
    return COMPONENTS[name].build(options_of(name, **values)).fit(graph, seed=0, progress=SilentProgress())


@pytest.fixture(params=sorted(NETWORKS))
def name(request):
    return request.param


@needs_pyg_lib
def test_with_all_neighbours_equals_the_whole_graph(name):
    graph = planted_graph().graph
    messages = MessageGraph(graph.comparisons, graph.num_users, graph.num_responses)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = options_of(name, embedding_dim=4, batch_size=7, num_neighbours=-1)
        batch = next(iter(Neighbourhoods(messages, options)))
        network = NETWORKS[name](options).eval()
        nodes = torch.randn(graph.num_users + graph.num_responses, 4)
    whole = messages.comparisons
    keys = zip(whole.user.tolist(), whole.chosen.tolist(), whole.rejected.tolist(), strict=True)
    places = {key: row for row, key in enumerate(keys)}
    drawn = batch.comparisons
    num = int((batch.nodes < graph.num_users).sum())
    ends = batch.nodes[drawn.user], batch.judged[drawn.chosen], batch.judged[drawn.rejected]
    rows = torch.tensor([places[key] for key in zip(*(end.tolist() for end in ends), strict=True)])
    assert len(set(rows.tolist())) == 7
    with messages.without(rows):
        expected = network(nodes, [messages.whole()] * 2)
    found = network(nodes[batch.nodes], batch.hops)
    for local, node in ((drawn.user, ends[0]), (drawn.chosen + num, ends[1] + graph.num_users)):
        torch.testing.assert_close(found[local], expected[node], rtol=1e-4, atol=1e-5)


@needs_pyg_lib
def test_sampled_training_reaches_the_accuracy_of_the_whole_graph(name):
    case = planted_graph()
    whole = fit(name, case.graph, num_epochs=30)
    sampled = fit(name, case.graph, num_epochs=30, sampling="neighbours", batch_size=60, num_neighbours=4)
    assert accuracy(sampled, sampled.users, case.heldout) >= accuracy(whole, whole.users, case.heldout) - 0.02


@needs_pyg_lib
def test_sampled_training_repeats_itself():
    graph = planted_graph().graph
    quick = {"num_epochs": 4, "sampling": "neighbours", "batch_size": 20, "num_neighbours": 2}
    state = torch.random.get_rng_state()
    first = fit("lightgcn", graph, **quick)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    second = fit("lightgcn", graph, **quick)
    assert torch.equal(first.users, second.users)
    assert torch.equal(first.responses, second.responses)


def test_without_pyg_lib_the_message_names_the_command(monkeypatch, name):
    monkeypatch.setattr("copl.graph.messages.geometric.pyg_lib_available", lambda: False)
    with pytest.raises(OptionsError) as refused:
        COMPONENTS[name].build(options_of(name, sampling="neighbours"))
    (fault,) = refused.value.faults
    assert fault.startswith(f"encoder.{name}: sampling = neighbours needs pyg-lib")
    assert pyg_lib_install_command() in fault
    assert "sampling = users" in fault


@pytest.mark.parametrize(
    ("version", "cuda", "place"),
    [
        ("2.13.0+cpu", None, "torch-2.13.0+cpu"),
        ("2.9.1", None, "torch-2.9.0+cpu"),
        ("2.8.0+cu128", "12.8", "torch-2.8.0+cu128"),
    ],
)
def test_the_command_fits_the_torch_that_is_installed(monkeypatch, version, cuda, place):
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert pyg_lib_install_command() == f"pip install pyg-lib -f https://data.pyg.org/whl/{place}.html"


def test_a_missing_pyg_lib_is_found_missing(monkeypatch):
    monkeypatch.setattr("copl.graph.messages.geometric.find_spec", lambda name: None)
    assert not pyg_lib_available.__wrapped__()
