"""What the tests of training have in common: tiny models, trained and loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import load_file

from copl.experts.options import MixtureOptions
from copl.interfaces import SCRATCH, ExpertGate
from copl.records import PreferenceData
from copl.reward.backbones.loaded import LoadedBackbone
from copl.reward.model import PersonalRewardModel
from copl.reward.options import RewardOptions
from copl.reward.reading.reader import TextReader
from copl.reward.scoring import score_responses
from copl.reward.store import load_reward_model, read_reward_card
from copl.reward.training.setup import RewardDesign
from copl.reward.training.train import train_reward_model
from copl.reward.training.user_vectors import UserVectors
from copl.system.progress import SilentProgress

Planted = tuple[PreferenceData, UserVectors]
WARM = RewardOptions(
    max_steps=8,
    batch_size=8,
    eval_every=4,
    max_length=32,
    learning_rate=3e-3,
    head_learning_rate=3e-2,
    patience=99,
    trainable_layers=0,
)


QUICK = attrs.evolve(WARM, warm_start=False, eval_every=8)


class Bench:
    """Trains and loads tiny models."""

    def __init__(self, make_backbone: Callable[[str], LoadedBackbone], make_gate: Callable[..., ExpertGate]) -> None:
        self.make_backbone, self.make_gate = make_backbone, make_gate

    def train(
        self,
        directory: Path,
        preferences: Planted,
        options: RewardOptions = QUICK,
        *,
        gate: str = "top1",
        kind: str = "bert",
        personal: bool = True,
        progress: Any = None,
        seed: int = 0,
    ) -> PersonalRewardModel:
        data, users = preferences
        train_reward_model(
            data,
            users if personal else None,
            TextReader.over(self.make_backbone(kind), options),
            RewardDesign(
                self.gate(gate, 2 if personal else 0),
                MixtureOptions(shared_rank=2, expert_rank=2, dropout=0.1),
                options,
            ),
            seed=seed,
            directory=directory,
            progress=progress or SilentProgress(),
        )
        shutil.rmtree(directory / SCRATCH, ignore_errors=True)  # as a workspace does when a stage is finished
        return self.load(directory, gate=gate, kind=kind)

    def gate(self, name: str, dim: int) -> ExpertGate:
        return self.make_gate(name, dim) if name == "none" else self.make_gate(name, dim, num_experts=3)

    def load(
        self, directory: Path, *, gate: str = "top1", kind: str = "bert", options: RewardOptions | None = None
    ) -> PersonalRewardModel:
        reader = TextReader.over(self.make_backbone(kind), options or read_reward_card(directory).options)
        return load_reward_model(directory, reader, lambda dim: self.gate(gate, dim))


def accuracy(model: PersonalRewardModel, preferences: Planted, split: str = "test") -> float:
    data, users = preferences
    pairs = data.splits[split]
    vectors = users.values[torch.from_numpy(pairs.user)] if model.embedding_dim else None
    chosen = score_responses(model, data.responses, vectors, pairs.chosen)
    rejected = score_responses(model, data.responses, vectors, pairs.rejected)
    return float((chosen > rejected).mean())


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors") | load_file(directory / "adapter" / "adapter_model.safetensors")


def assert_equal_models(first: Path, second: Path, tolerance: float = 0.0) -> None:
    a, b = tensors(first), tensors(second)
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.allclose(tensor, b[name], rtol=0, atol=tolerance), name
