"""What reward training turns on: the model put together, the texts read once, and how comparisons are fed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from copl.bradley_terry import correct, log_loss
from copl.errors import BackboneError, OptionsError, TrainingError
from copl.experts.gates.fixed import NoGate
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions
from copl.experts.targets import require_target_modules
from copl.interfaces import ExpertGate, Progress
from copl.records import Comparisons, PreferenceData, ResponseTable
from copl.reward.backbones.loaded import EncodedResponses, LoadedBackbone
from copl.reward.heads import make_head
from copl.reward.model import AffineScaling, PersonalRewardModel, silence_dropout
from copl.reward.options import RewardOptions
from copl.reward.reading.kept import UnevenRows
from copl.reward.reading.packing import check_packing, saved_share
from copl.reward.reading.reader import TextReader
from copl.reward.reading.trunk import FrozenTrunk
from copl.reward.readings import ExpertSettings, Readings
from copl.reward.scoring import combined
from copl.reward.store import load_gate, take_up_reward_model
from copl.reward.training.batches import (
    FeatureCollator,
    PairCollator,
    routed_epoch,
    shared_epoch,
    sharing_pays,
    tokens_in_a_row,
)
from copl.reward.training.material import Material, gather
from copl.reward.training.objective import BradleyTerryObjective
from copl.reward.training.routes import fixed_routes
from copl.reward.training.user_vectors import UserVectors
from copl.system.processes import num_processes, weights_are_split

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray

_WORTH_PACKING = 0.05
_ALIKE = 1e-6


@final
@frozen(eq=False)
class RewardDesign:
    """What a reward model is to be made of.

    Attributes:
        gate: the gate, initialised by the caller; bound to the seen users and trained in place.
        mixture: the adapters.
        options: head and training.
    """

    gate: ExpertGate
    mixture: MixtureOptions
    options: RewardOptions


@final
@frozen(eq=False)
class TrainingTexts:
    """The texts of the material, as the frozen backbone has read them.

    Attributes:
        responses: the table that the texts are rows of.
        encoded: the texts as tokens.
        pooled: their frozen features [R, H].
        kept: their hidden states below the adapted layers, where adapters train on top of such.
    """

    responses: ResponseTable
    encoded: EncodedResponses
    pooled: Tensor
    kept: UnevenRows | None


@final
@frozen(eq=False)
class TrainingSetup:
    """The model that is trained, what it is trained on, and how that is fed.

    Attributes:
        objective: the model with its loss and the users that are trained along.
        material: comparisons, texts and users.
        texts: the texts, read once.
        routes: the route of each user of the material [U], where the texts of a batch are read once for all users of
            a route; None where a comparison reads texts of its own.
        packed: whether pairs are packed.
        options: head and training.
    """

    objective: BradleyTerryObjective
    material: Material
    texts: TrainingTexts
    routes: IntArray | None
    packed: bool
    options: RewardOptions

    @property
    def model(self) -> PersonalRewardModel:
        """The reward model."""
        return self.objective.model

    @property
    def users(self) -> Tensor:
        """Embeddings of the users of the material as they are now [U, D]."""
        trained = self.objective.trained_users()
        return self.material.users if trained is None else trained

    def readings(self, *, zero: bool = False) -> Readings:
        """Return readings by the adapters as they are now, of which none is known yet.

        Args:
            zero: whether they are zero still.
        """
        return Readings(self.model, zero=zero or not self.options.adapts)

    def read(self, pairs: Comparisons, readings: Readings, progress: Progress | None = None) -> tuple[Tensor, IntArray]:
        """Read the texts of some comparisons for their users.

        Returns:
            scaled features of each reading [S, H]; the reading of each chosen text, then of each rejected one [2 N].
        """
        settings = ExpertSettings.of_users(self.model, self.users)
        rows = self.material.texts[np.concatenate([pairs.chosen, pairs.rejected])]
        return readings.of(self.texts.responses, rows, settings, np.tile(pairs.user, 2), progress)

    @torch.no_grad()
    def margins(self, pairs: Comparisons, readings: Readings) -> FloatArray:
        """Return the margins of the model as it is now [N]."""
        if not len(pairs):
            return np.zeros(0)
        features, place = self.read(pairs, readings)
        codes = self.model.head.encode(features.to(self.model.device))
        chosen, rejected = combined(self.model, codes, place, self.users, np.tile(pairs.user, 2)).reshape(2, -1)
        margins: FloatArray = chosen - rejected
        return margins

    def measure(self, judges: Sequence[Comparisons], readings: Readings) -> tuple[float, float]:
        """Return the Bradley-Terry loss and the accuracy on comparisons, each set of them counting the same.

        Raises:
            TrainingError: the loss is not finite.
        """
        pairs = Comparisons.concat(judges)
        share = np.concatenate([part.weight / part.weight.sum() for part in judges]) / len(judges)
        margins = self.margins(pairs, readings)
        loss = float(np.sum(share * log_loss(margins)))
        if not math.isfinite(loss):
            raise TrainingError("the validation loss is not finite; lower reward.learning_rate; nothing was saved")
        return loss, float(np.sum(share * correct(margins)))

    def epochs(self, train: Comparisons, seed: int) -> Callable[[], list[IntArray]]:
        """Return what draws the batches of one epoch after another."""
        options, rng = self.options, np.random.default_rng(seed)
        routes, groups = self.routes, self.material.groups
        if routes is not None:
            return lambda: shared_epoch(train, routes, groups, options.batch_size, rng)
        lengths = tokens_in_a_row(self.texts.encoded, train, packed=self.packed)
        return lambda: routed_epoch(lengths, options.batch_size, rng, buckets=options.length_buckets)

    def collator(self, train: Comparisons) -> Callable[[IntArray], dict[str, Tensor]]:
        """Return what makes the tensors of a batch of comparisons."""
        users, texts = self.material.users, self.texts
        if self.options.mode == "frozen":
            return FeatureCollator(texts.pooled, train, users)
        return PairCollator(texts.encoded, train, users, routes=self.routes, kept=texts.kept, packed=self.packed)

    def take_apart(self) -> None:
        """Take the adapters off the backbone, which others go on reading with."""
        model = self.model.backbone.model
        if self.options.gradient_checkpointing:
            _recompute_activations(model, enabled=False)
        self.model.mixture.detach()
        model.requires_grad_(False).eval()


def set_up(
    data: PreferenceData,
    users: UserVectors | None,
    reader: TextReader,
    design: RewardDesign,
    *,
    seed: int,
    progress: Progress,
    former: Path | None = None,
) -> TrainingSetup:
    """Read all texts by the frozen backbone, then put adapters, gate and head on it.

    Args:
        data: its splits ``train`` and ``validation`` are used.
        users: embeddings of the seen users, or None for a reward model that takes no notice of users.
        reader: owns the backbone, without adapters; they are put on it in place.
        design: what the model is to be made of.
        seed: the same seed binds the gate alike.
        progress: where to show progress and log findings.
        former: directory of a trained model that this one goes on from.

    Raises:
        DataError: there is nothing to train on, or the gate needs groups that the data has not.
        BackboneError: the backbone does not fit the options or the texts.
        OptionsError: options contradict one another.
        TrainingError: an embedding is not finite, or memory is exhausted.
    """
    options, backbone = design.options, reader.backbone
    material = gather(data, users)
    gate = design.gate if options.needs_gate else NoGate()
    scaling = AffineScaling.of_users(material.trained_users) if former is None else load_gate(gate, former)
    trainable = users is not None and users.trainable
    if users is not None and gate.num_experts and former is None:
        gate.bind(scaling.apply(users.values), users.groups, seed=seed)
    # before anything that takes long
    require_target_modules(backbone.model, design.mixture.target_modules or backbone.target_modules)
    _adapted_layers(backbone, design.mixture, options, reader.trunk)
    if weights_are_split():
        progress.log("reward", weights_split_among=num_processes())
    routes = None if trainable and gate.num_experts else fixed_routes(gate, scaling, material.users)
    if not _shares(material, routes, options):
        routes = None
    texts = _read(reader, data.responses, material, options, progress)
    packed = routes is None and _packs(backbone, texts.encoded, material.train, options)
    _require_features(backbone, texts.pooled)
    model = _put_together(reader, evolve(design, gate=gate), scaling, AffineScaling.of_features(texts.pooled))
    if former is not None:
        take_up_reward_model(model, former)
    objective = BradleyTerryObjective(
        model, material.users if trainable else None, in_parts=not options.gradient_checkpointing
    )
    objective.to(backbone.model.device)
    return TrainingSetup(objective, material, texts, routes, packed, options)


def _read(
    reader: TextReader, responses: ResponseTable, material: Material, options: RewardOptions, progress: Progress
) -> TrainingTexts:
    encoded = reader.tokens(responses, material.texts)
    finding = encoded.finding()
    if finding is not None:
        progress.log("reward", finding=finding, num_truncated=encoded.num_truncated)
    num_alike = int(encoded.alike(material.train.chosen, material.train.rejected).sum())
    if num_alike:
        progress.log("reward", finding=_alike(num_alike, len(material.train)), num_alike=num_alike)
    pooled = reader.features(responses, material.texts)
    kept = reader.states(responses, material.texts, together=True) if options.adapts else None
    return TrainingTexts(responses, encoded, pooled, kept)


def _alike(num_alike: int, num_pairs: int) -> str:
    return (
        f"{num_alike:,} of {num_pairs:,} training pairs are two responses that are the same tokens to the backbone, "
        "which can learn nothing of them; `copl data check DATA --backbone NAME` shows one"
    )


def _put_together(
    reader: TextReader, design: RewardDesign, users: AffineScaling, features: AffineScaling
) -> PersonalRewardModel:
    """Put adapters on the backbone, a gate and a head beside it."""
    backbone, options, mixture = reader.backbone, design.options, design.mixture
    if options.mode == "frozen":
        mixture = evolve(mixture, shared_rank=1)  # the file format wants an adapter; this one stays zero
    silence_dropout(backbone.model)
    attached = MixtureOfLora.attach(
        backbone.model,
        mixture,
        num_experts=design.gate.num_experts,
        target_modules=mixture.target_modules or backbone.target_modules,
        layers=_adapted_layers(backbone, mixture, options, reader.trunk),
    )
    if options.gradient_checkpointing:
        _recompute_activations(backbone.model, enabled=True)
    head = make_head(options.head, backbone.hidden_size, len(users.centre), design.gate.num_experts)
    model = PersonalRewardModel(reader, attached, design.gate, head, users=users, features=features)
    if options.mode == "frozen":
        model.transformer.requires_grad_(False)
    return model


def _recompute_activations(model: object, *, enabled: bool) -> None:
    # transformers renamed both; the former names warn where the new ones exist.
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if enabled:
        getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{kind}_checkpointing_disable")()


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
