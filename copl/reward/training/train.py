"""Training a reward model on a data set: frozen pass, warm start of the head, then adapters on the Trainer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from attrs import asdict, evolve, frozen

from copl.errors import TrainingError
from copl.experts.gates import NoGate
from copl.experts.options import MixtureOptions
from copl.interfaces import SCRATCH, ExpertGate, Progress
from copl.records import Comparisons, PreferenceData
from copl.reward.model import AffineScaling, PersonalRewardModel
from copl.reward.options import RewardOptions
from copl.reward.reading.reader import TextReader
from copl.reward.store import RewardCard, describe_backbone, save_reward_model
from copl.reward.training.batches import FeatureCollator, PairCollator, ScheduledBatches, routed_epoch, shared_epoch
from copl.reward.training.material import gather
from copl.reward.training.new_texts import NewTextMargins
from copl.reward.training.refit import HeadChoice, held_fixed, refit_head
from copl.reward.training.setting import Setting, assemble, gate_use
from copl.reward.training.trainer import (
    CurvePoint,
    RewardTrainer,
    best_of,
    load_trainable,
    own_randomness,
    trainable,
)
from copl.reward.training.user_vectors import UserVectors, save_trained_users
from copl.reward.training.warm_start import HeadFit, TrainingParts, drawn, hold_out_texts
from copl.system.processes import is_main, num_processes

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray

__all__ = ["UserVectors", "train_reward_model"]

_DIVISIONS = 4  # ways to hold texts out, for choosing the penalty of the head; one of them is too noisy


def train_reward_model(
    data: PreferenceData,
    users: UserVectors | None,
    reader: TextReader,
    gate: ExpertGate,
    mixture: MixtureOptions,
    options: RewardOptions,
    *,
    seed: int,
    directory: Path,
    progress: Progress,
) -> None:
    """Train a reward model and save it into `directory`.

    First the head is fitted on the backbone's frozen features (`copl.reward.training.warm_start`); then adapters, gate
    and the part of the head that all users share are trained together, adapters starting at zero; then the whole head
    is fitted on what they made of the texts (`copl.reward.training.refit`). Without routed experts, and where users
    train along, the whole head trains with the adapters instead. A part of the training texts is held out; the model of
    the lowest loss on them and on the validation split, both counting the same, is kept, the frozen-feature model
    included; what the held-out texts say of the head is added in the end. Called again after a kill, it continues from
    the last checkpoint that it finds in ``directory/scratch`` and ends with the same model.

    With ``options.mode`` frozen there are no adapters and no gate; the head alone is trained, on the frozen features.

    Args:
        data: its splits ``train`` and ``validation`` are used.
        users: embeddings of the seen users, or None for a reward model that takes no notice of users. A user of the
            validation split who is not among them counts as the average user. Where they are trainable, they are a
            table that trains along and is saved beside the model (`copl.reward.training.user_vectors`).
        reader: owns the backbone, without adapters; they are put on it in place and taken off again.
        gate: the gate, initialised by the caller; bound to the seen users and trained in place.
        mixture: the adapters.
        options: head and training.
        seed: the same seed gives the same model on the same machine.
        directory: where the model goes.
        progress: where to show progress; the log gets records of the stage ``reward``.

    Raises:
        DataError: there is nothing to train on, or the gate needs groups that the data has not.
        BackboneError: the backbone does not fit the options.
        OptionsError: options contradict one another.
        TrainingError: the loss is not finite, or memory is exhausted.
    """
    started = time.monotonic()
    scratch = directory / SCRATCH
    with own_randomness(seed):
        material = gather(data, users)
        gate = gate if options.needs_gate else NoGate()
        scaling = AffineScaling.of_users(material.trained_users)
        if users is not None and gate.num_experts:
            gate.bind(scaling.apply(users.values), users.groups, seed=seed)
        setting = assemble(
            material,
            data.responses,
            reader,
            gate,
            mixture,
            options,
            scaling=scaling,
            trainable_users=users is not None and users.trainable,
            progress=progress,
        )
        model = setting.model
        divisions = [hold_out_texts(material.train, material.groups, seed + n) for n in range(_DIVISIONS)]
        fit = _head_fit(setting, seed)
        warm = fit.choose(divisions, material.validation) if options.warm_start else None
        if warm is not None:
            progress.log("reward", step=0, new_text_loss=warm.new_text_loss, new_text_accuracy=warm.new_text_accuracy)
        choice = None if warm is None else HeadChoice(fit, warm, material.train)
        setting.objective.to(reader.backbone.model.device)
        if choice is not None and _reads_users_late(setting):
            outcome = _experts_first(setting, choice, divisions[0], seed=seed, scratch=scratch, progress=progress)
        else:
            curve, steps = _adapt(setting, divisions[0], seed=seed, scratch=scratch, progress=progress)
            kept = best_of(curve).step
            outcome = _Outcome(curve, steps, kept, choice if kept == 0 or _head_stays_comparable(model) else None)
        new_texts = _new_text_margins(setting, divisions[0])
        if outcome.choice is not None:
            model.head.to("cpu")
            outcome.choice.complete()
    use = gate_use(setting)
    if use.get("finding"):
        progress.log("reward", finding=use["finding"])
    training = {
        "steps": outcome.steps,
        "curve": [asdict(point) for point in outcome.curve],
        "kept_step": outcome.kept_step,
        "refit": outcome.refit,
        "warm_start": None if warm is None else asdict(warm),
        "num_texts": len(setting.encoded),
        "num_truncated": setting.encoded.num_truncated,
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
    setting.take_apart()


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
    return HeadFit(model.head, model.scaled(setting.pooled), model.tell(setting.material.users), seed)


@final
@frozen(eq=False)
class _Outcome:
    """How training ended.

    Attributes:
        curve: the looks at the validation split.
        steps: steps taken.
        kept_step: the step whose adapters were kept; 0 where they are zero.
        choice: how the head was fitted, where what was held out from that can still be added.
        refit: losses without adapters and with the head refitted, where that was tried.
    """

    curve: list[CurvePoint]
    steps: int
    kept_step: int
    choice: HeadChoice | None
    refit: Mapping[str, Any] | None = None


def _head_stays_comparable(model: PersonalRewardModel) -> bool:
    """Whether a head that has trained on and one fitted before can be added up: not layers, nor weights of a gate that
    has trained as well."""
    learns = any(parameter.requires_grad for parameter in model.gate.parameters())
    return model.head.linear_in_features and not (model.head.reads_gate and learns)


def _reads_users_late(setting: Setting) -> bool:
    """Whether adapters train before the head reads the user.

    Not where no expert could learn what is personal, nor with users that train along, which learn it by the head.
    """
    model, options = setting.model, setting.options
    could = (
        bool(model.head.personal_parameters()) and model.gate.num_experts > 0 and setting.objective.user_table is None
    )
    return could and options.mode == "adapt" and options.max_steps > 0


def _experts_first(
    setting: Setting, choice: HeadChoice, parts: TrainingParts, *, seed: int, scratch: Path, progress: Progress
) -> _Outcome:
    """Train adapters under the shared part of the head, then refit it whole; keep that or the frozen model."""
    judges = _judges(setting, parts, seed)
    without = CurvePoint(0, *_measure(setting, judges))
    frozen_model = trainable(setting.objective)
    choice.fit.without_personal()
    with held_fixed(setting.model.head.personal_parameters()):
        curve, steps = _adapt(setting, parts, seed=seed, scratch=scratch, progress=progress)
    best, refitted, kept = best_of(curve).step, None, without
    if best > 0:
        again = refit_head(setting, seed)
        refitted = CurvePoint(best, *_measure(setting, judges))
        if refitted.validation_loss < without.validation_loss:
            choice, kept = again, refitted
        # Names of their own: they are no points of the curve of training.
        losses = {"without_adapters_loss": without.validation_loss, "refitted_loss": refitted.validation_loss}
        progress.log("reward", step=best, kept_step=kept.step, **losses)
    if kept is without:
        load_trainable(setting.objective, frozen_model)
    refit = {
        "without_adapters": asdict(without),
        "refitted": None if refitted is None else asdict(refitted),
        "head": asdict(choice.found),
    }
    return _Outcome(curve, steps, kept.step, choice, refit)


def _judges(setting: Setting, parts: TrainingParts, seed: int) -> list[Comparisons]:
    """Comparisons that the model is not fitted to: of the validation split, and of texts held out."""
    count = setting.options.eval_comparisons
    judges = [drawn(part, count, np.random.default_rng(seed)) for part in (setting.material.validation, parts.new_text)]
    return [part for part in judges if len(part)]


def _adapt(
    setting: Setting, parts: TrainingParts, *, seed: int, scratch: Path, progress: Progress
) -> tuple[list[CurvePoint], int]:
    """Train what is to be trained; return the validation curve and the steps taken."""
    train, options, material = parts.fitted, setting.options, setting.material
    judges = _judges(setting, parts, seed)

    def measure() -> tuple[float, float]:
        return _measure(setting, judges)

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
        collator = FeatureCollator(setting.pooled, train, material.users)
    else:
        collator = PairCollator(
            setting.encoded,
            train,
            material.users,
            routes=routes,
            kept=setting.kept,
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
