"""Strategy `encode`: the encoder's own pass where it left one, a linear map where it did not."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
import torch

from copl.adapt.encode import Encode, EncodeOptions
from copl.adapt.inductive import FoldIn, GroupPass, SignedPass, inductive_pass
from copl.graph.adjacency import SignedEdges
from copl.graph.layers import SignedLayer, SignedNetwork
from copl.records import Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable

RELEASED, PAPER = "released", "paper"


def exported(network: SignedNetwork, trained: NodeEmbeddings, start: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what an encoder of this kind leaves for `encode`."""
    state = {"inductive.start": start}
    users, responses = network.users, network.responses
    adjacency = SignedEdges(trained.comparisons, len(users), len(responses)).adjacency(
        torch.from_numpy(trained.comparisons.weight).float()
    )
    one = torch.eye(responses.shape[1])
    for number, layer in enumerate(network.layers):
        update = layer.of_users
        name = f"inductive.layer.{number}."
        state[f"inductive.responses.{number}"] = responses.detach()
        state[name + "own"] = update.own.weight.detach()
        if isinstance(update.own.bias, torch.Tensor):
            state[name + "own_bias"] = update.own.bias.detach()
        sign = 1.0 if hasattr(update, "chosen") else -1.0  # the released code subtracts what comes over rejected edges
        state[name + "chosen"] = update.chosen.weight.detach() if hasattr(update, "chosen") else one
        state[name + "rejected"] = update.rejected.weight.detach() if hasattr(update, "chosen") else -one
        for side, factor in (("chosen_product", 1.0), ("rejected_product", sign)):
            linear = getattr(update, side)
            state[name + side] = factor * linear.weight.detach()
            if isinstance(linear.bias, torch.Tensor):
                state[name + side + "_bias"] = factor * linear.bias.detach()
        users, responses = layer(users, responses, adjacency)
    return state


@pytest.mark.parametrize("formula", [RELEASED, PAPER])
def test_a_seen_user_is_encoded_as_in_training(formula: Any, planted_problem: Any) -> None:
    """Fed a seen user's own edges and first embedding, the pass returns what the whole network made of them."""
    _, trained = planted_problem()
    generator = torch.Generator().manual_seed(0)
    layers = [SignedLayer(3, formula=formula) for _ in range(2)]
    for layer in layers:
        layer.start(generator)
    network = SignedNetwork(
        torch.randn(40, 3, generator=generator), torch.randn(30, 3, generator=generator), layers, bias=False
    )
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(trained.comparisons))
    trained = attrs.evolve(trained, comparisons=attrs.evolve(trained.comparisons, weight=weight))
    rows = trained.comparisons
    adjacency = SignedEdges(rows, 40, 30).adjacency(torch.from_numpy(rows.weight).float())
    expected, _ = network(adjacency)
    for user in (0, 7):
        state = exported(network, trained, network.users[user].detach())
        model = attrs.evolve(trained, state=state)
        own = rows.take(rows.user == user)
        table = ResponseTable(["prompt"] * 30, [f"text {row}" for row in range(30)])
        support = ComparisonSet(
            UserTable.ungrouped(["again"]), table, Comparisons(0 * own.user, own.chosen, own.rejected, own.weight)
        )
        adapted = Encode(EncodeOptions()).adapt(support, model)
        assert adapted.how == ("encode",)
        torch.testing.assert_close(adapted.embeddings[0], expected[user].detach(), atol=1e-5, rtol=1e-5)


def test_signed_pass_by_hand(planted_problem: Any) -> None:
    support, trained = planted_problem()
    one = torch.ones(1, 1)
    state = {
        "inductive.start": torch.tensor([2.0]),
        "inductive.responses.0": torch.arange(30.0)[:, None],
        "inductive.layer.0.own": one,
        "inductive.layer.0.chosen": one,
        "inductive.layer.0.rejected": -one,
        "inductive.scale": torch.tensor(10.0),
    }
    lone = NodeEmbeddings(
        ("seen",),
        trained.response_keys,
        torch.zeros(1, 1),
        torch.zeros(30, 1),
        torch.zeros(30),
        Comparisons([0, 0, 0, 0], [3, 3, 3, 3], [4, 4, 4, 4]),
        state=state,
    )
    asked = ComparisonSet(support.users, support.responses, Comparisons([0, 1], [3, 4], [4, 3]))
    found = Encode(EncodeOptions()).adapt(asked, lone).embeddings[:, 0].tolist()
    # own 2, plus 3 / sqrt(1 x 4) chosen, minus 4 / sqrt(1 x 4) rejected; the other way round there are no degrees yet
    assert found == pytest.approx([10 * (2 + 3 / 2 - 4 / 2), 10 * (2 + 4 - 3)])


def test_group_pass_by_hand(planted_problem: Any) -> None:
    support, trained = planted_problem()
    scores = torch.zeros(30, 2)
    scores[0] = torch.tensor([1.0, -1.0])
    state = {
        "inductive.points": torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        "inductive.log_share": torch.tensor([0.75, 0.25]).log(),
        "inductive.scores": scores,
    }
    model = attrs.evolve(trained, state=state)
    assert isinstance(inductive_pass(model), GroupPass)
    asked = ComparisonSet(support.users, support.responses, Comparisons([0, 0], [0, 0], [1, 2]))
    found = Encode(EncodeOptions()).adapt(asked, model).embeddings[0].tolist()
    right, wrong = 0.75 * (1 / (1 + np.exp(-1))) ** 2, 0.25 * (1 / (1 + np.exp(1))) ** 2
    assert found == pytest.approx([right / (right + wrong), wrong / (right + wrong), 0.0], abs=1e-6)


def test_without_a_pass_a_linear_map_is_learnt(planted_problem: Any) -> None:
    support, trained = planted_problem(num_users=200)
    assert isinstance(inductive_pass(trained), FoldIn)
    adapted = Encode(EncodeOptions()).adapt(support, trained)
    assert set(adapted.how) == {"fold-in"}
    assert np.sign(adapted.embeddings[:, 0].numpy()).tolist() == [1.0, -1.0] * 3


def test_the_pass_is_made_once(planted_problem: Any) -> None:
    _, trained = planted_problem()
    assert inductive_pass(trained) is inductive_pass(trained)
    model = attrs.evolve(
        trained, state={"inductive.start": torch.zeros(3), "inductive.responses.0": torch.zeros(30, 3)}
    )
    assert isinstance(inductive_pass(model), SignedPass)
