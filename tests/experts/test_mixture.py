from __future__ import annotations

import copy
import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2Model,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    Qwen2Config,
    Qwen2Model,
)

from copl.errors import BackboneError, OptionsError, RunError
from copl.experts.adapter_files import write_adapter
from copl.experts.mixture import MixtureOfLora, adapters_off, user_slice
from copl.experts.options import MixtureOptions
from copl.experts.targets import default_target_modules

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
MODELS = {
    "llama": lambda: LlamaModel(LlamaConfig(**SMALL, num_key_value_heads=2)),
    "qwen2": lambda: Qwen2Model(Qwen2Config(**SMALL, num_key_value_heads=2)),
    "gemma2": lambda: Gemma2Model(Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, pad_token_id=0)),
    "bert": lambda: BertModel(BertConfig(**SMALL)),
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
}
OPTIONS = MixtureOptions(shared_rank=2, expert_rank=3, alpha=6.0, dropout=0.0)


def backbone(name: str = "llama", seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return MODELS[name]().eval()


def randomise(mixture: MixtureOfLora, seed: int = 1) -> MixtureOfLora:
    generator = torch.Generator().manual_seed(seed)
    for parameter in mixture.peft_model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return mixture


def attached(
    name: str = "llama",
    options: MixtureOptions = OPTIONS,
    num_experts: int = 4,
    layers: tuple[int, ...] | None = None,
) -> MixtureOfLora:
    model = backbone(name)
    targets = default_target_modules(model)
    mixture = MixtureOfLora.attach(model, options, num_experts=num_experts, target_modules=targets, layers=layers)
    return randomise(mixture)


def tokens(batch: int = 3, length: int = 7) -> Tensor:
    return torch.randint(3, 50, (batch, length), generator=torch.Generator().manual_seed(5))


def hidden(model: nn.Module, ids: Tensor) -> Tensor:
    output: Tensor = model(input_ids=ids).last_hidden_state
    return output


def user_adapter(mixture: MixtureOfLora, weights: Tensor, directory: Path) -> int:
    """Write one user's slice as stock PEFT loads it; return its rank."""
    rank, config, tensors = user_slice(mixture, weights)
    write_adapter(directory, config, tensors)
    return rank


WEIGHTS = torch.tensor([[0.7, 0.0, 0.0, 0.0], [0.0, 0.0, 0.4, 0.0], [0.1, 0.2, 0.3, 0.4]])


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


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layers", [None, (1,)])
def test_a_saved_mixture_comes_back_as_it_was(name: str, layers: tuple[int, ...] | None, tmp_path: Path) -> None:
    mixture, ids = attached(name, layers=layers), tokens()
    mixture.set_weights(WEIGHTS)
    before = hidden(mixture.peft_model, ids)
    mixture.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "mixture.json",
    ]
    model = backbone(name)
    state = torch.random.get_rng_state()
    again = MixtureOfLora.load(model, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (again.layout, again.options) == (mixture.layout, mixture.options)
    again.set_weights(WEIGHTS)
    torch.testing.assert_close(hidden(again.peft_model, ids), before)
    trainable = {n for n, p in mixture.peft_model.named_parameters() if p.requires_grad}
    assert {n for n, p in again.peft_model.named_parameters() if p.requires_grad} == trainable
    saved = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    again.save(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == saved


@pytest.mark.parametrize("name", MODELS)
def test_the_files_are_stock_peft_of_the_full_rank_but_it_refuses_to_run_them_unmasked(
    name: str, tmp_path: Path
) -> None:
    mixture, ids = attached(name), tokens()
    mixture.save(tmp_path)
    with pytest.raises(ValueError, match="a copl mixture of experts: open the run with"):
        stock_peft(backbone(name), tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"init_lora_weights": True}))
    stock = stock_peft(backbone(name), tmp_path)
    assert stock.peft_config["default"].r == mixture.layout.rank == 14
    mixture.set_weights(torch.ones(3, 4))
    torch.testing.assert_close(hidden(stock, ids), hidden(mixture.peft_model, ids), atol=1e-6, rtol=1e-6)


def stock_peft(model: PreTrainedModel, directory: Path) -> PeftModel:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        return PeftModel.from_pretrained(model, directory)


