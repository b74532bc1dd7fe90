"""Strategy `encode`: the encoder's own pass where it left one, a linear map where it did not."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
import torch

from copl.adapt.inductive import FoldIn, RecordedPass, inductive_pass
from copl.adapt.strategies.encode import Encode
from copl.graph.encoders.catalogue import GcfOptions
from copl.graph.encoders.gcf import GcfNetwork
from copl.graph.messages.message_graph import MessageGraph
from copl.graph.newcomers import response_degrees
from copl.options import NoOptions
from copl.records import Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable
from copl.records.passes import GaussianPass, GroupPass, LayerPass, MemberPass, SideBySidePass, SignedPass

RELEASED, PAPER = "released", "paper"


def sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def asking(comparisons: Comparisons, num_responses: int = 30) -> ComparisonSet:
    users = UserTable.ungrouped([f"new {row}" for row in range(6)])
    table = ResponseTable(["prompt"] * num_responses, [f"text {row}" for row in range(num_responses)])
    return ComparisonSet(users, table, comparisons)


@pytest.mark.parametrize(
    "values",
    [
        {"formula": RELEASED},
        {"formula": PAPER},
        {"formula": PAPER, "weights": "separate", "negative_edges": False},
        {"formula": RELEASED, "negative_edges": False},
        {"formula": RELEASED, "hadamard": False},
    ],
    ids=str,
)
def test_a_seen_user_is_encoded_as_in_training(values: Any, planted_problem: Any) -> None:
    """Fed a seen user's own edges and first embedding, the pass returns what the whole network made of them."""
    _, trained = planted_problem()
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(trained.comparisons))
    trained = attrs.evolve(trained, comparisons=attrs.evolve(trained.comparisons, weight=weight))
    rows = trained.comparisons
    hop = MessageGraph(rows, 40, 30).whole()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = GcfNetwork(GcfOptions(embedding_dim=3, start="random", **values))
        nodes = torch.randn(70, 3)
        for bias in (parameter for parameter in network.parameters() if parameter.dim() == 1):
            torch.nn.init.normal_(bias)
    expected = network(nodes, [hop] * 2)
    layers, degrees = network.newcomer_layers(nodes, hop), response_degrees(rows, 30)
    for user in (0, 7):
        own_start = SignedPass(nodes[user], torch.zeros(3, 0), degrees, layers, scale=3.0)
        own = rows.take(rows.user == user)
        support = asking(Comparisons(0 * own.user, own.chosen, own.rejected, own.weight))
        adapted = Encode(NoOptions()).adapt(support, attrs.evolve(trained, newcomer_pass=own_start))
        assert adapted.how == ("encode",)
        torch.testing.assert_close(adapted.embeddings[0], 3 * expected[user].detach(), atol=3e-5, rtol=1e-5)


def test_signed_pass_by_hand(planted_problem: Any) -> None:
    _, trained = planted_problem()
    one, degrees = torch.ones(1, 1), torch.zeros(2, 30)
    degrees[0, 3] = degrees[1, 4] = 4.0
    layer = LayerPass(torch.arange(30.0)[:, None], one, chosen=one, rejected=-one, bias=torch.tensor([0.5]))
    signed = SignedPass(torch.tensor([2.0]), torch.zeros(1, 0), degrees, (layer,), scale=10.0)
    lone = attrs.evolve(trained, users=torch.zeros(40, 1), responses=torch.zeros(30, 1), newcomer_pass=signed)
    asked = asking(Comparisons([0, 1, 2], [3, 4, 1], [4, 3, 9]))
    found = Encode(NoOptions()).adapt(asked, lone).embeddings[:, 0].tolist()
    # own 2 and bias 1/2, plus 3 / sqrt(1 x 4) chosen, minus 4 / sqrt(1 x 4) rejected; the other way round the degrees
    # are 0 and count as 1; the third is negative and shrunk
    assert found == pytest.approx([10 * (2.5 + 3 / 2 - 4 / 2), 10 * (2.5 + 4 - 3), 0.2 * 10 * (2.5 + 1 - 9)])
    linear = attrs.evolve(lone, newcomer_pass=attrs.evolve(signed, slope=1.0))
    assert float(Encode(NoOptions()).adapt(asked, linear).embeddings[2]) == pytest.approx(10 * (2.5 + 1 - 9))
    short = attrs.evolve(lone, newcomer_pass=attrs.evolve(signed, length=7.0, scale=1.0))
    assert Encode(NoOptions()).adapt(asked, short).embeddings[:, 0].tolist() == pytest.approx([7.0, 7.0, -7.0])


