from __future__ import annotations

import numpy as np
import pytest
import torch

from copl.records import Comparisons
from copl.reward.heads import BilinearHead, Head, LinearHead, RoutedHead, make_head
from copl.reward.model import AffineScaling
from copl.reward.training.divisions import hold_out_texts
from copl.reward.training.head_fit import FittedHead, HeadFit, add_head_weights, set_head_weights


def test_bilinear_rewards_by_hand() -> None:
    head = BilinearHead(2, 4)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([1.0, -1.0]))
        head.interaction.zero_()
        head.interaction[0, 1] = 6.0
    # w . f = 2 - 3 = -1 and z B f / sqrt(4) = 0.5 * 6 * 3 / 2 = 4.5
    reward = head(torch.tensor([[2.0, 3.0]]), torch.tensor([[0.5, 9.0, 9.0, 9.0]]))
    assert reward.tolist() == pytest.approx([3.5])


def test_routed_rewards_by_hand() -> None:
    head = RoutedHead(2, 3)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([1.0, 2.0]))
        head.interaction.copy_(torch.tensor([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]]))
    features, weights = torch.tensor([[1.0, 1.0], [1.0, 2.0]]), torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    # 1 + 2 + 10, and 1 + 4 + 0.5 * 10 + 0.5 * (5 + 10)
    assert head(features, weights).tolist() == [13.0, 17.5]


@pytest.mark.parametrize("name", ["linear", "bilinear", "routed", "mlp"])
def test_both_halves_of_a_head_make_the_whole(name: str) -> None:
    torch.manual_seed(0)
    head = make_head(name, 6, 3, 3)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    features, users = torch.randn(5, 6), torch.randn(7, 3)
    codes = head.encode(features)
    for u in range(7):
        together = head(features, users[u].expand(5, -1))
        assert torch.allclose(head.combine(codes, users[u].expand(5, -1)), together)
        assert together.shape == (5,)


@pytest.mark.parametrize("name", ["linear", "bilinear", "routed", "mlp"])
def test_heads_start_at_zero(name: str) -> None:
    head = make_head(name, 6, 3, 3)
    assert head(torch.randn(4, 6), torch.randn(4, 3)).tolist() == [0.0] * 4


def test_without_users_the_bilinear_head_is_linear() -> None:
    assert isinstance(make_head("bilinear", 6, 0), LinearHead)
    assert isinstance(make_head("routed", 6, 3, 0), LinearHead)


def test_scaling_of_users_keeps_the_proportions_of_coordinates() -> None:
    values = torch.tensor([[3.0, 0.0], [-1.0, 0.0], [1.0, 3.0], [1.0, -3.0]])
    scaling = AffineScaling.of_users(values)
    scaled = (values - scaling.centre) / scaling.scale
    assert scaling.centre.tolist() == [1.0, 0.0]
    assert float(scaled.square().mean()) == pytest.approx(1.0)
    assert (scaled[2, 1] / scaled[0, 0]).item() == pytest.approx(1.5)


def test_a_constant_feature_does_no_harm() -> None:
    scaling = AffineScaling.of_features(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert torch.isfinite(1 / scaling.scale).all()


def _planted(num_texts: int, num_features: int, noise: float) -> tuple[torch.Tensor, torch.Tensor, Comparisons]:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(num_texts, num_features))
    users = rng.choice([-1.0, 1.0], size=(30, 1))
    user, first, second = rng.integers(30, size=3000), *rng.integers(num_texts, size=(2, 3000))
    utility = users[user] * (features[first, :1] - features[second, :1]) + features[first, 1:2] - features[second, 1:2]
    keep = rng.random(3000) < 1 / (1 + np.exp(-utility[:, 0] / noise))
    pairs = Comparisons(user, np.where(keep, first, second), np.where(keep, second, first))
    return (
        torch.from_numpy(features).float(),
        torch.from_numpy(users).float(),
        pairs.take(pairs.chosen != pairs.rejected),
    )


