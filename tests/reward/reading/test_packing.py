from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.tiny_models import prefix_space_tokenizer, tiny_model
from copl.errors import BackboneError
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions
from copl.interfaces import ExpertGate
from copl.records import Comparisons, PreferenceData, ResponseTable
from copl.reward.backbones.loaded import EncodedResponses, LoadedBackbone, encode_responses, prepare_backbone
from copl.reward.heads import BilinearHead
from copl.reward.model import AffineScaling, PersonalRewardModel
from copl.reward.options import RewardOptions
from copl.reward.reading import packing
from copl.reward.reading.packing import check_packing, pack_pairs, saved_share, shared_beginning
from copl.reward.reading.reader import TextReader
from copl.reward.store import read_reward_card
from copl.reward.training.batches import PairCollator, routed_epoch
from copl.reward.training.objective import BradleyTerryObjective
from copl.reward.training.user_vectors import UserVectors

Make = Callable[[str], LoadedBackbone]
Planted = tuple[PreferenceData, UserVectors]
DECODERS = ["llama", "gemma", "gemma3", "qwen2", "qwen3", "gpt2"]
PROMPTS = ["w1 w2 w9", "", "w3", "w4 w5 w6 w7 w8 w9 w10 w11 w12"]


def table() -> ResponseTable:
    """Texts of uneven length: four prompts with five responses each."""
    rng = np.random.default_rng(1)
    words = [" ".join(f"w{w}" for w in rng.integers(0, 60, rng.integers(1, 9))) for _ in range(20)]
    return ResponseTable([PROMPTS[n % 4] for n in range(20)], words)


TABLE = table()


def texts(backbone: LoadedBackbone, max_length: int = 64) -> EncodedResponses:
    return encode_responses(backbone, TABLE, np.arange(20), max_length)


# same prompt; other prompts; a text and itself; one text that the other begins with
PAIRS = Comparisons([0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 5, 6], [4, 9, 2, 4, 1, 11], np.array([1.0, 2, 1, 1, 3, 1]))
USERS = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [0.5, -1.5]])


def randomise(model: PersonalRewardModel) -> PersonalRewardModel:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def build(backbone: LoadedBackbone, gate: ExpertGate, trainable_layers: int = 0) -> PersonalRewardModel:
    reader = TextReader.over(backbone, RewardOptions(max_length=64, trainable_layers=trainable_layers))
    mixture = MixtureOfLora.attach(
        backbone.model,
        MixtureOptions(shared_rank=2, expert_rank=2, dropout=0.0),
        num_experts=3,
        target_modules=backbone.target_modules,
        layers=None if reader.trunk is None else reader.trunk.layers,
    )
    plain = AffineScaling(torch.zeros(2), torch.ones(2))
    features = AffineScaling(torch.zeros(backbone.hidden_size), torch.ones(backbone.hidden_size))
    head = BilinearHead(backbone.hidden_size, 2)
    return randomise(PersonalRewardModel(reader, mixture, gate, head, users=plain, features=features)).eval()


