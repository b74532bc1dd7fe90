"""Training a reward model on a data set: frozen pass, warm start of the head, then adapters on the Trainer."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from attrs import asdict, evolve, frozen
from torch import Tensor

from copl.errors import DataError, TrainingError
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions
from copl.interfaces import ExpertGate, Progress
from copl.progress import SilentProgress
from copl.records import Comparisons, PreferenceData
from copl.reward.backbone import EncodedResponses, LoadedBackbone, collate, encode_responses
from copl.reward.batches import PairCollator, ScheduledBatches, routed_epoch, shared_epoch
from copl.reward.cached import check_replay
from copl.reward.features import FrozenPass, frozen_pass
from copl.reward.heads import make_head
from copl.reward.model import AffineScaling, PersonalRewardModel, silence_dropout
from copl.reward.objective import BradleyTerryObjective
from copl.reward.options import RewardOptions
from copl.reward.scoring import score_encoded
from copl.reward.store import RewardCard, describe_backbone, make_trunk, save_reward_model
from copl.reward.trainer import CurvePoint, RewardTrainer, best_of, own_randomness
from copl.reward.warm_start import HeadFit, TrainingParts, hold_out_texts

if TYPE_CHECKING:
    from copl.records import IntArray

_DIVISIONS = 4  # ways to hold texts out, for choosing the penalty of the head; one of them is too noisy


@final
@frozen(eq=False)
class UserVectors:
    """Embeddings of the seen users.

    Attributes:
        ids: the users' own ids [U].
        values: their embeddings [U, D].
    """

    ids: tuple[str, ...]
    values: Tensor


@final
@frozen(eq=False)
class _Material:
    """The data set as training needs it: only responses and users that occur, numbered from 0.

    Attributes:
        texts: row of each text in the data set's response table [R].
        groups: number of the prompt of each text [R].
        users: user embeddings, in the encoder's scale [U, D].
        train: training comparisons; rows of `texts` and `users`.
        validation: validation comparisons.
    """

    texts: IntArray
    groups: IntArray
    users: Tensor
    train: Comparisons
    validation: Comparisons


def train_reward_model(
    data: PreferenceData,
    users: UserVectors | None,
    backbone: LoadedBackbone,
    gate: ExpertGate,
    mixture: MixtureOptions,
    options: RewardOptions,
    *,
    seed: int,
    directory: Path,
    progress: Progress,
) -> None:
    """Train a reward model and save it into `directory`.

    First the head is fitted on the backbone's frozen features (`copl.reward.warm_start`); then adapters, gate and head
    are trained together, adapters starting at zero, so that step 0 is the frozen-feature model. A part of the training
    texts is held out; the model of the lowest loss on them and on the validation split, both counting the same, is
    kept, step 0 included (its head is then fitted once more, on everything). Called again after a kill, it continues
    from the last checkpoint in ``directory/checkpoints`` and ends with the same model.

    Args:
        data: its splits ``train`` and ``validation`` are used.
        users: embeddings of the seen users, or None for a reward model that takes no notice of users. A user of the
            validation split who is not among them counts as the average user.
        backbone: freshly loaded; the adapters are put on it in place.
        gate: the gate, initialised by the caller; trained in place.
        mixture: the adapters.
        options: head and training.
        seed: the same seed gives the same model on the same machine.
        directory: where the model goes.
        progress: where to show progress; the log gets records of the stage ``reward``.

    Raises:
        DataError: there is nothing to train on.
        BackboneError: the backbone does not fit the options.
        TrainingError: the loss is not finite, or memory is exhausted.
    """
    started = time.monotonic()
    scratch = directory / "checkpoints"
    with own_randomness(seed):
        material = _gather(data, users)
        encoded = encode_responses(backbone, data.responses, material.texts, options.max_length)
        finding = encoded.finding()
        if finding is not None:
            progress.log("reward", finding=finding, num_truncated=encoded.num_truncated)
        silence_dropout(backbone.model)
        model, frozen = _assemble(material, encoded, backbone, gate, mixture, options, scratch, progress)
        divisions = [hold_out_texts(material.train, material.groups, seed + n) for n in range(_DIVISIONS)]
        fit = _head_fit(model, frozen, material, seed)
        warm = fit.choose(divisions, material.validation) if options.warm_start else None
        if warm is not None:
            progress.log("reward", step=0, new_text_loss=warm.new_text_loss, new_text_accuracy=warm.new_text_accuracy)
        model.to(backbone.model.device)
        curve, steps = _adapt(
            model, frozen, encoded, material, divisions[0], options, seed=seed, scratch=scratch, progress=progress
        )
        if warm is not None and best_of(curve).step == 0:
            # The adapters still do nothing, so the head may have all comparisons.
            model.head.to("cpu")
            fit.refit(warm, material.train)
    training = {
        "steps": steps,
        "curve": [asdict(point) for point in curve],
        "kept_step": best_of(curve).step,
        "warm_start": None if warm is None else asdict(warm),
        "num_texts": len(encoded),
        "num_truncated": encoded.num_truncated,
        "seconds": round(time.monotonic() - started, 1),
    }
    if int(os.environ.get("RANK", "0")) == 0:
        _save(model, options, training, directory)
        shutil.rmtree(scratch, ignore_errors=True)


def _save(model: PersonalRewardModel, options: RewardOptions, training: Mapping[str, Any], directory: Path) -> None:
    card = RewardCard(options, model.embedding_dim, model.gate.num_experts, describe_backbone(model.backbone), training)
    save_reward_model(model, card, directory)


def _gather(data: PreferenceData, users: UserVectors | None) -> _Material:
    train, validation = data.split("train").comparisons, data.split("validation").comparisons
    if len(train) == 0:
        raise DataError(f"data set {data.name!r} has no comparisons in the split 'train'; the reward model needs some")
    both = Comparisons.concat([train, validation])
    texts, numbered = np.unique(np.concatenate([both.chosen, both.rejected]), return_inverse=True)
    chosen, rejected = numbered.reshape(2, -1)
    present, user = np.unique(both.user, return_inverse=True)
    vectors = _vectors(data, users, present, set(train.user.tolist()))
    both = evolve(both, user=user, chosen=chosen, rejected=rejected)
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(data.responses.prompts))}
    groups = np.array([prompts[data.responses.prompts[row]] for row in texts], dtype=np.int64)
    count = np.arange(len(both))
    return _Material(texts, groups, vectors, both.take(count < len(train)), both.take(count >= len(train)))


def _vectors(data: PreferenceData, users: UserVectors | None, present: IntArray, trained_on: set[int]) -> Tensor:
    """The embeddings of the users at the rows `present` of the data set."""
    if users is None:
        return torch.zeros(len(present), 0)
    if not bool(torch.isfinite(users.values).all()):
        raise TrainingError("some user embeddings are not finite numbers; train the encoder with a lower learning rate")
    rows = {user: row for row, user in enumerate(users.ids)}
    missing = [data.users.ids[row] for row in present if row in trained_on and data.users.ids[row] not in rows]
    if missing:
        raise DataError(f"{len(missing)} users of the split 'train' have no embedding, such as {missing[0]!r}")
    average = users.values.float().mean(0)
    found = [rows.get(data.users.ids[row]) for row in present]
    return torch.stack([average if row is None else users.values[row].float() for row in found])


def _assemble(
    material: _Material,
    encoded: EncodedResponses,
    backbone: LoadedBackbone,
    gate: ExpertGate,
    mixture: MixtureOptions,
    options: RewardOptions,
    scratch: Path,
    progress: Progress,
) -> tuple[PersonalRewardModel, FrozenPass]:
    """Run the frozen backbone over all texts, then put adapters, gate and head on it."""
    if torch.cuda.is_available():
        backbone.model.to("cuda")
    trunk = make_trunk(backbone, options)
    if trunk is not None:
        tokens = collate(encoded, np.argsort(encoded.lengths)[:: max(1, len(encoded) // 4)][:4])
        check_replay(backbone.model, trunk, tokens)
    frozen = frozen_pass(backbone, encoded, trunk, directory=scratch, progress=progress)
    attached = MixtureOfLora.attach(
        backbone.model,
        mixture,
        num_experts=gate.num_experts,
        target_modules=mixture.target_modules or backbone.target_modules,
        layers=None if trunk is None else trunk.layers,
    )
    if options.gradient_checkpointing:
        # transformers renamed it; the former name warns where both exist.
        enable = getattr(backbone.model, "activation_checkpointing_enable", None)
        (enable or backbone.model.gradient_checkpointing_enable)({"use_reentrant": False})
    trained_users = material.users[torch.from_numpy(np.unique(material.train.user))]
    model = PersonalRewardModel(
        backbone,
        attached,
        gate,
        make_head(options.head, backbone.hidden_size, material.users.shape[1]),
        users=AffineScaling.of_users(trained_users),
        features=AffineScaling.of_features(frozen.pooled),
        max_length=options.max_length,
        trunk=trunk,
    )
    return model, frozen


def _head_fit(model: PersonalRewardModel, frozen: FrozenPass, material: _Material, seed: int) -> HeadFit:
    """Fit the head on the processor: the problem is small."""
    model.to("cpu")
    features = (frozen.pooled - model.feature_centre) / model.feature_scale
    return HeadFit(model.head, features, model.condition(material.users), seed)


def _adapt(
    model: PersonalRewardModel,
    frozen: FrozenPass,
    encoded: EncodedResponses,
    material: _Material,
    parts: TrainingParts,
    options: RewardOptions,
    *,
    seed: int,
    scratch: Path,
    progress: Progress,
) -> tuple[list[CurvePoint], int]:
    """Train adapters, gate and head; return the validation curve and the steps taken."""
    train = parts.fitted
    judges = [_drawn(part, options.eval_comparisons, seed) for part in (material.validation, parts.new_text)]

    def measure() -> tuple[float, float]:
        return _measure(model, frozen, encoded, material.users, [part for part in judges if len(part)])

    start = CurvePoint(0, *measure())
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    per_step = options.gradient_accumulation * processes
    shared, rng = model.gate.num_experts == 0, np.random.default_rng(seed)
    lengths = np.maximum(encoded.lengths[train.chosen], encoded.lengths[train.rejected])

    def epoch() -> list[IntArray]:
        if shared:
            return shared_epoch(train, material.groups, options.batch_size, rng)
        return routed_epoch(lengths, options.batch_size, rng)

    num_steps = min(options.max_steps, math.ceil(options.epochs * len(epoch()) / per_step))
    if num_steps == 0:
        return [start], 0
    collator = PairCollator(encoded, train, material.users, shared=shared, kept=frozen.kept)
    with progress.task("training the reward model", num_steps) as task:
        trainer = RewardTrainer(
            BradleyTerryObjective(model),
            options,
            ScheduledBatches(epoch, num_steps * per_step),
            collator,
            num_steps=num_steps,
            measure=measure,
            start=start,
            directory=scratch,
            seed=seed,
            task=task,
            log=progress.log,
        )
        trainer.run()
    return trainer.curve, int(trainer.state.global_step)


def _measure(
    model: PersonalRewardModel,
    frozen: FrozenPass,
    encoded: EncodedResponses,
    users: Tensor,
    judges: Sequence[Comparisons],
) -> tuple[float, float]:
    """Return the Bradley-Terry loss and the accuracy, each judge counting the same."""
    pairs = Comparisons.concat(judges)
    share = np.concatenate([part.weight / part.weight.sum() for part in judges]) / len(judges)
    place = np.concatenate([pairs.chosen, pairs.rejected])
    twice = users[torch.from_numpy(np.concatenate([pairs.user, pairs.user]))]
    scores = score_encoded(model, encoded, twice, place, progress=SilentProgress(), kept=frozen.kept)
    chosen, rejected = scores.reshape(2, -1)
    margins = chosen - rejected
    loss = float(np.sum(share * np.logaddexp(0.0, -margins)))
    accuracy = float(np.sum(share * ((margins > 0) + 0.5 * (margins == 0))))
    if not math.isfinite(loss):
        raise TrainingError("the validation loss is not finite; lower reward.learning_rate; nothing was saved")
    return loss, accuracy


def _drawn(pairs: Comparisons, count: int, seed: int) -> Comparisons:
    if len(pairs) <= count:
        return pairs
    return pairs.take(np.sort(np.random.default_rng(seed).permutation(len(pairs))[:count]))