@pytest.mark.parametrize("gate_power", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_a_users_slice_is_a_plain_lora_with_the_same_output(name: str, gate_power: int, tmp_path: Path) -> None:
    options = MixtureOptions(shared_rank=2, expert_rank=3, alpha=6.0, dropout=0.0, gate_power=gate_power)
    mixture, ids = attached(name, options), tokens()
    mixture.set_weights(WEIGHTS)
    before = hidden(mixture.peft_model, ids)
    for row, rank in ((0, 5), (1, 5), (2, 14)):
        directory = tmp_path / str(row)
        assert user_adapter(mixture, WEIGHTS[row], directory) == rank
        assert sorted(p.name for p in directory.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
        stock = stock_peft(backbone(name), directory)
        assert stock.peft_config["default"].r == rank
        alone = hidden(stock, ids[row : row + 1])
        torch.testing.assert_close(alone[0], before[row], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden(mixture.peft_model, ids), before)


def test_a_slice_without_any_expert_is_the_bare_backbone(tmp_path: Path) -> None:
    mixture = attached(options=MixtureOptions(shared_rank=0, expert_rank=3, dropout=0.0))
    assert user_adapter(mixture, torch.zeros(4), tmp_path) == 1
    stock = stock_peft(backbone(), tmp_path)
    torch.testing.assert_close(hidden(stock, tokens()), hidden(backbone(), tokens()))


def test_a_plain_lora_is_sliced_whole(tmp_path: Path) -> None:
    mixture = attached(num_experts=0)
    assert user_adapter(mixture, torch.zeros(0), tmp_path) == 2
    stock = stock_peft(backbone(), tmp_path)
    torch.testing.assert_close(hidden(stock, tokens()), hidden(mixture.peft_model, tokens()))


def test_a_directory_that_is_no_mixture_is_refused(tmp_path: Path) -> None:
    def refusal() -> str:
        with pytest.raises(RunError) as error:
            MixtureOfLora.load(backbone(), tmp_path)
        return str(error.value)

    assert "holds no adapter" in refusal()
    user_adapter(attached(), WEIGHTS[0], tmp_path)
    assert "plain adapter, not a mixture" in refusal()

    mixture = attached()
    mixture.save(tmp_path)
    weights, marker = tmp_path / "adapter_model.safetensors", tmp_path / "mixture.json"
    content, written = weights.read_bytes(), marker.read_text()
    weights.write_bytes(content[: len(content) // 2])
    assert "adapter_model.safetensors is damaged or foreign" in refusal()
    weights.unlink()
    (tmp_path / "adapter_config.json").write_text("{}")
    message = refusal()
    assert "adapter_config.json is damaged" in message
    assert "adapter_model.safetensors is missing" in message

    mixture.save(tmp_path)
    marker.write_text(written[:40])
    assert "mixture.json: damaged" in refusal()
    marker.write_text("[]")
    assert "mixture.json: format is nothing" in refusal()
    marker.write_text(json.dumps(json.loads(written) | {"version": 99}))
    assert "version is 99" in refusal()
    marker.write_text(json.dumps({**json.loads(written), "layout": {"rank": 3}}))
    assert "mixture.json: layout.shared_rank: missing" in refusal()


def test_an_adapter_for_another_backbone_is_refused(tmp_path: Path) -> None:
    attached("llama").save(tmp_path)
    with pytest.raises(BackboneError, match="'q_proj' is not in BertModel"):
        MixtureOfLora.load(backbone("bert"), tmp_path)
    wider = LlamaModel(LlamaConfig(**(SMALL | {"hidden_size": 64}), num_key_value_heads=2))
    with pytest.raises(RunError, match=r"made for another backbone.*\(14, 32\) on disk, \(14, 64\) wanted"):
        MixtureOfLora.load(wider, tmp_path)


def test_a_failed_save_leaves_no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = attached()
    mixture.save(tmp_path)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        mixture.save(tmp_path)
    with pytest.raises(RunError, match="not a mixture"):
        MixtureOfLora.load(backbone(), tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_copies_have_masks_of_their_own() -> None:
    mixture, ids = attached(), tokens()
    other = copy.deepcopy(mixture)
    mixture.set_weights(WEIGHTS)
    other.set_weights(WEIGHTS.flip(0))
    assert not torch.allclose(hidden(mixture.peft_model, ids), hidden(other.peft_model, ids))


PER_LAYER = MixtureOptions(shared_rank=2, expert_rank=3, alpha=6.0, dropout=0.0, gates="per-layer")


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


def test_a_users_slice_fills_up_where_its_gates_keep_unequal_numbers_of_experts(tmp_path: Path) -> None:
    mixture, ids = attached(options=PER_LAYER), tokens(1)
    weights = torch.zeros(1, mixture.num_gates, 4)
    weights[0, 0, 1:3], weights[0, 2, 3] = 0.5, 0.7
    mixture.set_weights(weights.flatten(1))
    before = hidden(mixture.peft_model, ids)
    assert user_adapter(mixture, weights.flatten(), tmp_path) == 8  # the shared two, and two experts of three
    torch.testing.assert_close(hidden(stock_peft(backbone(), tmp_path), ids), before, atol=1e-5, rtol=1e-5)


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
