from __future__ import annotations

from typing import Any, Literal

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.graph.encoders.gcf import Gcf, GcfOptions
from copl.graph.messages.adjacency import SignedEdges
from copl.graph.messages.layers import Formula, SignedLayer, SignedNetwork
from copl.graph.messages.receptive_field import ReceptiveField
from copl.graph.training import ComparisonTensors
from copl.records import Comparisons, PreferenceGraph
from copl.system.progress import SilentProgress

U, R, D = 12, 15, 5


def comparisons(num: int, seed: int) -> Comparisons:
    rng = np.random.default_rng(seed)
    chosen = rng.integers(R, size=num)
    return Comparisons(rng.integers(U, size=num), chosen, (chosen + rng.integers(1, R, size=num)) % R)


def network(num_layers: int, formula: Formula, weights: Literal["shared", "separate"], **parts: bool) -> SignedNetwork:
    generator = torch.Generator().manual_seed(0)
    users, responses = (torch.randn(size, D, generator=generator).double() for size in (U, R))
    layers = [SignedLayer(D, formula=formula, weights=weights, **parts).double() for _ in range(num_layers)]
    made = SignedNetwork(users, responses, layers, bias=True)
    with torch.no_grad():
        for parameter in made.layers.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator).double())
    return made.double()


def gradients(made: SignedNetwork, loss: torch.Tensor) -> list[torch.Tensor]:
    made.zero_grad()
    loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in made.parameters()]


@pytest.mark.parametrize("formula", ["paper", "released"])
@pytest.mark.parametrize("weights", ["shared", "separate"])
@pytest.mark.parametrize("parts", [{}, {"hadamard": False}, {"negative_edges": False}])
@settings(max_examples=4)
@given(num=st.integers(1, 40), size=st.integers(1, 6), num_layers=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_field_gives_what_full_propagation_gives(
    formula: Formula, weights: Literal["shared", "separate"], parts: dict[str, bool], num: int, size: int,
    num_layers: int, seed: int,
) -> None:  # fmt: skip
    train = ComparisonTensors.of(comparisons(num, seed))
    weight = train.weight.double()
    weight[::3] = 0  # taken out of the graph: edges of value 0
    adjacency = SignedEdges(comparisons(num, seed), U, R).adjacency(weight)
    made = network(num_layers, formula, weights, **parts)
    batch = train.take(torch.arange(num)[:size])
    users, responses = made(adjacency)
    full = batch.margins(users, responses, made.response_bias)
    field = ReceptiveField.of(batch, adjacency, num_layers)
    near = field.batch.margins(*made.within(field), made.response_bias[field.responses_seen])
    torch.testing.assert_close(near, full)
    for one, other in zip(gradients(made, near.square().sum()), gradients(made, full.square().sum()), strict=True):
        torch.testing.assert_close(one, other)


def test_a_field_is_what_reaches_the_batch() -> None:
    # user 0 compares 0 and 1, user 1 compares 1 and 2, user 2 compares 3 and 4; user 2 is never reached from user 0
    rows = Comparisons([0, 1, 2], [0, 1, 3], [1, 2, 4])
    train = ComparisonTensors.of(rows)
    adjacency = SignedEdges(rows, 3, 5).adjacency(train.weight)
    reached = [ReceptiveField.of(train.take(torch.tensor([0])), adjacency, layers) for layers in (1, 2, 3)]
    assert [field.users.tolist() for field in reached] == [[0, 1], [0, 1], [0, 1]]
    assert [field.responses.tolist() for field in reached] == [[0, 1], [0, 1, 2], [0, 1, 2]]
    assert reached[1].layers[1].to_responses[0].rows.tolist() == [0, 1]  # response 0 is chosen by 0, response 1 by 1
    assert reached[1].layers[1].to_responses[1].rows.tolist() == [1]  # of 0 and 1 only response 1 is rejected


@pytest.mark.parametrize("options", [{}, {"edge_dropout": 0.1}, {"supervision_share": 0.0, "formula": "paper"}])
def test_training_by_batches_is_the_same_as_over_the_whole_graph(options: dict[str, Any]) -> None:
    names = (tuple(f"user-{row}" for row in range(U)), tuple(f"response-{row}" for row in range(R)))
    graph = PreferenceGraph(*names, comparisons(60, 0), comparisons(10, 1))
    made = GcfOptions(embedding_dim=4, start="xavier", batch_size=8, num_epochs=2, validate_every=1, **options)
    one, other = (
        Gcf(attrs.evolve(made, whole_graph=whole)).fit(graph, seed=0, progress=SilentProgress())
        for whole in (False, True)
    )
    torch.testing.assert_close(one.users, other.users, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.responses, other.responses, atol=1e-4, rtol=1e-4)
