"""Training a reward model on a data set: frozen pass, warm start of the head, then adapters on the Trainer."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import asdict, evolve

from copl.errors import TrainingError
from copl.experts.gates import NoGate
from copl.experts.options import MixtureOptions
from copl.interfaces import ExpertGate, Progress
from copl.processes import is_main, num_processes
from copl.records import Comparisons, PreferenceData
from copl.reward.backbone import LoadedBackbone, encode_responses
from copl.reward.batches import FeatureCollator, PairCollator, ScheduledBatches, routed_epoch, shared_epoch
from copl.reward.features import SharedFeatures
from copl.reward.material import gather
from copl.reward.model import AffineScaling, PersonalRewardModel, silence_dropout
from copl.reward.new_texts import NewTextMargins
from copl.reward.options import RewardOptions
from copl.reward.setting import Setting, assemble, gate_use
from copl.reward.store import RewardCard, describe_backbone, save_reward_model
from copl.reward.trainer import CurvePoint, RewardTrainer, best_of, own_randomness
from copl.reward.user_vectors import UserVectors, save_trained_users
from copl.reward.warm_start import HeadFit, TrainingParts, hold_out_texts

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray

__all__ = ["UserVectors", "train_reward_model"]

_DIVISIONS = 4  # ways to hold texts out, for choosing the penalty of the head; one of them is too noisy


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
    shared: SharedFeatures | None = None,
) -> None:
    """Train a reward model and save it into `directory`.

    First the head is fitted on the backbone's frozen features (`copl.reward.warm_start`); then adapters, gate and head
    are trained together, adapters starting at zero, so that step 0 is the frozen-feature model. A part of the training
    texts is held out; the model of the lowest loss on them and on the validation split, both counting the same, is
    kept, step 0 included; what the held-out texts say of the head is added in the end. Called again after a kill, it
    continues from what it finds in ``directory/checkpoints`` (hidden states, last checkpoint) and ends with the same
    model.

    With ``options.mode`` frozen there are no adapters and no gate; the head alone is trained, on the frozen features.

    Args:
        data: its splits ``train`` and ``validation`` are used.
        users: embeddings of the seen users, or None for a reward model that takes no notice of users. A user of the
            validation split who is not among them counts as the average user. Where they are trainable, they are a
            table that trains along and is saved beside the model (`copl.reward.user_vectors`).
        backbone: freshly loaded; the adapters are put on it in place.
        gate: the gate, initialised by the caller; bound to the seen users and trained in place.
        mixture: the adapters.
        options: head and training.
        seed: the same seed gives the same model on the same machine.
        directory: where the model goes.
        progress: where to show progress; the log gets records of the stage ``reward``.
        shared: frozen features that are computed once for many (`copl.reward.frozen_texts`); None computes those of
            the training texts alone.

    Raises:
        DataError: there is nothing to train on, or the gate needs groups that the data has not.
        BackboneError: the backbone does not fit the options.
        OptionsError: options contradict one another.
        TrainingError: the loss is not finite, or memory is exhausted.
    """
    started = time.monotonic()
    scratch = directory / "checkpoints"
    with own_randomness(seed):
        material = gather(data, users)
        gate = NoGate() if options.mode == "frozen" else gate
        scaling = AffineScaling.of_users(material.trained_users)
        if users is not None and gate.num_experts:
            gate.bind(scaling.apply(users.values), users.groups, seed=seed)
        encoded = encode_responses(backbone, data.responses, material.texts, options.max_length)
        finding = encoded.finding()
        if finding is not None:
            progress.log("reward", finding=finding, num_truncated=encoded.num_truncated)
        silence_dropout(backbone.model)
        setting = assemble(
            material,
            encoded,
            backbone,
            gate,
            mixture,
            options,
            scaling=scaling,
            trainable_users=users is not None and users.trainable,
            shared=shared,
            scratch=scratch,
            progress=progress,
        )
        model = setting.model
        divisions = [hold_out_texts(material.train, material.groups, seed + n) for n in range(_DIVISIONS)]
        fit = _head_fit(setting, seed)
        warm = fit.choose(divisions, material.validation) if options.warm_start else None
        if warm is not None:
            progress.log("reward", step=0, new_text_loss=warm.new_text_loss, new_text_accuracy=warm.new_text_accuracy)
        setting.objective.to(backbone.model.device)
        curve, steps = _adapt(setting, divisions[0], seed=seed, scratch=scratch, progress=progress)
        new_texts = _new_text_margins(setting, divisions[0])
        if warm is not None and (model.head.linear_in_features or best_of(curve).step == 0):
            model.head.to("cpu")
            fit.complete(warm, material.train)
    use = gate_use(setting)
    if use.get("finding"):
        progress.log("reward", finding=use["finding"])
    training = {
        "steps": steps,
        "curve": [asdict(point) for point in curve],
        "kept_step": best_of(curve).step,
        "warm_start": None if warm is None else asdict(warm),
        "num_texts": len(encoded),
        "num_truncated": encoded.num_truncated,
        "shared_routes": None if setting.routes is None else int(setting.routes.max()) + 1,
        "packed_pairs": setting.packed,
        "gate": use,
        "seconds": round(time.monotonic() - started, 1),
    }
    if is_main():
        if users is not None and users.trainable:
            save_trained_users(_trained_along(users, setting), directory)
        _save(model, options, training, directory)
        new_texts.save(directory)
        shutil.rmtree(scratch, ignore_errors=True)


def _save(model: PersonalRewardModel, options: RewardOptions, training: Mapping[str, Any], directory: Path) -> None:
    num_experts = model.mixture.layout.num_experts
    card = RewardCard(options, model.embedding_dim, num_experts, describe_backbone(model.backbone), training)
    save_reward_model(model, card, directory)


def _trained_along(users: UserVectors, setting: Setting) -> UserVectors:
    """The users as given, those that occur with what they have become."""
    values, rows = users.values.float().clone(), {user: row for row, user in enumerate(users.ids)}
    for user, value in zip(setting.material.user_ids, setting.users, strict=True):
        if user in rows:
            values[rows[user]] = value
    return evolve(users, values=values)


def _head_fit(setting: Setting, seed: int) -> HeadFit:
    """Fit the head on the processor: the problem is small."""
    model = setting.model
    return HeadFit(model.head, model.scaled(setting.frozen.pooled), model.condition(setting.material.users), seed)


def _adapt(
    setting: Setting, parts: TrainingParts, *, seed: int, scratch: Path, progress: Progress
) -> tuple[list[CurvePoint], int]:
    """Train what is to be trained; return the validation curve and the steps taken."""
    train, options, material = parts.fitted, setting.options, setting.material
    judges = [_drawn(part, options.eval_comparisons, seed) for part in (material.validation, parts.new_text)]

    def measure() -> tuple[float, float]:
        return _measure(setting, [part for part in judges if len(part)])

    def watch() -> dict[str, float | str]:
        use = gate_use(setting)
        usage = " ".join(f"{share:.2f}" for share in use.get("usage", ()))
        return {"gate_entropy": use["entropy"], "gate_usage": usage} if use else {}

    start = CurvePoint(0, *measure())
    per_step = options.gradient_accumulation * num_processes()
    rng = np.random.default_rng(seed)
    routes, lengths = setting.routes, _lengths(setting, train)

    def epoch() -> list[IntArray]:
        if routes is not None:
            return shared_epoch(train, routes, material.groups, options.batch_size, rng)
        return routed_epoch(lengths, options.batch_size, rng, buckets=options.length_buckets)

    num_steps = min(options.max_steps, math.ceil(options.epochs * len(epoch()) / per_step))
    if num_steps == 0:
        return [start], 0
    collator: PairCollator | FeatureCollator
    if options.mode == "frozen":
        collator = FeatureCollator(setting.frozen.pooled, train, material.users)
    else:
        collator = PairCollator(
            setting.encoded,
            train,
            material.users,
            routes=routes,
            kept=setting.frozen.kept,
            packed=setting.packed,
        )
    with progress.task("training the reward model", num_steps) as task:
        trainer = RewardTrainer(
            setting.objective,
            options,
            ScheduledBatches(epoch, num_steps * per_step),
            collator,
            num_steps=num_steps,
            measure=measure,
            watch=watch,
            start=start,
            directory=scratch,
            seed=seed,
            task=task,
            log=progress.log,
        )
        trainer.run()
    return trainer.curve, int(trainer.state.global_step)


def _lengths(setting: Setting, train: Comparisons) -> IntArray:
    """How many tokens each comparison makes the backbone read in a row."""
    encoded = setting.encoded
    chosen, rejected = encoded.lengths[train.chosen], encoded.lengths[train.rejected]
    if not setting.packed:
        return np.maximum(chosen, rejected)
    prompts = np.minimum(encoded.prompt_lengths[train.chosen], encoded.prompt_lengths[train.rejected])
    lengths: IntArray = chosen + rejected - prompts
    return lengths


def _measure(setting: Setting, judges: Sequence[Comparisons]) -> tuple[float, float]:
    """Return the Bradley-Terry loss and the accuracy, each judge counting the same."""
    pairs = Comparisons.concat(judges)
    share = np.concatenate([part.weight / part.weight.sum() for part in judges]) / len(judges)
    margins = _margins(setting, pairs)
    loss = float(np.sum(share * np.logaddexp(0.0, -margins)))
    accuracy = float(np.sum(share * ((margins > 0) + 0.5 * (margins == 0))))
    if not math.isfinite(loss):
        raise TrainingError("the validation loss is not finite; lower reward.learning_rate; nothing was saved")
    return loss, accuracy


def _new_text_margins(setting: Setting, parts: TrainingParts) -> NewTextMargins:
    """What the model says of the validation comparisons with a text that it has not been fitted to."""
    pairs = setting.material.validation
    new = np.ones(len(setting.material.texts), dtype=np.bool_)
    new[np.concatenate([parts.fitted.chosen, parts.fitted.rejected])] = False
    sides = np.stack([new[pairs.chosen], new[pairs.rejected]], axis=1)
    rows = np.flatnonzero(sides.any(axis=1))
    return NewTextMargins(rows, _margins(setting, pairs.take(rows)), sides[rows])


def _margins(setting: Setting, pairs: Comparisons) -> FloatArray:
    """Return the margins of the model as it is now [N]."""
    if not len(pairs):
        return np.zeros(0)
    place = np.concatenate([pairs.chosen, pairs.rejected])
    twice = setting.users[torch.from_numpy(np.concatenate([pairs.user, pairs.user]))]
    chosen, rejected = setting.scores(twice, place).reshape(2, -1)
    margins: FloatArray = chosen - rejected
    return margins


def _drawn(pairs: Comparisons, count: int, seed: int) -> Comparisons:
    if len(pairs) <= count:
        return pairs
    return pairs.take(np.sort(np.random.default_rng(seed).permutation(len(pairs))[:count]))
