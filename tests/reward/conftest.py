from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    GemmaConfig,
    GemmaModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from copl.experts.gates.catalogue import COMPONENTS
from copl.experts.gates.fixed import NoGate
from copl.experts.options import MixtureOptions
from copl.interfaces import SCRATCH, ExpertGate, Progress
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable
from copl.reward.backbones.loaded import LoadedBackbone, prepare_backbone
from copl.reward.model import PersonalRewardModel
from copl.reward.options import RewardOptions
from copl.reward.reading.reader import TextReader
from copl.reward.scoring import score_responses
from copl.reward.store import load_reward_model, read_reward_card
from copl.reward.training.setup import RewardDesign, TrainingSetup, set_up
from copl.reward.training.train import train_reward_model
from copl.reward.training.user_vectors import UserVectors
from copl.system.progress import SilentProgress

WORDS = [f"w{i}" for i in range(60)]
LAYERS = 3


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS, "a", ":"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def _backbone(kind: str) -> LoadedBackbone:
    size = {
        "vocab_size": 70,
        "hidden_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    }
    grouped = size | {"num_key_value_heads": 2, "initializer_range": 0.2}
    gemma = grouped | {"head_dim": 8, "pad_token_id": 0}
    makers: dict[str, Callable[[], Any]] = {
        "bert": lambda: BertModel(BertConfig(**size, initializer_range=0.2)),
        "llama": lambda: LlamaModel(LlamaConfig(**grouped)),
        "qwen2": lambda: Qwen2Model(Qwen2Config(**grouped)),
        "qwen3": lambda: Qwen3Model(Qwen3Config(**grouped, head_dim=8)),
        "gemma": lambda: GemmaModel(GemmaConfig(**gemma)),
        "gemma3": lambda: Gemma3TextModel(Gemma3TextConfig(**gemma, sliding_window=64, query_pre_attn_scalar=8)),
        "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=70, n_positions=64, n_embd=32, n_layer=LAYERS, n_head=4)),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = makers[kind]()
    return prepare_backbone(model, _tokenizer())


@pytest.fixture
def make_backbone() -> Callable[[str], LoadedBackbone]:
    """Makes the same tiny random transformer each time: ``bert``, ``llama``, ``gemma``, ..."""
    return _backbone


@pytest.fixture
def make_gate() -> Callable[..., ExpertGate]:
    """Makes the same gate each time."""

    def make(name: str, dim: int, **options: Any) -> ExpertGate:
        if name == "none":
            return NoGate()
        component = next(c for c in COMPONENTS if c.name == name)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            gate: ExpertGate = component.build(component.options(**options), embedding_dim=dim)
        return gate

    return make


@pytest.fixture
def preferences() -> tuple[PreferenceData, UserVectors]:
    """Two groups of users: one wants many of the words w0 to w2, the other few; embeddings tell the groups apart."""
    rng = np.random.default_rng(0)
    num_users, num_texts = 16, 40
    texts, height = [], np.empty(num_texts)
    for n in range(num_texts):
        length = rng.integers(4, 12)
        high = rng.random(length) < rng.random()
        texts.append(
            " ".join(f"w{word}" for word in np.where(high, rng.integers(0, 3, length), rng.integers(3, 6, length)))
        )
        height[n] = high.mean() + 1e-6 * n
    group = np.arange(num_users) % 2

    def draw(count: int) -> Comparisons:
        user = rng.integers(num_users, size=count)
        first = rng.integers(num_texts, size=count)
        second = (first + rng.integers(1, num_texts, size=count)) % num_texts
        wants_first = (height[first] > height[second]) == (group[user] == 1)
        return Comparisons(user, np.where(wants_first, first, second), np.where(wants_first, second, first))

    users = UserTable([f"user {i}" for i in range(num_users)], [str(g) for g in group])
    responses = ResponseTable(["w1 w2"] * num_texts, texts)
    data = PreferenceData("planted", users, responses, {"train": draw(400), "validation": draw(64), "test": draw(200)})
    values = torch.from_numpy(np.stack([2.0 * group - 1.0, rng.normal(size=num_users)], axis=1)).float()
    return data, UserVectors(users.ids, values)


@pytest.fixture
def put_together(
    preferences: tuple[PreferenceData, UserVectors],
    make_backbone: Callable[[str], LoadedBackbone],
    make_gate: Callable[..., ExpertGate],
) -> Callable[..., TrainingSetup]:
    """Puts model, texts and comparisons together as training does, on a tiny Llama."""

    def put(options: RewardOptions, gate: str, *, trainable_users: bool = False, **gate_options: Any) -> TrainingSetup:
        data, users = preferences
        mixture = MixtureOptions(shared_rank=2, expert_rank=2, dropout=0.0)
        options = attrs.evolve(options, max_length=32)
        return set_up(
            data,
            attrs.evolve(users, trainable=trainable_users),
            TextReader.over(make_backbone("llama"), options),
            RewardDesign(make_gate(gate, users.values.shape[1], **gate_options), mixture, options),
            seed=0,
            progress=SilentProgress(),
        )

    return put


@pytest.fixture
def last_look_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the steps that were taken, good or bad."""
    for module in ("loop", "reward_training"):
        monkeypatch.setattr(f"copl.reward.training.{module}.best_of", lambda curve: curve[-1])


@pytest.fixture
def load_tiny(
    make_backbone: Callable[[str], LoadedBackbone], make_gate: Callable[..., ExpertGate]
) -> Callable[..., PersonalRewardModel]:
    """Reads back what `train_tiny` saved."""

    def load(directory: Path, *, gate: str = "top1", kind: str = "llama") -> PersonalRewardModel:
        reader = TextReader.over(make_backbone(kind), read_reward_card(directory).options)
        return load_reward_model(directory, reader, lambda dim: _three_experts(make_gate, gate, dim))

    return load


def _three_experts(make_gate: Callable[..., ExpertGate], gate: str, dim: int) -> ExpertGate:
    return make_gate(gate, dim) if gate == "none" else make_gate(gate, dim, num_experts=3)


@pytest.fixture
def train_tiny(
    make_backbone: Callable[[str], LoadedBackbone],
    make_gate: Callable[..., ExpertGate],
    load_tiny: Callable[..., PersonalRewardModel],
) -> Callable[..., PersonalRewardModel]:
    """Trains a reward model on a tiny transformer, saves it, and reads it back."""

    def train(
        directory: Path,
        data: PreferenceData,
        users: UserVectors | None,
        options: RewardOptions,
        *,
        gate: str = "top1",
        mixture: MixtureOptions | None = None,
        kind: str = "llama",
        progress: Progress | None = None,
        seed: int = 0,
    ) -> PersonalRewardModel:
        train_reward_model(
            data,
            users,
            TextReader.over(make_backbone(kind), options),
            RewardDesign(
                _three_experts(make_gate, gate, 0 if users is None else users.values.shape[1]),
                mixture or MixtureOptions(shared_rank=2, expert_rank=2, dropout=0.0),
                options,
            ),
            seed=seed,
            directory=directory,
            progress=progress or SilentProgress(),
        )
        shutil.rmtree(directory / SCRATCH, ignore_errors=True)  # as a workspace does when a stage is finished
        return load_tiny(directory, gate=gate, kind=kind)

    return train


class Listener:
    """Keeps what is logged and the names and sizes of all tasks."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.tasks: list[str] = []
        self.sizes: list[int | None] = []

    def task(self, name: str, total: int | None = None) -> Any:
        self.tasks.append(name)
        self.sizes.append(total)
        return SilentProgress().task(name, total)

    def log(self, stage: str, **values: Any) -> None:
        self.records.append({"stage": stage, **values})


@pytest.fixture
def listener() -> Listener:
    """A place for progress that can be read afterwards, in `records` and `tasks`."""
    return Listener()


@pytest.fixture
def test_accuracy() -> Callable[..., float]:
    """Returns the accuracy of a model on the split ``test`` for the user vectors [U, D] of all users."""

    def accuracy(model: PersonalRewardModel, data: PreferenceData, values: torch.Tensor | None) -> float:
        pairs = data.splits["test"]
        vectors = None if values is None else values[torch.from_numpy(pairs.user)]
        chosen = score_responses(model, data.responses, vectors, pairs.chosen)
        rejected = score_responses(model, data.responses, vectors, pairs.rejected)
        return float((chosen > rejected).mean())

    return accuracy