def outcome(model: PersonalRewardModel, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Loss, margins and all gradients."""
    objective = BradleyTerryObjective(model)
    objective.zero_grad()
    found = objective(**batch)
    found["loss"].backward()
    gradients = {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}
    return {k: v.detach() for k, v in found.items()} | gradients


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert len(first) > 6
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("kind", DECODERS)
def test_packed_pairs_give_the_loss_and_gradients_of_texts_one_by_one(
    kind: str, pooling: Any, attention: str, make_backbone: Make, make_gate: Callable[..., ExpertGate]
) -> None:
    backbone = attrs.evolve(make_backbone(kind), pooling=pooling)
    backbone.model.set_attn_implementation(attention)
    encoded = texts(backbone)
    check_packing(backbone, encoded, PAIRS)
    model = build(backbone, make_gate("softmax", 2, num_experts=3, noise=0.0))
    rows = np.arange(6)
    plain, packed = (
        PairCollator(encoded, PAIRS, USERS, routes=None, kept=None, packed=packed)(rows) for packed in (False, True)
    )
    assert packed["input_ids"].numel() < plain["input_ids"].numel()
    assert_same(outcome(model, plain), outcome(model, packed))


def test_texts_that_are_tokenised_whole_are_packed_alike(make_gate: Callable[..., ExpertGate]) -> None:
    """A prefix-space tokenizer under a chat template that takes thoughts apart."""
    backbone = prepare_backbone(tiny_model("llama"), prefix_space_tokenizer(chat=True))
    answers = ["a b", " a b", "<think>a</think> b", "</think>", "b </s> c", "a"]
    responses = ResponseTable(["How? a"] * 6, answers)
    encoded = encode_responses(backbone, responses, np.arange(6), 100)
    pairs = Comparisons([0, 1, 2], [0, 2, 4], [1, 3, 5])
    check_packing(backbone, encoded, pairs)
    model = build(backbone, make_gate("softmax", 2, num_experts=3, noise=0.0))
    plain, packed = (
        PairCollator(encoded, pairs, USERS, routes=None, kept=None, packed=packed)(np.arange(3))
        for packed in (False, True)
    )
    assert packed["input_ids"].numel() < plain["input_ids"].numel()
    assert_same(outcome(model, plain), outcome(model, packed))


def test_packed_pairs_go_on_from_kept_states(make_backbone: Make, make_gate: Callable[..., ExpertGate]) -> None:
    backbone = make_backbone("llama")
    kept = TextReader.over(backbone, RewardOptions(max_length=64, trainable_layers=1)).states(TABLE, np.arange(20))
    encoded = texts(backbone)
    model = build(backbone, make_gate("softmax", 2, num_experts=3, noise=0.0), 1)
    ways = [
        PairCollator(encoded, PAIRS, USERS, routes=None, kept=states, packed=packed)(np.arange(6))
        for states in (None, kept)
        for packed in (False, True)
    ]
    plain, *others = (outcome(model, batch) for batch in ways)
    for other in others:
        assert_same(plain, other)


def test_padding_does_not_count(make_backbone: Make, make_gate: Callable[..., ExpertGate]) -> None:
    backbone = make_backbone("llama")
    encoded = texts(backbone)
    model = build(backbone, make_gate("softmax", 2, num_experts=3, noise=0.0))
    collator = PairCollator(encoded, PAIRS, USERS, routes=None, kept=None, packed=True)
    with torch.no_grad():
        together = BradleyTerryObjective(model)(**collator(np.arange(6)))["margins"]
        alone = [BradleyTerryObjective(model)(**collator(np.array([n])))["margins"] for n in range(6)]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=1e-4)


def test_one_pair_by_hand() -> None:
    encoded = EncodedResponses(
        np.array([5, 6, 7, 8, 5, 6, 9], dtype=np.int32), np.array([0, 4, 7]), np.array([2, 2]), 0, 64, 0, 0
    )
    pairs, shared = pack_pairs(encoded, np.array([0]), np.array([1]))
    assert shared == [2]
    assert pairs.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert pairs.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert pairs.segments.tolist() == [[0, 0, 1, 1, 2]]
    assert pairs.block_mask()[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert saved_share(encoded, Comparisons([0], [0], [1])) == pytest.approx(2 / 7)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.lists(st.integers(0, 2), min_size=1, max_size=6))
@settings(max_examples=60)
def test_the_shared_beginning_is_common_and_leaves_each_text_a_token(first: list[int], second: list[int]) -> None:
    shared = shared_beginning(np.array(first), np.array(second))
    assert first[:shared] == second[:shared]
    assert shared < min(len(first), len(second))
    longer = shared + 1
    assert longer == min(len(first), len(second)) or first[:longer] != second[:longer]


def test_encoders_and_other_attention_cannot_pack(make_backbone: Make) -> None:
    bert = make_backbone("bert")
    with pytest.raises(BackboneError, match="only models that read from left to right"):
        check_packing(bert, texts(bert), PAIRS)
    sliding = make_backbone("llama")
    sliding.model.config.sliding_window = 3
    with pytest.raises(BackboneError, match="exceed the sliding window of LlamaModel, 3 tokens"):
        check_packing(sliding, texts(sliding), PAIRS)
    other = make_backbone("llama")
    other.model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(BackboneError, match="flash_attention_2 attention; it takes no block mask"):
        check_packing(other, texts(other), PAIRS)


def test_a_model_that_ignores_positions_is_found_out(make_backbone: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = make_backbone("llama")
    inputs = packing.packed_inputs
    monkeypatch.setattr(packing, "packed_inputs", lambda *a: {**inputs(*a), "position_ids": None})
    with pytest.raises(BackboneError, match="hidden states of LlamaModel differ"):
        check_packing(backbone, texts(backbone), PAIRS)


QUICK = RewardOptions(
    max_steps=4, batch_size=8, eval_every=2, max_length=32, learning_rate=1e-3, trainable_layers=0, warm_start=False
)


@pytest.mark.parametrize(
    ("kind", "gate", "wanted", "expected"),
    [
        ("llama", "top1", "auto", True),
        ("llama", "top1", "on", True),
        ("llama", "top1", "off", False),
        ("llama", "none", "auto", False),
        ("bert", "top1", "auto", False),
    ],
)
def test_pairs_are_packed_where_it_can_be_done(
    kind: str,
    gate: str,
    wanted: Any,
    expected: bool,
    train_tiny: Callable[..., PersonalRewardModel],
    preferences: Planted,
    tmp_path: Path,
) -> None:
    options = attrs.evolve(QUICK, pack_pairs=wanted, max_steps=1)
    train_tiny(tmp_path, *preferences, options, gate=gate, kind=kind)
    assert read_reward_card(tmp_path).training["packed_pairs"] is expected


def test_asking_for_what_cannot_be_done_is_an_error(
    train_tiny: Callable[..., PersonalRewardModel], preferences: Planted, tmp_path: Path
) -> None:
    with pytest.raises(BackboneError) as error:
        train_tiny(tmp_path, *preferences, attrs.evolve(QUICK, pack_pairs="on"), kind="bert")
    assert "set reward.pack_pairs to auto or off" in error.value.faults


def test_batches_without_buckets_hold_every_comparison_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=231)
    plain, sorted_ones = (routed_epoch(lengths, 4, np.random.default_rng(0), buckets=b) for b in (False, True))
    for batches in (plain, sorted_ones):
        assert sorted(np.concatenate(batches).tolist()) == list(range(231))
    spread = [np.mean([np.ptp(lengths[batch]) for batch in batches]) for batches in (plain, sorted_ones)]
    assert spread[0] > 4 * spread[1]


def test_an_epoch_in_buckets_has_the_gradient_of_one_without(
    make_backbone: Make, make_gate: Callable[..., ExpertGate], preferences: Planted
) -> None:
    """At fixed weights the mean over an epoch is the same, however its comparisons are batched and padded."""
    backbone = make_backbone("llama")
    data, users = preferences
    encoded = encode_responses(backbone, data.responses, np.arange(40), 64)
    model = build(backbone, make_gate("softmax", 2, num_experts=3, noise=0.0))
    train = data.splits["train"].take(np.arange(64))
    lengths = np.maximum(encoded.lengths[train.chosen], encoded.lengths[train.rejected])
    collator = PairCollator(encoded, train, users.values, routes=None, kept=None)
    totals, padding = [], []
    for buckets in (True, False):
        batches = routed_epoch(lengths, 8, np.random.default_rng(0), buckets=buckets)
        inputs = [collator(batch) for batch in batches]
        padding.append(sum(int((batch["attention_mask"] == 0).sum()) for batch in inputs))
        model.zero_grad()
        for batch in inputs:
            (BradleyTerryObjective(model)(**batch)["loss"] / len(batches)).backward()
        totals.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert padding[0] < padding[1]
    assert_same(*totals)
