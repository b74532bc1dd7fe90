from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from copl.experts.gates import COMPONENTS, NoGate
from copl.interfaces import ExpertGate
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable
from copl.reward.backbone import LoadedBackbone, prepare_backbone
from copl.reward.training import UserVectors

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
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "bert":
            model: Any = BertModel(BertConfig(**size, initializer_range=0.2))
        else:
            model = LlamaModel(LlamaConfig(**size, num_key_value_heads=2, initializer_range=0.2))
    return prepare_backbone(model, _tokenizer())


@pytest.fixture
def make_backbone() -> Callable[[str], LoadedBackbone]:
    """Makes the same tiny random transformer each time: ``bert`` or ``llama``."""
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
