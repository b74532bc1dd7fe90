"""A trained reward model on disk.

``adapter/`` holds a stock PEFT adapter, ``model.safetensors`` gate, head and scalings, ``reward.json`` the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import torch
from attrs import frozen
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from copl.errors import OptionsError, RunError
from copl.experts.gates import NoGate
from copl.experts.mixture import MixtureOfLora
from copl.interfaces import ExpertGate
from copl.options import options_to_dict, parse_options
from copl.reward.backbones.loaded import LoadedBackbone
from copl.reward.heads import make_head
from copl.reward.model import AffineScaling, PersonalRewardModel
from copl.reward.options import RewardOptions
from copl.reward.reading.cached import FrozenTrunk

FORMAT_VERSION = 1
_CARD = "reward.json"
_TENSORS = "model.safetensors"
_ADAPTER = "adapter"


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
    directory.mkdir(parents=True, exist_ok=True)
    model.mixture.save(directory / _ADAPTER)
    partial = directory / f"{_TENSORS}.partial"
    save_file(_own_tensors(model), partial, metadata={"format": "copl-reward"})
    partial.replace(directory / _TENSORS)
    content = {
        "format_version": FORMAT_VERSION,
        "options": options_to_dict(card.options),
        "embedding_dim": card.embedding_dim,
        "num_experts": card.num_experts,
        "backbone": dict(card.backbone),
        "training": dict(card.training),
    }
    partial = directory / f"{_CARD}.partial"
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(directory / _CARD)


def read_reward_card(directory: Path) -> RewardCard:
    """Read ``reward.json``.

    Raises:
        RunError: it is missing, damaged, foreign or from another version.
    """
    path = directory / _CARD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{directory} holds no trained reward model: {_CARD} is missing; train it again") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); train the reward model again") from error
    found = content.get("format_version") if isinstance(content, dict) else None
    if found != FORMAT_VERSION:
        raise RunError(f"{path} has format version {found}, this version reads {FORMAT_VERSION}; train it again")
    try:
        return RewardCard(
            options=parse_options(RewardOptions, content["options"], where=f"{path}: options"),
            embedding_dim=int(content["embedding_dim"]),
            num_experts=int(content["num_experts"]),
            backbone=dict(content["backbone"]),
            training=dict(content["training"]),
        )
    except (KeyError, TypeError, ValueError, OptionsError) as error:
        raise RunError(f"{path} is not what this version writes ({error}); train the reward model again") from error


def load_reward_model(
    directory: Path, backbone: LoadedBackbone, gate: Callable[[int], ExpertGate]
) -> PersonalRewardModel:
    """Read a trained reward model.

    Args:
        directory: where `train_reward_model` saved.
        backbone: the backbone it was trained on, freshly loaded: the adapters are put on it in place.
        gate: makes the gate for user embeddings of a given dimension; its weights are read from disk.

    Raises:
        RunError: a file is missing, damaged, from another version, or made for another backbone or gate.
    """
    card = read_reward_card(directory)
    here = describe_backbone(backbone)
    faults = [
        f"{directory} was trained with {name} {card.backbone.get(name)!r}, this backbone has {value!r}; "
        "choose the backbone of the run"
        for name, value in here.items()
        if card.backbone.get(name) != value
    ]
    made = gate(card.embedding_dim) if card.options.needs_gate else NoGate()
    if made.num_experts != card.num_experts:
        faults.append(
            f"{directory} was trained with {card.num_experts} experts, this gate has {made.num_experts}; "
            "choose the gate of the run"
        )
    if faults:
        raise RunError(faults)
    mixture = MixtureOfLora.load(backbone.model, directory / _ADAPTER)
    model = PersonalRewardModel(
        backbone,
        mixture,
        made,
        make_head(card.options.head, backbone.hidden_size, card.embedding_dim, card.num_experts),
        users=AffineScaling(torch.zeros(card.embedding_dim), torch.ones(card.embedding_dim)),
        features=AffineScaling(torch.zeros(backbone.hidden_size), torch.ones(backbone.hidden_size)),
        max_length=card.options.max_length,
        trunk=make_trunk(backbone, card.options),
    )
    _read_tensors(model, directory / _TENSORS)
    return model.to(backbone.model.device).eval()


def make_trunk(backbone: LoadedBackbone, options: RewardOptions) -> FrozenTrunk | None:
    """Return the frozen layers, where the options leave any."""
    if options.mode == "frozen" or not 0 < options.trainable_layers < backbone.num_layers:
        return None
    return FrozenTrunk(backbone.model, backbone.num_layers, options.trainable_layers)


def _own_tensors(model: PersonalRewardModel) -> dict[str, Tensor]:
    """Everything but the transformer and its adapters."""
    state = model.state_dict()
    return {n: t.detach().cpu().contiguous() for n, t in state.items() if not n.startswith("transformer.")}


def _read_tensors(model: PersonalRewardModel, path: Path) -> None:
    try:
        found = load_file(path)
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; train the reward model again") from error
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}); train the reward model again") from error
    wanted = _own_tensors(model)
    different = sorted(
        name
        for name in wanted.keys() | found.keys()
        if name not in wanted
        or name not in found
        # what a gate has learnt by `bind` takes its shape from here
        or (wanted[name].shape != found[name].shape and not name.startswith("gate."))
    )
    if different:
        raise RunError(f"{path} does not belong to this gate and head: {', '.join(different[:5])} differ")
    try:
        model.load_state_dict(found, strict=False)
    except RuntimeError as error:
        raise RunError(f"{path} does not belong to this gate: {' '.join(str(error).split())}") from error
