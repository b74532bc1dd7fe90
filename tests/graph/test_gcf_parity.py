"""The encoder against outputs and gradients of the published reference implementation (`shared/golden`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from copl.graph.encoders.gcf.layers import SignedLayer
from copl.graph.training import ComparisonTensors
from copl.records import Comparisons
from tests.graph.published import SignedEdges, SignedNetwork

GOLDEN = Path(__file__).resolve().parents[2] / "../shared/golden"
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
NAMES = {"own": "self", "chosen_product": "pos", "rejected_product": "neg"}  # ours: the reference's


@pytest.fixture(params=["gcf_small", "gcf_medium"])
def golden(request):
    path = GOLDEN / f"{request.param}.npz"
    if not path.exists():
        pytest.skip(f"{path.name}: the reference's outputs are not here")
    with np.load(path) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive}


@pytest.fixture
def comparisons(golden):
    return Comparisons(*(golden[name].numpy() for name in ("users", "chosen", "rejected")))


@pytest.fixture
def adjacency(golden, comparisons):
    sizes = len(golden["E_u_0"]), len(golden["E_i_0"])
    return SignedEdges(comparisons, *sizes).adjacency(torch.ones(len(comparisons)))


@pytest.fixture
def network(golden):
    layers = []
    for number in range(int(golden["num_layers"])):
        layer = SignedLayer(golden["E_u_0"].shape[1], formula="released", weights="shared")
        for ours, theirs in NAMES.items():
            getattr(layer.of_users, ours).load_state_dict(
                {part: golden[f"layer{number}.{theirs}.{part}"] for part in ("weight", "bias")}
            )
        layers.append(layer)
    return SignedNetwork(golden["E_u_0"], golden["E_i_0"], layers, bias=False)


def test_adjacencies(golden, adjacency):
    torch.testing.assert_close(adjacency.chosen.to_dense(), golden["pos_adj_dense"], **TOLERANCE)
    torch.testing.assert_close(adjacency.rejected.to_dense(), golden["neg_adj_dense"], **TOLERANCE)
    torch.testing.assert_close(adjacency.rejected.T.to_dense(), golden["neg_adj_dense"].T, **TOLERANCE)


def test_embeddings_and_scores(golden, network, adjacency, comparisons):
    with torch.no_grad():
        users, responses = network(adjacency)
        margins = ComparisonTensors.of(comparisons).margins(users, responses, network.response_bias)
    torch.testing.assert_close(F.normalize(users), golden["user_embeddings"], **TOLERANCE)
    torch.testing.assert_close(responses, golden["response_embeddings"], **TOLERANCE)
    torch.testing.assert_close(margins, golden["chosen_scores"] - golden["rejected_scores"], **TOLERANCE)


def test_loss_and_gradients(golden, network, adjacency, comparisons):
    batch = ComparisonTensors.of(comparisons)
    users, responses = network(adjacency)
    loss = batch.loss(batch.margins(users, responses, network.response_bias))
    penalty = batch.squared_norms(users, responses)
    (loss + 1e-6 * penalty).backward()
    torch.testing.assert_close(loss.detach(), golden["loss"], **TOLERANCE)
    torch.testing.assert_close(penalty.detach(), golden["loss_reg"], **TOLERANCE)
    torch.testing.assert_close(network.users.grad, golden["grad_E_u_0"], **TOLERANCE)
    torch.testing.assert_close(network.responses.grad, golden["grad_E_i_0"], **TOLERANCE)
    for number, layer in enumerate(network.layers):
        for ours, theirs in NAMES.items():
            grad = getattr(layer.of_users, ours).weight.grad
            torch.testing.assert_close(grad, golden[f"grad.layer{number}.{theirs}.weight"], **TOLERANCE)
