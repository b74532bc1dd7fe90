"""Gemma, Llama, Qwen and BERT from the file system to scores: trained, saved, opened again and scoring alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.tiny_models import byte_tokenizer, tiny_model
from copl.data.chat import encode_messages
from copl.errors import BackboneError, TrainingError
from copl.experts.gates.catalogue import LearnedGateOptions
from copl.experts.gates.learned import LearnedGate
from copl.experts.options import MixtureOptions
from copl.interfaces import SCRATCH
from copl.records import PreferenceData, ResponseTable
from copl.reward.backbones.catalogue import HuggingFace, HuggingFaceOptions
from copl.reward.backbones.checkpoints import quiet
from copl.reward.backbones.loaded import LoadedBackbone, collate, encode_responses
from copl.reward.model import PersonalRewardModel
from copl.reward.options import RewardOptions
from copl.reward.reading.reader import TextReader
from copl.reward.scoring import score_responses
from copl.reward.store import load_reward_model, read_reward_card
from copl.reward.training.setup import RewardDesign
from copl.reward.training.train import train_reward_model
from copl.reward.training.user_vectors import UserVectors
from copl.system.progress import SilentProgress
from tests.reward.padding import on_the_left

Planted = tuple[PreferenceData, UserVectors]
KINDS = ["gemma", "gemma3", "llama", "qwen2", "qwen3", "bert"]
CHAT = "{% for m in messages %}<turn> {{ m['role'] }} : {{ m['content'] }} <end> {% endfor %}"
OPTIONS = RewardOptions(
    warm_start=False, max_steps=3, batch_size=8, eval_every=3, max_length=64, learning_rate=3e-3, trainable_layers=0
)
DIALOGUE = [
    {"role": "user", "content": "w1 w2"},
    {"role": "assistant", "content": "w3"},
    {"role": "user", "content": "w4"},
]


def tokenizer(kind: str, pad: str) -> PreTrainedTokenizerFast:
    """Words of the planted data; decoders speak in turns, their padding is a token of its own, the end or missing.

    Qwen2 models are always opened with byte pairs.
    """
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<turn>", "<end>", "user", "assistant", ":", "Human", "Assistant", "a"]
    vocabulary = {word: n for n, word in enumerate([*words, *(f"w{n}" for n in range(50))])}
    if kind == "qwen2":
        letters = ["[PAD]", "<end>", "Ġ", *"w0123456789:<>adeinrstu"]
        made = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"own": {"pad_token": "[PAD]"}, "end": {"pad_token": "<end>"}, "none": {}}[pad]
    unknown = {} if kind == "qwen2" else {"unk_token": "[UNK]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", **unknown, **special)
    if kind != "bert":
        fast.chat_template = CHAT
    return fast


@pytest.fixture
def saved(make_backbone: Callable[[str], LoadedBackbone], tmp_path: Path) -> Callable[..., HuggingFace]:
    """Writes a tiny random transformer as people publish them, and gives the component that opens it."""

    def save(kind: str, pad: str = "own") -> HuggingFace:
        directory = tmp_path / f"{kind}-{pad}"
        if not directory.exists():
            from transformers.utils import logging

            logging.disable_progress_bar()
            make_backbone(kind).model.save_pretrained(directory)
            tokenizer(kind, pad).save_pretrained(directory)
        return HuggingFace(HuggingFaceOptions(path=str(directory)))

    return save


def gate(dim: int) -> LearnedGate:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LearnedGate(LearnedGateOptions(num_experts=3, hidden_dim=8), embedding_dim=dim, top_k=1)


def train(
    backbone: HuggingFace, planted: Planted, directory: Path, options: RewardOptions = OPTIONS, **mixture: Any
) -> PersonalRewardModel:
    data, users = planted
    adapters = MixtureOptions(**{"shared_rank": 2, "expert_rank": 2, **mixture})
    train_reward_model(
        data,
        users,
        TextReader.over(backbone.load(), options),
        RewardDesign(gate(2), adapters, options),
        seed=0,
        directory=directory,
        progress=SilentProgress(),
    )
    return load_reward_model(directory, TextReader.over(backbone.load(), options), gate)


@pytest.mark.parametrize(
    ("kind", "pad"),
    [*((kind, "own") for kind in KINDS), ("qwen2", "end"), ("qwen2", "none"), ("bert", "end"), ("bert", "none")],
)
def test_every_architecture_trains_saves_loads_and_scores(
    kind: str,
    pad: str,
    saved: Callable[..., HuggingFace],
    preferences: Planted,
    tmp_path: Path,
    last_look_is_best: None,
) -> None:
    data, users = preferences
    backbone = saved(kind, pad)
    model = train(backbone, preferences, tmp_path / "run")
    card = read_reward_card(tmp_path / "run")
    assert card.training["steps"] == 3
    assert card.backbone["hidden_size"] == 32
    assert card.backbone["template"] == ("pair" if kind == "bert" else "chat")
    adapter = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert any(tensor.any() for name, tensor in adapter.items() if "lora_B" in name)
    rows = np.array([3, 1, 4, 1, 5])
    together = score_responses(model, data.responses, users.values[:5], rows)
    assert np.isfinite(together).all()
    again = load_reward_model(tmp_path / "run", TextReader.over(backbone.load(), OPTIONS), gate)
    for n in range(5):  # opened again, alone, and without any padding
        alone = score_responses(again, data.responses, users.values[n : n + 1], rows[n : n + 1])
        assert alone == pytest.approx(together[n : n + 1], abs=1e-4)
    encoded = encode_responses(model.backbone, data.responses, rows, OPTIONS.max_length)
    tokens = collate(encoded, np.arange(5))
    # absolute positions, as BERT has them, count from the first place of a row, padding or not
    for batch in (tokens,) if kind == "bert" else (tokens, on_the_left(tokens)):
        with torch.no_grad():
            rewards = model(batch, users.values[:5])
        assert rewards.numpy() == pytest.approx(together, abs=1e-4)


@pytest.mark.parametrize(
    "model_type",
    [
        "opt",  # which projects its states, as OPT-350m does
        "deberta",
        "deberta-v2",  # whose layers return more than states, and project relative positions by the same modules
        "albert",  # which runs one layer three times
        "xlm",  # which takes no masks of blocks, and whose layers are four lists
    ],
)
def test_unusual_backbones_train_or_say_what_to_set(model_type: str, preferences: Planted, tmp_path: Path) -> None:
    data, users = preferences
    with quiet():
        tiny_model(model_type).save_pretrained(tmp_path / "model")
        byte_tokenizer(chat=False).save_pretrained(tmp_path / "model")
    backbone, top = HuggingFace(HuggingFaceOptions(str(tmp_path / "model"))), attrs.evolve(OPTIONS, trainable_layers=1)
    if model_type == "xlm":
        with pytest.raises(
            BackboneError, match=r"cannot find the 3 layers of XLMModel; set reward\.trainable_layers to 0"
        ):
            train(backbone, preferences, tmp_path / "run", top)
        top = OPTIONS
    model = train(backbone, preferences, tmp_path / "run", top)
    rows = np.arange(4)
    together = score_responses(model, data.responses, users.values[:4], rows)
    for n in rows:
        alone = score_responses(model, data.responses, users.values[n : n + 1], rows[n : n + 1])
        assert alone == pytest.approx(together[n : n + 1], abs=1e-4)


@pytest.mark.parametrize("kind", ["qwen3", "bert"])
def test_conversations_are_scored_as_conversations(
    kind: str, saved: Callable[..., HuggingFace], preferences: Planted, tmp_path: Path
) -> None:
    data, users = preferences
    prompts = [encode_messages(DIALOGUE), *data.responses.prompts[1:]]
    talk = attrs.evolve(data, responses=ResponseTable(prompts, data.responses.texts))
    model = train(saved(kind), (talk, users), tmp_path / "run")
    table = ResponseTable([encode_messages(DIALOGUE), "w1 w2"], ["w5 w6"] * 2)
    encoded = encode_responses(model.backbone, table, np.arange(2), 48)
    spoken = model.backbone.tokenizer.decode(encoded.ids[: encoded.offsets[1]])
    if kind == "qwen3":
        turns = "<turn> user : w1 w2 <end> <turn> assistant : w3 <end> <turn> user : w4 <end>"
        assert spoken == f"{turns} <turn> assistant : w5 w6 <end>"
    scores = score_responses(model, table, users.values[:2], np.arange(2))
    assert np.isfinite(scores).all()


def test_a_tokenizer_that_does_not_know_the_texts_is_found_out(
    saved: Callable[..., HuggingFace], preferences: Planted, tmp_path: Path
) -> None:
    data, users = preferences
    foreign = attrs.evolve(data, responses=ResponseTable(["?"] * 40, [f"unheard-of-{n}" for n in range(40)]))
    with pytest.raises(BackboneError, match="same hidden state for all 40 texts; its tokenizer does not fit them"):
        train(saved("llama"), (foreign, users), tmp_path / "run")
    assert not (tmp_path / "run" / "reward.json").exists()


def test_modules_that_are_not_there_are_named_and_nothing_is_overwritten(
    saved: Callable[..., HuggingFace], preferences: Planted, tmp_path: Path
) -> None:
    backbone, run = saved("llama"), tmp_path / "run"
    train(backbone, preferences, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(BackboneError, match=r"target module 'q_porj' is not in LlamaModel \(did you mean 'q_proj'\?\)"):
        train(backbone, preferences, run, target_modules=("q_porj",))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    named = train(backbone, preferences, tmp_path / "named", target_modules=("down_proj", "o_proj"))
    assert all("down_proj" in name or "o_proj" in name for name in named.mixture.tensors())


@pytest.mark.parametrize(
    ("failure", "where"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "training"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), "training"),
        (torch.OutOfMemoryError("CUDA out of memory"), "reading responses"),
    ],
)
def test_exhausted_memory_says_what_to_do_and_overwrites_nothing(
    failure: Exception,
    where: str,
    saved: Callable[..., HuggingFace],
    preferences: Planted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone, run = saved("llama"), tmp_path / "run"
    train(backbone, preferences, run)
    shutil.rmtree(run / SCRATCH)  # else it has nothing left to train
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    forward = type(backbone.load().model).forward

    def exhausted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.training == (where == "training"):
            raise failure
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(backbone.load().model), "forward", exhausted)
    with pytest.raises(TrainingError, match=rf"memory exhausted in {where}; lower reward\.batch_size"):
        train(backbone, preferences, run, attrs.evolve(OPTIONS, pack_pairs="off"))
    assert all(path.read_bytes() == content for path, content in before.items())


def test_other_errors_in_training_keep_their_traceback(
    saved: Callable[..., HuggingFace], preferences: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = saved("llama")

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(type(backbone.load().model), "forward", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        train(backbone, preferences, tmp_path, attrs.evolve(OPTIONS, pack_pairs="off"))


@pytest.mark.parametrize("kind", ["gemma", "bert"])
def test_bfloat16_trains_where_it_is_asked_for(
    kind: str, saved: Callable[..., HuggingFace], preferences: Planted, tmp_path: Path
) -> None:
    data, users = preferences
    seen: list[torch.dtype] = []
    options = attrs.evolve(OPTIONS, precision="bfloat16", warm_start=False, gradient_accumulation=2)
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, output: (
            seen.append(output.dtype) if isinstance(module, torch.nn.Linear) and module.training else None
        )
    )
    try:
        model = train(saved(kind), preferences, tmp_path, options)
    finally:
        hook.remove()
    assert torch.bfloat16 in seen
    assert all(p.dtype == torch.float32 for p in model.parameters())  # weights and their sums stay exact
    assert np.isfinite(score_responses(model, data.responses, users.values[:3], np.arange(3))).all()
