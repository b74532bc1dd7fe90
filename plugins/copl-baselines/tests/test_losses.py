"""Losses and rules of adaptation against values derived by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from copl.records import UserTable
from copl_baselines.attention import CrossLayer
from copl_baselines.dpl import DplReward, categorical_loss, mean_variance_loss
from copl_baselines.gpo import GpoReward, last_rows
from copl_baselines.groups import GroupReward
from copl_baselines.i2e import I2eProxyReward, I2eReward
from copl_baselines.lore import LoreReward
from copl_baselines.model import FeatureReward, Shape, Step, bradley_terry
from copl_baselines.mrm import MrmReward, robust_mean
from copl_baselines.options import (
    DplOptions,
    GpoOptions,
    GroupOracleOptions,
    I2eOptions,
    I2eProxyOptions,
    LoreOptions,
    MrmOptions,
    PalAOptions,
    PalBOptions,
    PrefOptions,
    PrlhfOptions,
    PtttOptions,
    VplOptions,
)
from copl_baselines.pairs import Pairs, Texts
from copl_baselines.pal import PalAReward, PalBReward
from copl_baselines.pref import PrefReward, logistic_estimate, spectral_start, uncertainty
from copl_baselines.prlhf import PrlhfReward
from copl_baselines.pttt import PtttReward
from copl_baselines.vpl import VplReward, annealing, draw_context, kl_divergence, scaled

MakePairs = Callable[..., Pairs]


def shape(hidden_size: int, *groups: str | None) -> Shape:
    return Shape(hidden_size, UserTable([f"user-{row}" for row in range(len(groups))], groups))


def put(parameter: Tensor, values: Any) -> None:
    with torch.no_grad():
        parameter.copy_(torch.tensor(values))


def loss_of(model: FeatureReward, pairs: Pairs) -> float:
    model.eval()
    return float(model.loss(pairs, Step(pairs, 0.0, torch.Generator().manual_seed(0))).detach())


def rewards(model: FeatureReward, texts: Texts, users: Tensor) -> list[float]:
    values: list[float] = model.combine(model.encode(texts), users).tolist()
    return values


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_dpl_mean_variance() -> None:
    # deviations softplus(0) = log 2 both, so the variance of the difference is 2 log(2)^2
    loss = mean_variance_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.0]]))
    assert float(loss) == pytest.approx(
        softplus(-math.sqrt(2 * math.pi) * 0.5 / (math.sqrt(2) * math.log(2))), rel=1e-6
    )


def test_dpl_categorical() -> None:
    # three atoms: chosen (1/4, 1/4, 1/2), rejected (1/2, 1/4, 1/4)
    # above: 1/4*1/2 + 1/2*(1/2 + 1/4) = 1/2; even: 1/4*1/2 + 1/4*1/4 + 1/2*1/4 = 5/16, half of it counts
    chosen, rejected = torch.tensor([[1.0, 1.0, 2.0]]).log(), torch.tensor([[2.0, 1.0, 1.0]]).log()
    assert float(categorical_loss(chosen, rejected)) == pytest.approx(-math.log(1 / 2 + 5 / 32), rel=1e-6)


def test_dpl_entropy_is_a_bonus(make_pairs: MakePairs) -> None:
    model = DplReward(DplOptions(distribution="categorical", width=0, num_atoms=2), shape(1, None))
    put(model.head[0].weight, [[0.0], [0.0]])
    put(model.head[0].bias, [0.0, 0.0])
    pairs = make_pairs(torch.tensor([[1.0], [2.0]]), [0], [0], [1])
    assert loss_of(model, pairs) == pytest.approx(math.log(2) - 0.1 * math.log(2), rel=1e-6)
    assert rewards(model, pairs.winners, torch.zeros(1, 0)) == pytest.approx([0.5])


def test_i2e_is_bradley_terry_of_the_users_own_reward(make_pairs: MakePairs) -> None:
    model = I2eReward(I2eOptions(head="bilinear", embedding_dim=1), shape(2, None, None))
    put(model.head.shared.weight, [[0.5, 0.0]])
    put(model.head.response.weight, [[0.0, 1.0]])
    put(model.users.weight, [[2.0], [-1.0]])
    pairs = make_pairs(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [0, 1], [0, 0], [1, 1])
    # user 0: 0.5 - 2; user 1: 0.5 + 1
    assert loss_of(model, pairs) == pytest.approx((softplus(1.5) + softplus(-1.5)) / 2, rel=1e-6)


def test_i2e_proxy_is_the_seen_user_who_explains_the_newcomer_best(make_pairs: MakePairs) -> None:
    model = I2eProxyReward(I2eProxyOptions(head="bilinear", embedding_dim=1), shape(1, *[None] * 3))
    put(model.head.shared.weight, [[0.0]])
    put(model.head.response.weight, [[1.0]])
    put(model.users.weight, [[-1.0], [0.1], [3.0]])
    # newcomer 0 chooses the larger feature, newcomer 1 the smaller one, newcomer 2 once each
    pairs = make_pairs(torch.tensor([[1.0], [0.0]]), [0, 1, 2, 2], [0, 1, 0, 1], [1, 0, 1, 0])
    placed = model.place(pairs)
    assert placed.states.flatten().tolist() == pytest.approx([3.0, -1.0, 0.1])
    likelihoods = [1 / (1 + math.exp(-e)) for e in (-1.0, 0.1, 3.0)]
    assert float(placed.confidence[0]) == pytest.approx(likelihoods[2] / sum(likelihoods), rel=1e-5)


def test_groups_without_a_name_are_left_out_of_the_loss(make_pairs: MakePairs) -> None:
    users = shape(1, "a", "b", None)
    model = GroupReward(GroupOracleOptions(), users)
    put(model.shared.weight, [[1.0]])
    put(model.groups.weight, [[1.0], [-3.0]])
    pairs = make_pairs(torch.tensor([[1.0], [0.0]]), [0, 1, 2], [0, 0, 0], [1, 1, 1])
    pairs = Pairs(users.users, pairs.texts, pairs.user, pairs.chosen, pairs.rejected, pairs.weight)
    assert loss_of(model, pairs) == pytest.approx((softplus(-2.0) + softplus(2.0)) / 2, rel=1e-6)
    placed = model.place(pairs)
    assert placed.how == ("true-group", "true-group", "best-group")
    assert placed.states.tolist() == [[1, 0], [0, 1], [1, 0]]


def test_lore_weighs_users_alike(make_pairs: MakePairs) -> None:
    model = LoreReward(LoreOptions(num_bases=2, margin_scale=0.5), shape(1, None, None))
    put(model.basis, [[2.0, -2.0]])
    put(model.users, [[0.0, 0.0], [math.log(3), 0.0]])
    pairs = make_pairs(torch.tensor([[1.0], [0.0]]), [0, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 0])
    # user 0 is indifferent; user 1 has the weights (3/4, 1/4): margin 0.5 * (1.5 - 0.5) = 0.5
    second = (2 * softplus(-0.5) + softplus(0.5)) / 3
    assert loss_of(model, pairs) == pytest.approx((math.log(2) + second) / 2, rel=1e-6)


def test_pal_a_is_a_hinge_on_distances(make_pairs: MakePairs) -> None:
    model = PalAReward(PalAOptions(num_prototypes=2, preference_dim=2), shape(2, None, None))
    model.project = torch.nn.Identity()
    put(model.prototypes, [[4.0, 0.0], [0.0, 4.0]])
    put(model.users, [[0.0, 0.0], [50.0, 0.0]])
    pairs = make_pairs(torch.tensor([[2.0, 2.0], [2.0, 1.5], [4.0, 3.0]]), [0, 1], [0, 2], [1, 0])
    # user 0 is at (2, 2): distances 0 and 0.5; user 1 at (4, 0): distances 3 and sqrt(8)
    second = 1 - (math.sqrt(8) - 3)
    assert loss_of(model, pairs) == pytest.approx((0.5 + second) / 2, rel=1e-5)


def test_pal_b_is_the_scaled_cosine_to_what_the_prompt_makes_the_user_want(make_pairs: MakePairs) -> None:
    model = PalBReward(PalBOptions(num_prototypes=2, preference_dim=2), shape(2, None))
    model.project = torch.nn.Identity()
    first, second = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
    put(first.weight, [[1.0, 0.0], [0.0, 0.0]])
    put(second.weight, [[0.0, 0.0], [3.0, 0.0]])
    model.wanted = torch.nn.ModuleList([first, second])
    put(model.users, [[math.log(3), 0.0]])
    texts = Texts(torch.tensor([[2.0, 0.0], [0.0, 5.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    # wanted: 3/4 (1, 0) + 1/4 (0, 3) = (3/4, 3/4), so both responses lie at 45 degrees
    both = torch.tensor([[math.log(3), 0.0]] * 2)
    expected = math.sqrt(0.5) / 0.07
    assert rewards(model, texts, both) == pytest.approx([expected, expected], rel=1e-5)
    # wanted by equal weights: (1/2, 3/2), cosines 1/sqrt(10) and 3/sqrt(10)
    assert rewards(model, texts, torch.zeros(2, 2)) == pytest.approx(
        [1 / math.sqrt(10) / 0.07, 3 / math.sqrt(10) / 0.07], rel=1e-5
    )
    put(model.log_scale, 10.0)
    assert rewards(model, texts, torch.zeros(2, 2))[0] == pytest.approx(100 / math.sqrt(10), rel=1e-5)


def test_vpl_divergence_and_annealing() -> None:
    divergence = kl_divergence(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, math.log(2)]]))
    assert float(divergence) == pytest.approx(0.5 * (1 + 2 - 1 - math.log(2)), rel=1e-6)
    assert [annealing(done, 4) for done in (0.0, 0.25, 0.5)] == pytest.approx([0, 0, 0])
    assert annealing(0.125, 4) == pytest.approx(0.5)


def test_vpl_reads_only_the_context_in_any_order(make_pairs: MakePairs) -> None:
    torch.manual_seed(0)
    model = VplReward(VplOptions(latent_dim=4), shape(3, None, None)).eval()
    features = torch.randn(5, 3)
    pairs = make_pairs(features, [0, 0, 0, 1], [0, 1, 2, 3], [1, 2, 3, 4])
    context = torch.tensor([True, False, True, True])
    mean, log_variance = model.posterior(pairs, context)
    fewer = make_pairs(features, [0, 0, 1], [2, 0, 3], [3, 1, 4])
    same, _ = model.posterior(fewer, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(mean, same)
    assert bool((mean.abs() <= 1).all())
    assert bool((log_variance.abs() <= 1).all())


def test_vpl_attention_by_hand(make_pairs: MakePairs) -> None:
    model = VplReward(VplOptions(latent_dim=1), shape(1, None)).eval()
    model.pair = torch.nn.Linear(2, 1, bias=False)  # s = f_chosen - f_rejected
    put(model.pair.weight, [[1.0, -1.0]])
    for layer, weight in ((model.query, 1.0), (model.key, 1.0), (model.value, 1.0), (model.mean, 0.5)):
        put(layer.weight, [[weight]])
        put(layer.bias, [0.0])
    pairs = make_pairs(torch.tensor([[0.0], [1.0], [-0.5]]), [0, 0], [1, 2], [0, 0])
    # s = (1, -0.5); attention of s_i over s_j is softmax of s_i s_j
    rows = [(math.exp(s) - 0.5 * math.exp(-0.5 * s)) / (math.exp(s) + math.exp(-0.5 * s)) for s in (1, -0.5)]
    mean, _ = model.posterior(pairs, torch.ones(2, dtype=torch.bool))
    assert float(mean.detach()) == pytest.approx(0.5 * sum(rows) / 2, rel=1e-5)
    assert float(scaled(torch.tensor([[3.0, 4.0]])).norm()) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(("least", "expected"), [(0.0, {1, 2, 3, 4, 5}), (0.5, {3, 4, 5}), (0.99, {5})])
def test_vpl_divides_the_comparisons_of_each_user(least: float, expected: set[int], make_pairs: MakePairs) -> None:
    user = [0] * 6 + [1] * 2 + [2]
    pairs = make_pairs(torch.zeros(2, 1), user, [0] * 9, [1] * 9)
    sizes = set()
    for seed in range(60):
        context = draw_context(pairs, least, torch.Generator().manual_seed(seed))
        counts = torch.bincount(torch.tensor(user)[context], minlength=3).tolist()
        assert counts[1:] == [1, 1]
        sizes.add(counts[0])
    assert sizes == expected


def test_pref_is_bradley_terry_with_a_penalty_of_the_coefficients(make_pairs: MakePairs) -> None:
    model = PrefReward(PrefOptions(num_bases=1, seen_ridge=0.2), shape(1, None, None))
    put(model.linear.weight, [[1.0]])
    put(model.users, [[2.0], [-1.0]])
    pairs = make_pairs(torch.tensor([[1.0], [0.0]]), [0, 1], [0, 0], [1, 1])
    expected = (softplus(-2.0) + softplus(1.0)) / 2 + 0.1 * (4 + 1) / 2
    assert loss_of(model, pairs) == pytest.approx(expected, rel=1e-6)


def test_pref_starts_from_the_directions_users_disagree_about(make_pairs: MakePairs) -> None:
    features = torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    users, bases = spectral_start(make_pairs(features, [0, 1, 2], [0, 1, 2], [1, 0, 1]), 1)
    # differences (3, 0), (-3, 0), (0, 1): the first direction is (1, 0), the margins are a, a, 0 with 2 a^2 / 3 = 1
    assert float(bases[0, 1]) == pytest.approx(0, abs=1e-6)
    assert float(bases[0, 0]) > 0
    margins = [float(user) * float(bases[0, 0]) * 3 for user in users]
    assert margins == pytest.approx([math.sqrt(1.5), -math.sqrt(1.5), 0], abs=1e-5)


def test_pref_estimates_an_unseen_user_by_regularised_logistic_regression(make_pairs: MakePairs) -> None:
    ridge = 0.25 / math.log(3)
    pairs = make_pairs(torch.zeros(1, 1), [0, 1, 1], [0] * 3, [0] * 3)
    differences = torch.tensor([[1.0], [2.0], [-2.0]], dtype=torch.float64)
    # user 0: ridge u = sigmoid(-u) has the solution log 3, where sigmoid(-u) is a quarter; user 1 contradicts himself
    states = logistic_estimate(pairs, differences, ridge)
    assert states.flatten().tolist() == pytest.approx([math.log(3), 0.0], abs=1e-9)


def test_pref_asks_where_the_answer_is_least_certain() -> None:
    questions, asked = torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0]])
    # slope 1/4 at 0; M = 1 + 4 / 4 = 2
    assert uncertainty(torch.zeros(1), asked, questions, 1.0).tolist() == pytest.approx([1 / 32, 16 / 32])
    slope = sigmoid(1.0) * sigmoid(-1.0)
    expected = slope**2 / (3 + 4 * sigmoid(2.0) * sigmoid(-2.0))
    assert float(uncertainty(torch.ones(1), asked, questions[:1], 3.0)) == pytest.approx(expected, rel=1e-6)


def test_mrm_takes_one_step_down_the_loss_of_the_comparisons(make_pairs: MakePairs) -> None:
    model = MrmReward(MrmOptions(num_bases=2, inner_rate=4.0), shape(1, None))
    put(model.weights, [0.0, 0.0])
    pairs = make_pairs(torch.zeros(1, 1), [0], [0], [0])
    # margin 1, gradient of the loss by w: -sigmoid(-1) (1/2, -1/2)
    step = 2 * sigmoid(-1.0)
    assert model.adapted(pairs, torch.tensor([[2.0, 0.0]]))[0].tolist() == pytest.approx([step, -step])
    put(model.weights, [0.3, -0.2])
    pairs, differences = make_pairs(torch.zeros(1, 1), [0, 0], [0, 0], [0, 0]), torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    loss = bradley_terry(differences @ model.weights.softmax(0)).mean()
    (gradient,) = torch.autograd.grad(loss, [model.weights])
    torch.testing.assert_close(model.adapted(pairs, differences)[0], model.weights - 4 * gradient)


def test_mrm_counts_users_who_are_hard_to_learn_more(make_pairs: MakePairs) -> None:
    losses = torch.tensor([1.0, 2.0, 3.0])
    expected = (sigmoid(-1.0) + 2 * 0.5 + 3 * sigmoid(1.0)) / 3
    assert float(robust_mean(losses, 0.5, 1.0)) == pytest.approx(expected, rel=1e-6)
    assert float(robust_mean(losses, 0.5, 0.0)) == pytest.approx(1.0)
    model = MrmReward(MrmOptions(num_bases=2), shape(1, None))
    put(model.weights, [math.log(3), 0.0])
    put(model.bases.weight, [[2.0], [-2.0]])
    # a single comparison is not shown: margin 3/4 * 2 - 1/4 * 2, and the user is the quantile
    pairs = make_pairs(torch.tensor([[1.0], [0.0]]), [0], [0], [1])
    assert loss_of(model, pairs) == pytest.approx(0.5 * softplus(-1.0), rel=1e-6)


def test_pttt_by_hand(make_pairs: MakePairs) -> None:
    model = PtttReward(PtttOptions(width=1, output_dim=1, fast_rate=0.5, dropout=0.0), shape(1, None))
    layers = (model.up, 1.0), (model.down, 0.1), (model.past, 0.2), (model.value, 3.0), (model.head, 2.0)
    for layer, weight in layers:
        put(layer.weight, [[weight]])
    pairs = make_pairs(torch.tensor([[1.0], [0.0]]), [0], [0], [1])
    key = 0.5 * (1 + math.erf(math.sqrt(0.5)))  # gelu(1); the key of 0 is 0
    state = model.place(pairs).states
    assert state.tolist() == [[pytest.approx(key)]]
    # the reward is 2 (0.2 + W key) with W = 0.1 + 0.5 * v * key and v = 3 * 2
    assert rewards(model, pairs.winners, state) == pytest.approx([2 * (0.2 + (0.1 + 3 * key) * key)])
    # a single comparison is explained by the model as it is
    assert loss_of(model, pairs) == pytest.approx(softplus(-2 * (0.2 + 0.1 * key)), rel=1e-6)


def test_pttt_is_the_model_with_its_fast_weights_updated_one_by_one(make_pairs: MakePairs) -> None:
    torch.manual_seed(0)
    model = PtttReward(PtttOptions(width=4, output_dim=3, fast_rate=0.3), shape(2, None)).eval()
    pairs = make_pairs(torch.randn(5, 2), [0, 0, 0], [0, 2, 4], [1, 3, 0])
    fast, head = model.down.weight.clone(), model.head.weight[0]
    for chosen, rejected in zip(pairs.winners.features, pairs.losers.features, strict=True):
        fast = fast + 0.3 * torch.outer(model.value.weight @ head, model.keys(chosen) - model.keys(rejected))
    expected = (model.past(pairs.texts.features) + model.keys(pairs.texts.features) @ fast.T) @ head
    found = rewards(model, pairs.texts, model.place(pairs).states.expand(5, -1))
    assert found == pytest.approx(expected.tolist(), rel=1e-5)


def plain_layer(layer: CrossLayer) -> None:
    """Make a layer of one-dimensional points add to x the mean of the context c weighted by exp(x c)."""
    layer.before, layer.feed_forward = torch.nn.Identity(), torch.nn.Identity()
    layer.between = torch.nn.Linear(1, 1)  # gives 0
    for part, weight in ((layer.query, 1), (layer.key, 1), (layer.value, 1), (layer.out, 1), (layer.between, 0)):
        put(part.weight, [[float(weight)]])
        put(part.bias, [0.0])


def test_attention_by_hand() -> None:
    layer = CrossLayer(1, 1, 0.0)
    plain_layer(layer)
    points, context = torch.ones(3, 1, 1), torch.tensor([[[1.0], [-1.0]]]).expand(3, -1, -1)
    real = torch.tensor([[True, True], [True, False], [False, False]])
    assert layer(points, context, real).flatten().tolist() == pytest.approx([1 + math.tanh(1), 2, 1])


def test_gpo_by_hand(make_pairs: MakePairs) -> None:
    model = GpoReward(GpoOptions(point_dim=1, num_layers=1, num_heads=1, max_context=2), shape(1, None)).eval()
    model.rest, model.head = torch.nn.Identity(), torch.nn.Linear(1, 1)
    plain_layer(model.layers[0])
    for part in (model.read, model.head):
        put(part.weight, [[1.0]])
        put(part.bias, [0.0])
    put(model.preference, [1.0])
    pairs = make_pairs(torch.tensor([[1.0], [0.0], [0.5]]), [0], [0], [1])
    # the points are 1 + 1 and 0 - 1
    two, one = math.exp(2 * 0.5), math.exp(-0.5)
    states = model.place(pairs).states
    assert rewards(model, pairs.texts.take(torch.tensor([2])), states) == pytest.approx(
        [0.5 + (2 * two - one) / (two + one)], rel=1e-6
    )
    # a single comparison is explained without context
    assert loss_of(model, pairs) == pytest.approx(softplus(-1.0), rel=1e-6)
    assert rewards(model, pairs.texts, model.stranger(states).expand(3, -1)) == pytest.approx([1, 0, 0.5])


def test_gpo_reads_the_last_comparisons_in_any_order(make_pairs: MakePairs) -> None:
    torch.manual_seed(0)
    model = GpoReward(GpoOptions(point_dim=8, num_heads=2, max_context=3), shape(3, None)).eval()
    features = torch.randn(6, 3)
    whole = make_pairs(features, [0, 1, 0, 0, 0], [5, 4, 0, 1, 2], [0, 3, 1, 2, 3])
    rows, real = last_rows(whole, 3)
    assert rows[real].tolist() == [2, 3, 4, 1]
    last = make_pairs(features, [0, 0, 0], [2, 0, 1], [3, 1, 2])
    first, second = (model.place(pairs).states[:1].expand(6, -1) for pairs in (whole, last))
    assert rewards(model, whole.texts, first) == pytest.approx(rewards(model, whole.texts, second), abs=1e-5)
    # by user, and one by one
    states = model.place(whole).states
    one_by_one = super(GpoReward, model).margins(whole, states)
    torch.testing.assert_close(model.margins(whole, states), one_by_one)


def test_prlhf_weighs_the_users_tokens_against_the_generic_ones(make_pairs: MakePairs) -> None:
    options = PrlhfOptions(num_tokens=2, token_dim=1, num_heads=1, personal_share=0.7)
    model = PrlhfReward(options, shape(1, None)).eval()
    plain_layer(model.layer)
    put(model.response.weight, [[1.0]])
    put(model.response.bias, [0.0])
    put(model.head.weight, [[1.0]])
    put(model.common, [[0.0, 0.0]])
    put(model.users, [[1.0, -1.0]])
    pairs = make_pairs(torch.tensor([[1.0], [0.0]]), [0], [0], [1])
    # tokens (1, -1): rewards 1 + tanh(1) and 0; generic (0, 0): 1 and 0
    own, generic = 1 + math.tanh(1), 1.0
    assert loss_of(model, pairs) == pytest.approx(0.7 * softplus(-own) + 0.3 * softplus(-generic), rel=1e-6)
    placed = model.place(pairs)
    assert (placed.how, placed.states.tolist()) == ("generic", [[0.0, 0.0]])


def test_prlhf_mixes_the_tokens_of_clusters() -> None:
    options = PrlhfOptions(user_model="cluster", num_clusters=2, num_tokens=1, token_dim=1, num_heads=1)
    model = PrlhfReward(options, shape(1, None))
    put(model.common, [[4.0], [8.0]])
    put(model.users, [[math.log(3), 0.0]])
    assert float(model.tokens().detach()) == pytest.approx(5.0)
    assert float(model.generic().detach()) == pytest.approx(6.0)
