"""The text half of a method: a reward model over a language model, conditioned on user vectors or on nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from copl.interfaces import ExpertGate, FormerRun, Workspace
from copl.methods.parts.vectors import vectors_of
from copl.records import FloatArray, PreferenceData, ScoreRequests, UserTable
from copl.reward.model import PersonalRewardModel
from copl.reward.reading.reader import TextReader
from copl.reward.readings import READINGS_FILE
from copl.reward.scoring import Scorer
from copl.reward.store import load_reward_model, read_reward_card
from copl.reward.training.user_vectors import USERS_FILE, UserVectors, load_trained_users
from copl.runs.recipe import Stages

if TYPE_CHECKING:
    from copl.reward.training.former import FormerReward

STAGE = "reward"


@final
class TextReward:
    """A trained reward model and how it is trained as a stage.

    The model is put together when it is first asked for: to place a newcomer, or to choose a question, takes no more
    than the table of users and responses.

    Args:
        opener: puts the model together.
        users: the seen users, where they were trained along with it.
    """

    def __init__(self, opener: Callable[[], Scorer], users: UserVectors | None = None) -> None:
        self._opener = opener
        self.users = users

    @cached_property
    def _scorer(self) -> Scorer:
        return self._opener()

    @property
    def model(self) -> PersonalRewardModel:
        """The reward model."""
        return self._scorer.model

    @classmethod
    def key(
        cls, data: PreferenceData, stages: Stages, reader: TextReader, *, upstream: Mapping[str, object], seed: int
    ) -> Mapping[str, object]:
        """Return what the reward model depends on."""
        parts = [name for name in ("gate", "backbone") if name in stages.parts]
        return {
            "data": data.digest("train", "validation"),
            "seed": seed,
            "users": upstream,
            "weights": reader.key["weights"],
            **stages.key(*parts, "mixture", "reward"),
        }

    @classmethod
    def fit(
        cls,
        data: PreferenceData,
        users: UserVectors | None,
        stages: Stages,
        reader: TextReader,
        *,
        upstream: Mapping[str, object],
        seed: int,
        workspace: Workspace,
        former: FormerReward | None = None,
    ) -> TextReward:
        """Train the reward model, or take it from the workspace.

        Args:
            data: splits ``train`` and ``validation`` are used.
            users: vectors of the seen users, or None for a reward model without users.
            stages: the recipe's parts; ``gate`` where there is one, and the sections ``mixture`` and ``reward``.
            reader: has read the texts of the data; the model is put on its backbone.
            upstream: what the user vectors depend on.
            seed: the same seed gives the same model.
            workspace: where the result is kept.
            former: a model to go on from (`former_reward`), which `upstream` has to name.
        """
        key = cls.key(data, stages, reader, upstream=upstream, seed=seed)

        def compute(directory: Path) -> None:
            from copl.reward.training.setup import RewardDesign
            from copl.reward.training.train import train_reward_model

            train_reward_model(
                data,
                users,
                reader,
                RewardDesign(
                    _gate(stages, 0 if users is None else int(users.values.shape[1]), seed),
                    stages.options("mixture"),
                    stages.options("reward"),
                ),
                seed=seed,
                directory=directory,
                progress=workspace.progress,
                former=former,
            )

        directory = workspace.stage(STAGE, key=key, compute=compute, together=True)
        reader.whole_again()
        return cls._open(directory, stages, reader)

    @classmethod
    def load(cls, directory: Path, stages: Stages, reader: TextReader) -> TextReward:
        """Read the reward model of a run directory."""
        return cls._open(directory / STAGE, stages, reader)

    @classmethod
    def _open(cls, directory: Path, stages: Stages, reader: TextReader) -> TextReward:
        def scorer() -> Scorer:
            model = load_reward_model(directory, reader, lambda dim: _gate(stages, dim, seed=0))
            scorer = Scorer(model, zero=read_reward_card(directory).kept_frozen)
            if (directory / READINGS_FILE).is_file():
                scorer.load(directory / READINGS_FILE)
            return scorer

        return cls(scorer, load_trained_users(directory))

    def own_vectors(self, users: UserTable) -> Tensor:
        """Return the vectors [U, D] of users that were trained along; anybody else gets the mean of them all."""
        assert self.users is not None
        values, rows = self.users.values, {user: row for row, user in enumerate(self.users.ids)}
        return vectors_of(users, values.mean(dim=0), (rows, values))

    def scores(self, requests: ScoreRequests, vectors: Tensor | None) -> FloatArray:
        """Return the reward of each request; `vectors` [U, D] are those of `requests.users`."""
        if vectors is None:
            average, nobody = self.model.user_centre.unsqueeze(0), np.zeros_like(requests.user)
            return self._scorer.scores(requests.responses, requests.response, average, nobody)
        return self._scorer.scores(requests.responses, requests.response, vectors, requests.user)

    @torch.no_grad()
    def levels(self, vectors: Tensor) -> FloatArray:
        """Return the reward of the average text for each user [U], from their vectors [U, D]."""
        model = self.model
        levels: FloatArray = model.level(model.tell(vectors)).double().cpu().numpy()
        return levels

    def export(
        self, user: str, vector: Tensor | None, stages: Stages, directory: Path, *, merge: bool
    ) -> Mapping[str, object]:
        """Write the reward model of the user with the vector [D] as a plain classifier (`copl.reward.export`)."""
        from copl.reward.export import export_user

        written = export_user(self.model, vector, user, stages.backbone().load(), directory, merge=merge)
        return {"user": user, "directory": str(written.directory), **written.facts()}


def former_reward(former: FormerRun, data: PreferenceData, stages: Stages) -> FormerReward | None:
    """Return the reward model of a former run that can be gone on from; None, and why is told, where there is none.

    Args:
        former: the run.
        data: splits of the data set now, before older evidence counts less.
        stages: the recipe's parts.
    """
    from copl.reward.training.former import FormerReward

    place, mixture, reward = former.stage(STAGE), stages.options("mixture"), stages.options("reward")
    if place is None:
        former.tell(STAGE, "the former run has none")
    elif reward.adapts and mixture.gates != "one":
        former.tell(STAGE, "gates of their own in each layer are not gone on with")
    elif (place / USERS_FILE).is_file():
        former.tell(STAGE, "users that are trained along are not gone on with")
    else:
        former.tell(STAGE, "continued")
        return FormerReward(place, former.lacks(data.split("train")))
    return None


def _gate(stages: Stages, embedding_dim: int, seed: int) -> ExpertGate:
    """Build the gate with weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if "gate" in stages.parts:
            return stages.gate(embedding_dim)
        from copl.experts.gates.fixed import NoGate

        return NoGate()
