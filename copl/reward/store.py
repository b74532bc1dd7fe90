"""A trained reward model on disk.

``adapter/`` holds a stock PEFT adapter, ``model.safetensors`` gate, head and scalings, ``reward.json`` the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import torch
from attrs import frozen
from torch import Tensor

from copl.errors import OptionsError, RunError
from copl.experts.adapter_files import read_mixture
from copl.experts.gates.fixed import NoGate
from copl.interfaces import ExpertGate
from copl.options import options_to_dict, parse_options
from copl.reward.backbones.loaded import LoadedBackbone
from copl.reward.heads import make_head
from copl.reward.model import AffineScaling, PersonalRewardModel
from copl.reward.options import RewardOptions
from copl.reward.reading.reader import TextReader
from copl.system.documents import read_document, write_document
from copl.system.tensors import ANYTHING, like, load_tensors, save_tensors

FORMAT_VERSION = 1
_CARD = "reward.json"
_TENSORS = "model.safetensors"
_ADAPTER = "adapter"
_AGAIN = "train the reward model again"


@final
@frozen
class _CardFile:
    format_version: int
    options: Mapping[str, Any]
    embedding_dim: int
    num_experts: int
    backbone: Mapping[str, Any]
    training: Mapping[str, Any]


@final
@frozen
class RewardCard:
    """What ``reward.json`` says of a trained reward model.

    Attributes:
        options: the options it was trained with.
        embedding_dim: dimension of the user embeddings, 0 without users.
        num_experts: number of routed experts of its gate.
        backbone: architecture it stands on: class, hidden size, layers.
        training: how training went: steps, curve, warm start, texts cut, seconds.
    """

    options: RewardOptions
    embedding_dim: int
    num_experts: int
    backbone: Mapping[str, Any]
    training: Mapping[str, Any]

    @property
    def kept_frozen(self) -> bool:
        """Whether the model kept has adapters of zero: rewards depend on texts by their frozen features alone."""
        return self.options.mode == "frozen" or self.training.get("kept_step") == 0


def describe_backbone(backbone: LoadedBackbone) -> dict[str, Any]:
    """Return what must agree between the backbone a model was trained on and the one it is loaded on."""
    return {
        "class": type(backbone.model).__name__.removeprefix("FSDP"),  # torch renames what it splits up
        "hidden_size": backbone.hidden_size,
        "num_layers": backbone.num_layers,
        "pooling": backbone.pooling,
        "template": backbone.template,
    }


def save_reward_model(model: PersonalRewardModel, card: RewardCard, directory: Path) -> None:
    """Write a trained reward model; ``reward.json`` comes last and marks it as whole."""
    model.mixture.save(directory / _ADAPTER)
    save_tensors(directory / _TENSORS, _own_tensors(model))
    content = _CardFile(
        FORMAT_VERSION,
        options_to_dict(card.options),
        card.embedding_dim,
        card.num_experts,
        card.backbone,
        card.training,
    )
    write_document(directory / _CARD, content)


def read_reward_card(directory: Path) -> RewardCard:
    """Read ``reward.json``.

    Raises:
        RunError: it is missing, damaged, foreign or from another version.
    """
    path = directory / _CARD
    content = read_document(path, _CardFile, advice=_AGAIN, version={"format_version": FORMAT_VERSION})
    try:
        options = parse_options(RewardOptions, content.options, where=f"{path}: options")
    except OptionsError as error:
        raise RunError([f"{fault}; {_AGAIN}" for fault in error.faults]) from error
    return RewardCard(options, content.embedding_dim, content.num_experts, content.backbone, content.training)


def load_reward_model(directory: Path, reader: TextReader, gate: Callable[[int], ExpertGate]) -> PersonalRewardModel:
    """Read a trained reward model; its backbone is opened when something has to pass it.

    Args:
        directory: where `train_reward_model` saved.
        reader: owns the backbone it was trained on; the adapters are put on it in place.
        gate: makes the gate for user embeddings of a given dimension; its weights are read from disk.

    Raises:
        RunError: a file is missing, damaged, from another version, or made for another gate; or the backbone is open
            already, and another one. Else that is said when it is opened.
    """
    card = read_reward_card(directory)
    own_gate = gate(card.embedding_dim) if card.options.needs_gate else NoGate()
    if own_gate.num_experts != card.num_experts:
        raise RunError(
            f"{directory} was trained with {card.num_experts} experts, this gate has {own_gate.num_experts}; "
            "choose the gate of the run"
        )
    hidden_size = int(card.backbone["hidden_size"])
    model = PersonalRewardModel(
        reader,
        read_mixture(directory / _ADAPTER),
        own_gate,
        make_head(card.options.head, hidden_size, card.embedding_dim, card.num_experts),
        users=AffineScaling(torch.zeros(card.embedding_dim), torch.ones(card.embedding_dim)),
        features=AffineScaling(torch.zeros(hidden_size), torch.ones(hidden_size)),
    )
    _read_tensors(model, directory / _TENSORS)
    reader.when_open(lambda backbone: _require_same(directory, card, backbone))
    return model.to(reader.device).eval()


def _require_same(directory: Path, card: RewardCard, backbone: LoadedBackbone) -> None:
    """Check that a backbone is of the architecture that a model was trained on.

    Raises:
        RunError: it is another one.
    """
    faults = [
        f"{directory} was trained with {name} {card.backbone.get(name)!r}, this backbone has {value!r}; "
        "choose the backbone of the run"
        for name, value in describe_backbone(backbone).items()
        if card.backbone.get(name) != value
    ]
    if faults:
        raise RunError(faults)


def take_up_reward_model(model: PersonalRewardModel, directory: Path) -> None:
    """Give a model that was just put together what another one like it has learnt: adapters, gate, head and scalings.

    Raises:
        RunError: a file is missing, damaged, or of another model.
    """
    model.mixture.take_up(directory / _ADAPTER)
    _read_tensors(model, directory / _TENSORS)


def load_gate(gate: ExpertGate, directory: Path) -> AffineScaling:
    """Read what the gate of a trained reward model has learnt into `gate`; return how the model scales users.

    Raises:
        RunError: the file is missing, damaged, or of another gate.
    """
    path = directory / _TENSORS
    read = load_tensors(path, {}, others={"": ANYTHING}, advice=_AGAIN)
    try:
        gate.load_state_dict(read.below("gate."))
    except RuntimeError as error:
        raise RunError(f"{path} does not belong to this gate: {' '.join(str(error).split())}") from error
    return AffineScaling(read["user_centre"], read["user_scale"])


def _own_tensors(model: PersonalRewardModel) -> dict[str, Tensor]:
    """Everything but the transformer and its adapters."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("adapted.")}


def _read_tensors(model: PersonalRewardModel, path: Path) -> None:
    # what a gate has learnt by `bind` takes its shape from here
    wanted = {n: ANYTHING if n.startswith("gate.") else like(t) for n, t in _own_tensors(model).items()}
    saved = load_tensors(path, wanted, advice="choose the gate and the head of the run, or train it again")
    try:
        model.load_state_dict(saved.tensors, strict=False)
    except RuntimeError as error:
        raise RunError(f"{path} does not belong to this gate: {' '.join(str(error).split())}") from error