def _fit(head: Head, features: torch.Tensor, users: torch.Tensor, pairs: Comparisons, seed: int) -> FittedHead:
    fit = HeadFit(head, features, users, seed)
    found = fit.choose([hold_out_texts(pairs, np.arange(len(features)), seed)], Comparisons.empty())
    set_head_weights(head, fit.whole(found, pairs))
    return found


def test_the_warm_start_finds_what_all_want_and_what_each_wants() -> None:
    features, users, pairs = _planted(80, 10, noise=0.2)
    head = make_head("bilinear", 10, 1)
    fitted = _fit(head, features, users, pairs, seed=0)
    assert fitted.new_text_accuracy > 0.85
    assert head.weight.abs().argmax() == 1
    assert head.interaction.abs().argmax() == 0
    assert head.interaction[0, 0].item() > 0
    linear = make_head("linear", 10, 1)
    shared = _fit(linear, features, users, pairs, seed=0)
    assert shared.new_text_accuracy < fitted.new_text_accuracy - 0.1


def test_what_the_held_out_texts_say_is_added_to_what_training_has_changed() -> None:
    features, users, pairs = _planted(40, 6, noise=0.5)
    head = make_head("bilinear", 6, 1)
    fit = HeadFit(head, features, users, seed=0)
    found = fit.choose([hold_out_texts(pairs, np.arange(len(features)), 0)], Comparisons.empty())
    assert all(not parameter.any() for parameter in head.parameters())  # a fit leaves it as it is
    whole = fit.whole(found, pairs)
    assert any((now - before).abs().max() > 1e-3 for now, before in zip(whole, found.whole, strict=True))
    set_head_weights(head, tuple(weights + 0.25 for weights in found.whole))  # by training
    add_head_weights(head, whole, less=found.whole)
    for trained, untrained in zip(head.parameters(), whole, strict=True):
        torch.testing.assert_close(trained.detach(), untrained + 0.25)


def test_a_fit_of_the_shared_part_alone_is_what_a_linear_head_gets() -> None:
    features, users, pairs = _planted(40, 6, noise=0.5)
    division = [hold_out_texts(pairs, np.arange(len(features)), 0)]
    found, linear = (
        HeadFit(make_head(name, 6, 1), features, users, seed=0).choose(division, Comparisons.empty())
        for name in ("bilinear", "linear")
    )
    weight, interaction = found.shared
    torch.testing.assert_close(weight, linear.whole[0])
    assert not interaction.any()
    assert found.whole[1].any()
    assert (found.shared_penalty, linear.personal_penalty) == (linear.shared_penalty, 0.0)


def test_more_features_than_texts_are_not_learnt_by_heart() -> None:
    features, users, pairs = _planted(60, 200, noise=1.0)
    head = make_head("bilinear", 200, 1)
    fitted = _fit(head, features, users, pairs, seed=0)
    assert fitted.new_text_loss < np.log(2) + 0.01


def test_the_warm_start_repeats_itself() -> None:
    features, users, pairs = _planted(40, 10, noise=0.5)
    heads = []
    for _ in range(2):
        torch.manual_seed(0)
        heads.append(make_head("mlp", 10, 1))
        _fit(heads[-1], features, users, pairs, seed=3)
    for a, b in zip(heads[0].parameters(), heads[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_whole_prompts_are_held_out() -> None:
    groups = np.repeat(np.arange(20), 3)
    first = np.random.default_rng(0).integers(60, size=2000)
    pairs = Comparisons(np.zeros(2000, dtype=np.int64), first, first // 3 * 3 + (first + 1) % 3)
    parts = hold_out_texts(pairs, groups, seed=0)
    judged, fitted = set(groups[parts.new_text.chosen]), set(groups[parts.fitted.chosen])
    assert len(judged) == 3  # 15 % of twenty
    assert not judged & fitted
    assert len(parts.new_text) + len(parts.fitted) == 2000


def test_few_texts_are_not_held_out_in_vain() -> None:
    pairs = Comparisons([0, 0], [0, 1], [1, 0])
    parts = hold_out_texts(pairs, np.array([0, 0]), seed=0)
    assert len(parts.fitted) == len(parts.new_text) == 2