def test_signed_pass_starts_at_the_mode_of_a_posterior(planted_problem: Any) -> None:
    """Without messages, what the layers return is the start; it is that of a pass by factors."""
    support, trained = planted_problem()
    mean, factor = torch.tensor([1.0, 0.0, 0.0]), 2 * torch.eye(3)
    layers = (LayerPass(trained.responses, own=torch.eye(3)),)
    passed = SignedPass(mean, factor, torch.zeros(2, 30), layers, start_sharpness=0.5, power=3.0, slope=1.0)
    signed = attrs.evolve(trained, responses=torch.zeros(30, 3), newcomer_pass=passed)
    prior = GaussianPass(mean, factor, power=3.0)
    factors = attrs.evolve(trained, responses=0.5 * trained.responses, newcomer_pass=prior)
    found, expected = (Encode(NoOptions()).adapt(support, model).embeddings for model in (signed, factors))
    torch.testing.assert_close(found, expected)


def one_response(trained: NodeEmbeddings, **changes: Any) -> NodeEmbeddings:
    """Return embeddings of dimension 1 in which response 0 lies at 1 and has bias 1/2, and all others lie at 0."""
    responses, bias = torch.zeros(30, 1), torch.zeros(30)
    responses[0], bias[0] = 1.0, 0.5
    return attrs.evolve(
        trained, users=torch.linspace(-1, 1, 40)[:, None], responses=responses, response_bias=bias, **changes
    )


GROUPS = GroupPass(
    torch.tensor([[3.0], [-1.0]]), torch.tensor([0.75, 0.25]).log(), sharpness=0.5, power=3.0, correlation=0.2
)


def test_group_pass_by_hand(planted_problem: Any) -> None:
    model = one_response(planted_problem()[1], newcomer_pass=GROUPS)
    asked = asking(Comparisons([0, 0], [0, 0], [1, 2]))
    found = float(Encode(NoOptions()).adapt(asked, model).embeddings[0])
    # two comparisons count as 3 each, and 6 of correlation 0.2 as 6 / (1 + 5 x 0.2) = 3
    first, second = 0.75 * sigmoid(0.5 * 3.5) ** 3, 0.25 * sigmoid(0.5 * -0.5) ** 3
    assert found == pytest.approx((3 * first - second) / (first + second), abs=1e-6)


FACTORS = GaussianPass(torch.tensor([1.0]), torch.tensor([[2.0]]), sharpness=0.5, power=3.0)


def test_gaussian_pass_by_hand(planted_problem: Any) -> None:
    model = one_response(planted_problem()[1], newcomer_pass=FACTORS)
    asked = asking(Comparisons([0, 1, 1], [0, 1, 1], [1, 0, 0]))
    first, second = Encode(NoOptions()).adapt(asked, model).embeddings[:, 0].tolist()
    # the pull of the comparisons, 3 x 0.5 each at margin 0.5 (e + 1/2), is that of the prior
    assert (first - 1) / 4 == pytest.approx(1.5 * sigmoid(-0.5 * (first + 0.5)), abs=1e-6)
    assert (second - 1) / 4 == pytest.approx(-2 * 1.5 * sigmoid(0.5 * (second + 0.5)), abs=1e-6)


def test_passes_side_by_side(planted_problem: Any) -> None:
    support, trained = planted_problem()
    bias = torch.linspace(-1, 1, 30)
    corners = GroupPass(torch.eye(2), torch.tensor([0.5, 0.5]).log())
    members = MemberPass(corners, 2.0, bias), MemberPass(FACTORS, 0.25, -bias)
    joined = attrs.evolve(trained, newcomer_pass=SideBySidePass(members))
    found = Encode(NoOptions()).adapt(support, joined).embeddings
    groups = attrs.evolve(
        trained,
        users=trained.users[:, :2],
        responses=trained.responses[:, :2],
        response_bias=bias,
        newcomer_pass=corners,
    )
    factors = attrs.evolve(
        trained,
        users=trained.users[:, 2:],
        responses=trained.responses[:, 2:],
        response_bias=-bias,
        newcomer_pass=FACTORS,
    )
    alone = [Encode(NoOptions()).adapt(support, model).embeddings for model in (groups, factors)]
    torch.testing.assert_close(found, torch.cat([2 * alone[0], 0.25 * alone[1]], dim=1))


def test_without_a_pass_a_linear_map_is_learnt(planted_problem: Any) -> None:
    support, trained = planted_problem(num_users=200)
    assert isinstance(inductive_pass(trained), FoldIn)
    adapted = Encode(NoOptions()).adapt(support, trained)
    assert set(adapted.how) == {"fold-in"}
    assert np.sign(adapted.embeddings[:, 0].numpy()).tolist() == [1.0, -1.0] * 3


def test_the_linear_map_is_learnt_once(planted_problem: Any) -> None:
    _, trained = planted_problem()
    assert inductive_pass(trained) is inductive_pass(trained)
    assert isinstance(inductive_pass(one_response(trained, newcomer_pass=FACTORS)), RecordedPass)
