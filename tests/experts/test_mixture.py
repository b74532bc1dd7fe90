from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from copl.errors import BackboneError, OptionsError
from copl.experts.mixture import MixtureOfLora, adapters_off
from copl.experts.options import MixtureOptions
from copl.experts.targets import default_target_modules
from tests.experts.mixtures import (
    MODELS,
    OPTIONS,
    PER_LAYER,
    WEIGHTS,
    attached,
    backbone,
    hidden,
    randomise,
    stock_peft,
    tokens,
    user_adapter,
)


def test_a_layer_computes_the_sum_of_its_scaled_experts() -> None:
    linear = nn.Linear(4, 5)
    weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    model = nn.Sequential(OrderedDict(proj=linear))
    mixture = randomise(MixtureOfLora.attach(model, OPTIONS, num_experts=2, target_modules=("proj",)))
    layer = mixture.peft_model.base_model.model.proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x, gate = torch.randn(2, 3, 4), torch.tensor([[0.0, 0.5], [0.25, 0.0]])
    mixture.set_weights(gate)
    experts = [(slice(0, 2), torch.ones(2)), (slice(2, 5), gate[:, 0]), (slice(5, 8), gate[:, 1])]
    expected = x @ weight.T + bias
    for columns, factor in experts:  # alpha / expert_rank = 2
        expected = expected + 2.0 * factor[:, None, None] * (x @ a[columns].T @ b[:, columns].T)
    torch.testing.assert_close(mixture.peft_model(x), expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_users_output_does_not_depend_on_the_batch(name: str) -> None:
    mixture, ids = attached(name), tokens()
    mixture.set_weights(WEIGHTS)
    together = hidden(mixture.peft_model, ids)
    for row in range(3):
        mixture.set_weights(WEIGHTS[row : row + 1])
        alone = hidden(mixture.peft_model, ids[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)
    mixture.set_weights(WEIGHTS.flip(0))
    torch.testing.assert_close(hidden(mixture.peft_model, ids.flip(0)).flip(0), together, atol=1e-5, rtol=1e-5)
    mixture.set_weights(torch.zeros(3, 4))
    assert (hidden(mixture.peft_model, ids) - together).abs().max() > 1e-2


def test_only_the_adapters_train_and_an_unused_expert_gets_no_gradient() -> None:
    mixture = attached()
    weights = torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.0]], requires_grad=True)
    mixture.set_weights(weights)
    hidden(mixture.peft_model, tokens(2)).square().mean().backward()
    assert weights.grad is not None
    assert weights.grad.abs().sum() > 0
    for name, parameter in mixture.peft_model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        if "lora_A" in name:
            assert parameter.grad is not None
            shared, *experts = parameter.grad.split([2, 3, 3, 3, 3])
            assert shared.abs().sum() > 0
            assert [bool(e.abs().sum() > 0) for e in experts] == [True, False, True, False]


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    def gradients(checkpointing: bool) -> dict[str, Tensor]:
        mixture = attached(name)
        if checkpointing:
            mixture.peft_model.activation_checkpointing_enable({"use_reentrant": False})
        mixture.peft_model.train()
        for module in mixture.peft_model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        weights = WEIGHTS.clone().requires_grad_()
        mixture.set_weights(weights)
        calls: list[int] = []
        first = next(m for n, m in mixture.peft_model.named_modules() if n.endswith("lora_A.default"))
        first.register_forward_hook(lambda *_: calls.append(1))
        hidden(mixture.peft_model, tokens()).square().mean().backward()
        assert len(calls) == (2 if checkpointing else 1)  # the recomputation really happened
        assert weights.grad is not None
        found = {n: p.grad for n, p in mixture.peft_model.named_parameters() if p.grad is not None}
        return found | {"weights": weights.grad}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    for key, value in plain.items():
        torch.testing.assert_close(checkpointed[key], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_stays_close_to_float32(autocast: bool) -> None:
    ids = tokens()
    exact = attached()
    exact.set_weights(WEIGHTS)
    reference = hidden(exact.peft_model, ids)
    mixture = attached()
    if not autocast:
        mixture.peft_model.to(torch.bfloat16)
    mixture.set_weights(WEIGHTS)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rough = hidden(mixture.peft_model, ids)
    rough.float().square().mean().backward()
    assert (rough.float() - reference).abs().mean() < 0.03
    assert all(torch.isfinite(p.grad).all() for p in mixture.peft_model.parameters() if p.grad is not None)


def test_calling_without_matching_weights_is_an_error() -> None:
    mixture = attached()
    with pytest.raises(RuntimeError, match="before set_weights"):
        hidden(mixture.peft_model, tokens())
    mixture.set_weights(WEIGHTS)
    with pytest.raises(RuntimeError, match=r"batch of 3, but the model was called with 2"):
        hidden(mixture.peft_model, tokens(2))
    for wrong in (None, WEIGHTS[:, :3], WEIGHTS[0]):
        with pytest.raises(ValueError, match=r"shape \[B, 4\]"):
            mixture.set_weights(wrong)


def test_a_merged_mixture_is_an_error() -> None:
    mixture = attached()
    mixture.set_weights(WEIGHTS)
    before = hidden(mixture.peft_model, tokens())
    mixture.peft_model.merge_adapter()
    with pytest.raises(RuntimeError, match="all experts at once"):
        hidden(mixture.peft_model, tokens())
    mixture.peft_model.unmerge_adapter()
    torch.testing.assert_close(hidden(mixture.peft_model, tokens()), before, atol=1e-4, rtol=1e-4)


def test_without_routed_experts_it_is_one_plain_lora() -> None:
    mixture, ids = attached(num_experts=0), tokens()
    assert mixture.layout.rank == 2
    mixture.set_weights(None)
    plain = hidden(mixture.peft_model, ids)
    mixture.set_weights(torch.zeros(3, 0))
    torch.testing.assert_close(hidden(mixture.peft_model, ids), plain)
    with pytest.raises(ValueError, match="no routed experts"):
        mixture.set_weights(WEIGHTS)
    layer = mixture.peft_model.base_model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == pytest.approx(6.0 / 2)


@pytest.mark.parametrize("name", MODELS)
def test_adapters_go_into_the_chosen_layers_only(name: str) -> None:
    mixture = attached(name, layers=(1,))
    adapted = {n for n, p in mixture.peft_model.named_parameters() if p.requires_grad}
    assert adapted
    assert all(".1." in n and ".0." not in n for n in adapted)
    for layers in ((7,), (1, 7)):
        with pytest.raises(OptionsError, match=r"no layers \[7\] to adapt, only 0 to 1"):
            attached(name, layers=layers)
    with pytest.raises(OptionsError, match="no layers"):
        attached(name, layers=())


def test_impossible_mixtures_are_refused() -> None:
    model = backbone()
    with pytest.raises(
        BackboneError, match=r"'q_porj' is not in LlamaModel \(did you mean 'q_proj'\?\).*down_proj"
    ) as e:
        MixtureOfLora.attach(model, OPTIONS, num_experts=1, target_modules=("q_porj", "c_attn"))
    assert len(e.value.faults) == 2
    with pytest.raises(OptionsError, match="shared_rank"):
        MixtureOfLora.attach(model, MixtureOptions(shared_rank=0), num_experts=0, target_modules=("q_proj",))
    MixtureOfLora.attach(model, MixtureOptions(shared_rank=0), num_experts=2, target_modules=("q_proj",))
    with pytest.raises(RuntimeError, match="already carries adapters"):
        MixtureOfLora.attach(model, OPTIONS, num_experts=1, target_modules=("q_proj",))


def test_copies_have_masks_of_their_own() -> None:
    mixture, ids = attached(), tokens()
    other = copy.deepcopy(mixture)
    mixture.set_weights(WEIGHTS)
    other.set_weights(WEIGHTS.flip(0))
    assert not torch.allclose(hidden(mixture.peft_model, ids), hidden(other.peft_model, ids))


@pytest.mark.parametrize("name", MODELS)
def test_every_adapted_module_may_have_weights_of_its_own(name: str, tmp_path: Path) -> None:
    mixture, ids = attached(name, PER_LAYER), tokens()
    num_gates = mixture.num_gates
    adapted = {n.rpartition(".lora_")[0] for n in mixture.tensors()}
    assert num_gates == len(adapted) >= 2
    one = attached(name)
    one.set_weights(WEIGHTS)
    mixture.set_weights(WEIGHTS.repeat(1, num_gates))
    same = hidden(mixture.peft_model, ids)
    torch.testing.assert_close(same, hidden(one.peft_model, ids))
    varied = torch.cat([WEIGHTS.roll(g, dims=1) for g in range(num_gates)], dim=1)
    mixture.set_weights(varied)
    before = hidden(mixture.peft_model, ids)
    assert (before - same).abs().max() > 1e-3
    for row in range(3):  # and so has the adapter of one user
        assert user_adapter(mixture, varied[row], tmp_path / str(row)) == (5, 5, 14)[row]
        alone = hidden(stock_peft(backbone(name), tmp_path / str(row)), ids[row : row + 1])
        torch.testing.assert_close(alone[0], before[row], atol=1e-5, rtol=1e-5)
    mixture.save(tmp_path / "whole")
    again = MixtureOfLora.load(backbone(name), tmp_path / "whole")
    again.set_weights(varied)
    torch.testing.assert_close(hidden(again.peft_model, ids), before)
    with pytest.raises(ValueError, match=rf"shape \[B, {4 * num_gates}\]"):
        mixture.set_weights(WEIGHTS)


@pytest.mark.parametrize("num_experts", [0, 4])
def test_switched_off_the_backbone_is_what_it_was(num_experts: int) -> None:
    bare, mixture = backbone(), attached(num_experts=num_experts)
    weights = WEIGHTS if num_experts else None
    trained = [name for name, parameter in mixture.peft_model.named_parameters() if parameter.requires_grad]
    with torch.no_grad():
        mixture.set_weights(weights)
        before = hidden(mixture.peft_model, tokens())
        with adapters_off(mixture.peft_model):
            off = hidden(mixture.peft_model, tokens(batch=5))  # no weights are needed for it
        assert torch.equal(off, hidden(bare, tokens(batch=5)))
        assert torch.equal(hidden(mixture.peft_model, tokens()), before)
        assert not torch.allclose(before, hidden(bare, tokens()), atol=1e-2)
    assert [name for name, parameter in mixture.peft_model.named_parameters() if parameter.requires_grad] == trained


def test_taken_off_the_backbone_can_be_adapted_again() -> None:
    model, bare = backbone(), backbone()
    first = MixtureOfLora.attach(model, OPTIONS, num_experts=4, target_modules=default_target_modules(model))
    first.detach()
    with torch.no_grad(), adapters_off(model):  # there is nothing to switch off
        assert torch.equal(hidden(model, tokens()), hidden(bare, tokens()))
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in bare.named_parameters()}
    MixtureOfLora.attach(model, OPTIONS, num_experts=2, target_modules=default_target_modules(model))
