"""Training a reward model on a data set and saving it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, evolve

from copl.interfaces import SCRATCH, Progress
from copl.records import PreferenceData
from copl.reward.reading.reader import TextReader
from copl.reward.readings import READINGS_FILE
from copl.reward.store import RewardCard, describe_backbone, save_reward_model
from copl.reward.training.ahead import read_ahead
from copl.reward.training.former import FormerReward, save_head
from copl.reward.training.looks import gate_use
from copl.reward.training.reward_training import Adapted, HeadChoice, RewardTraining
from copl.reward.training.setup import RewardDesign, TrainingSetup, set_up
from copl.reward.training.user_vectors import UserVectors, save_trained_users
from copl.system.processes import is_main


def train_reward_model(
    data: PreferenceData,
    users: UserVectors | None,
    reader: TextReader,
    design: RewardDesign,
    *,
    seed: int,
    directory: Path,
    progress: Progress,
    former: FormerReward | None = None,
) -> None:
    """Train a reward model (`RewardTraining`) and save it into `directory`.

    Called again after a kill, it continues from the checkpoint in ``directory/scratch`` and ends with the same model.

    Args:
        data: its splits ``train`` and ``validation`` are used.
        users: embeddings of the seen users, or None for a reward model that takes no notice of users. A user of the
            validation split who is not among them counts as the average user. Where they are trainable, they are a
            table that trains along and is saved beside the model (`copl.reward.training.user_vectors`).
        reader: owns the backbone, without adapters; they are put on it in place and taken off again.
        design: gate, adapters, head, and how to train.
        seed: the same seed gives the same model on the same machine.
        directory: where the model goes.
        progress: where to show progress; the log gets records of the stage ``reward``.
        former: a model of the same design, and for the same dimensions of users, to go on from.

    Raises:
        DataError: there is nothing to train on, or the gate needs groups that the data has not.
        BackboneError: the backbone does not fit the options.
        OptionsError: options contradict one another.
        TrainingError: the loss is not finite, or memory is exhausted.
    """
    started = time.monotonic()
    scratch = directory / SCRATCH
    with _own_randomness(seed):
        place = None if former is None else former.directory
        setup = set_up(data, users, reader, design, seed=seed, progress=progress, former=place)
        try:
            training = RewardTraining(setup, seed=seed, scratch=scratch, progress=progress)
            adapted, frozen = training.run() if former is None else (training.go_on(former.read()), None)
            trained_users = None if users is None else _as_trained(users, setup)
            ahead = read_ahead(setup, adapted.readings, data, trained_users, progress)
            facts = _facts(setup, adapted, frozen, time.monotonic() - started)
            if facts["gate"].get("finding"):
                progress.log("reward", finding=facts["gate"]["finding"])
            if is_main():
                if ahead is not None:
                    ahead.save(directory / READINGS_FILE)
                if trained_users is not None and trained_users.trainable:
                    save_trained_users(trained_users, directory)
                if adapted.completed is not None:
                    save_head(adapted.completed, directory)
                model = setup.model
                card = RewardCard(
                    design.options,
                    model.embedding_dim,
                    model.mixture.layout.num_experts,
                    describe_backbone(model.backbone),
                    facts,
                )
                save_reward_model(model, card, directory)
        finally:
            setup.take_apart()


def _as_trained(users: UserVectors, setup: TrainingSetup) -> UserVectors:
    """The users as given, those that occur with what they have become."""
    if not users.trainable:
        return users
    values, rows = users.values.float().clone(), {user: row for row, user in enumerate(users.ids)}
    for user, value in zip(setup.material.user_ids, setup.users, strict=True):
        if user in rows:
            values[rows[user]] = value
    return evolve(users, values=values)


def _facts(setup: TrainingSetup, adapted: Adapted, frozen: HeadChoice | None, seconds: float) -> dict[str, Any]:
    """What ``reward.json`` says of training."""
    return {
        "steps": adapted.curve[-1].step,
        "curve": [asdict(point) for point in adapted.curve],
        "kept_step": adapted.kept_step,
        "refit": adapted.refit,
        "warm_start": None if frozen is None else frozen.fitted.facts(),
        "num_texts": len(setup.texts.encoded),
        "num_truncated": setup.texts.encoded.num_truncated,
        "shared_routes": None if setup.routes is None else int(setup.routes.max()) + 1,
        "packed_pairs": setup.packed,
        "gate": gate_use(setup),
        "seconds": round(seconds, 1),
    }


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seed the global generators that PEFT and dropout draw from, and put them back afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
