"""Adapters on disk: the whole mixture as it was, a user's slice as stock PEFT loads it, and files that are neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaModel,
)

from copl.errors import BackboneError, RunError
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions
from tests.experts.mixtures import (
    MODELS,
    PER_LAYER,
    SMALL,
    WEIGHTS,
    attached,
    backbone,
    hidden,
    stock_peft,
    tokens,
    user_adapter,
)


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


def test_a_users_slice_fills_up_where_its_gates_keep_unequal_numbers_of_experts(tmp_path: Path) -> None:
    mixture, ids = attached(options=PER_LAYER), tokens(1)
    weights = torch.zeros(1, mixture.num_gates, 4)
    weights[0, 0, 1:3], weights[0, 2, 3] = 0.5, 0.7
    mixture.set_weights(weights.flatten(1))
    before = hidden(mixture.peft_model, ids)
    assert user_adapter(mixture, weights.flatten(), tmp_path) == 8  # the shared two, and two experts of three
    torch.testing.assert_close(hidden(stock_peft(backbone(), tmp_path), ids), before, atol=1e-5, rtol=1e-5)
