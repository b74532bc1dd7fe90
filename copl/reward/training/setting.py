"""What reward training turns on: the model put together, the texts read once, and how comparisons are fed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from copl.errors import BackboneError, OptionsError
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions
from copl.experts.report import gate_report
from copl.experts.targets import require_target_modules
from copl.interfaces import ExpertGate, Progress
from copl.records import Comparisons, ResponseTable
from copl.reward.backbones.loaded import EncodedResponses, LoadedBackbone
from copl.reward.heads import make_head
from copl.reward.model import AffineScaling, PersonalRewardModel, silence_dropout
from copl.reward.options import RewardOptions
from copl.reward.reading.kept import UnevenRows
from copl.reward.reading.packing import check_packing, saved_share
from copl.reward.reading.reader import TextReader
from copl.reward.reading.trunk import FrozenTrunk
from copl.reward.scoring import score_encoded
from copl.reward.training.batches import sharing_pays
from copl.reward.training.material import Material
from copl.reward.training.objective import BradleyTerryObjective
from copl.reward.training.routes import fixed_routes
from copl.system.processes import num_processes, weights_are_split
from copl.system.progress import SilentProgress

if TYPE_CHECKING:
    from copl.records import IntArray

_WORTH_PACKING = 0.05
_ALIKE = 1e-6


@final
@frozen(eq=False)
class Setting:
    """What training turns on: the model, the texts, and how they are fed.

    Attributes:
        model: the reward model.
        objective: the model with its loss and the users that are trained along.
        material: comparisons, texts and users.
        encoded: the texts as tokens.
        pooled: their frozen features [R, H].
        kept: their hidden states below the adapted layers, where adapters train on top of such.
        routes: the route of each user of the material [U], where the texts of a batch are read once for all users of
            a route; None where a comparison reads texts of its own.
        packed: whether pairs are packed.
        options: head and training.
    """

    model: PersonalRewardModel
    objective: BradleyTerryObjective
    material: Material
    encoded: EncodedResponses
    pooled: Tensor
    kept: UnevenRows | None
    routes: IntArray | None
    packed: bool
    options: RewardOptions

    @property
    def users(self) -> Tensor:
        """Embeddings of the users of the material as they are now [U, D]."""
        trained = self.objective.trained_users()
        return self.material.users if trained is None else trained

    def take_apart(self) -> None:
        """Take the adapters off the backbone, which others go on reading with."""
        model = self.model.backbone.model
        if self.options.gradient_checkpointing:
            disable = getattr(model, "activation_checkpointing_disable", None)
            (disable or model.gradient_checkpointing_disable)()
        self.model.mixture.detach()
        model.requires_grad_(False).eval()

    def scores(self, users: Tensor, place: IntArray) -> np.ndarray[Any, Any]:
        """Return the rewards [N] of texts for user embeddings [N, D]."""
        if self.options.adapts:
            return score_encoded(self.model, self.encoded, users, place, progress=SilentProgress(), kept=self.kept)
        model = self.model
        with torch.no_grad():
            features = model.scaled(self.pooled[torch.from_numpy(place)].to(model.device))
            rewards: Tensor = model.head(features, model.tell(users))
        return np.asarray(rewards.double().cpu().numpy())


def assemble(
    material: Material,
    responses: ResponseTable,
    reader: TextReader,
    gate: ExpertGate,
    mixture: MixtureOptions,
    options: RewardOptions,
    *,
    scaling: AffineScaling,
    trainable_users: bool,
    progress: Progress,
) -> Setting:
    """Read all texts by the frozen backbone, then put adapters, gate and head on it.

    Args:
        material: comparisons, texts and users.
        responses: the table that the texts of the material are rows of.
        reader: owns the backbone, without adapters; they are put on it in place.
        gate: the gate, bound to the seen users.
        mixture: the adapters.
        options: head and training.
        scaling: of the users.
        trainable_users: whether the users are trained along.
        progress: where to show progress.

    Raises:
        BackboneError: the backbone does not fit the options or the texts.
        OptionsError: options contradict one another.
        TrainingError: memory is exhausted.
    """
    backbone = reader.backbone
    targets = mixture.target_modules or backbone.target_modules
    # Before anything that takes long.
    require_target_modules(backbone.model, targets, without=backbone.unfit_modules if gate.num_experts else ())
    if weights_are_split():
        progress.log("reward", weights_split_among=num_processes())
    layers = _adapted_layers(backbone, mixture, options, reader.trunk)
    if options.mode == "frozen":
        mixture = evolve(mixture, shared_rank=1)  # the file format wants an adapter; this one stays zero
    routes = None if trainable_users and gate.num_experts else fixed_routes(gate, scaling, material.users)
    if not _shares(material, routes, options):
        routes = None
    encoded = reader.tokens(responses, material.texts)
    finding = encoded.finding()
    if finding is not None:
        progress.log("reward", finding=finding, num_truncated=encoded.num_truncated)
    packed = routes is None and _packs(backbone, encoded, material.train, options)
    pooled = reader.features(responses, material.texts)
    kept = reader.states(responses, material.texts, together=True) if options.adapts else None
    _require_features(backbone, pooled)
    silence_dropout(backbone.model)
    attached = MixtureOfLora.attach(
        backbone.model,
        mixture,
        num_experts=gate.num_experts,
        target_modules=targets,
        layers=layers,
    )
    if options.gradient_checkpointing:
        # transformers renamed it; the former name warns where both exist.
        enable = getattr(backbone.model, "activation_checkpointing_enable", None)
        (enable or backbone.model.gradient_checkpointing_enable)({"use_reentrant": False})
    model = PersonalRewardModel(
        reader,
        attached,
        gate,
        make_head(options.head, backbone.hidden_size, material.users.shape[1], gate.num_experts),
        users=scaling,
        features=AffineScaling.of_features(pooled),
    )
    if options.mode == "frozen":
        model.transformer.requires_grad_(False)
    objective = BradleyTerryObjective(model, material.users if trainable_users else None)
    return Setting(model, objective, material, encoded, pooled, kept, routes, packed, options)


def _require_features(backbone: LoadedBackbone, pooled: Tensor) -> None:
    """Check that the backbone tells the texts apart.

    Raises:
        BackboneError: it does not.
    """
    name = type(backbone.model).__name__
    if len(pooled) > 1 and float(pooled.std(0).max()) <= _ALIKE * float(pooled.abs().max()):
        raise BackboneError(
            f"{name} has the same hidden state for all {len(pooled)} texts; its tokenizer does not fit them, or all "
            "that differs is cut off by reward.max_length"
        )


def _adapted_layers(
    backbone: LoadedBackbone, mixture: MixtureOptions, options: RewardOptions, trunk: FrozenTrunk | None
) -> tuple[int, ...] | None:
    """The places of the layers that get adapters; None for all.

    Raises:
        OptionsError: a layer is named that is to stay frozen.
    """
    if options.mode == "frozen":
        return (backbone.num_layers - 1,)
    if trunk is None or mixture.layers is None:
        return mixture.layers or (None if trunk is None else trunk.layers)
    frozen = sorted(set(mixture.layers) - set(trunk.layers))
    if frozen:
        raise OptionsError(
            f"mixture.layers names layer {frozen[0]}, which reward.trainable_layers={options.trainable_layers} keeps "
            f"frozen; set that to {backbone.num_layers - frozen[0]} or more, or to 0"
        )
    return mixture.layers


def _shares(material: Material, routes: IntArray | None, options: RewardOptions) -> bool:
    """Whether the texts of a batch are read once for all users of a route; saves more than packing where it pays."""
    if routes is None or not options.adapts or options.pack_pairs == "on":
        return False
    return sharing_pays(material.train, routes, material.groups, options.batch_size)


def _packs(backbone: LoadedBackbone, encoded: EncodedResponses, train: Comparisons, options: RewardOptions) -> bool:
    """Whether the pairs are packed.

    Raises:
        BackboneError: they are to be, but the backbone cannot.
    """
    wanted = options.pack_pairs
    if wanted == "off" or options.mode == "frozen":
        return False
    if wanted == "auto" and saved_share(encoded, train) < _WORTH_PACKING:
        return False
    try:
        check_packing(backbone, encoded, train)
    except BackboneError as error:
        if wanted == "auto":
            return False
        raise BackboneError([*error.faults, "set reward.pack_pairs to auto or off"]) from error
    return True


def gate_use(setting: Setting) -> dict[str, Any]:
    """How the gate uses its experts for the users of the material; empty without routed experts."""
    weights = setting.model.expert_weights(setting.users)
    if weights is None:
        return {}
    report = gate_report(weights.numpy())
    usage = [round(float(share), 4) for share in report.usage]
    return {"usage": usage, "entropy": round(report.entropy, 4), "finding": report.finding}
