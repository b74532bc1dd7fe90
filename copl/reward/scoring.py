"""Scores of many (user, response) pairs: the same alone, in any batch and in any order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from copl.records import ResponseTable
from copl.reward.model import PersonalRewardModel
from copl.reward.readings import ExpertSettings, Readings

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray

_REQUESTS_AT_ONCE = 65_536


@final
class Scorer:
    """Scores with a reward model that does not change any more.

    What the head needs of a text is kept for each setting of the experts, so a text asked for again is not read again,
    for whatever user.

    Args:
        model: the reward model.
        zero: whether its adapters are zero, so that the frozen features say all.
    """

    def __init__(self, model: PersonalRewardModel, *, zero: bool = False) -> None:
        self.model = model
        self._codes = Readings(model, zero=zero, keep=model.head.encode)

    def scores(self, responses: ResponseTable, rows: IntArray, vectors: Tensor, user: IntArray) -> FloatArray:
        """Return the rewards [N] of responses for users.

        Args:
            responses: the table that `rows` refers to.
            rows: row of the response of each request [N].
            vectors: embeddings of the users [U, D], in the encoder's scale.
            user: the user of each request, a row of `vectors` [N].

        Raises:
            BackboneError: a text is new, and the backbone cannot read it.
            TrainingError: memory is exhausted.
        """
        if not len(rows):
            return np.zeros(0)
        codes, place = self._codes.of(responses, rows, ExpertSettings.of_users(self.model, vectors), user)
        return combined(self.model, codes, place, vectors, user)

    def save(self, path: Path) -> None:
        """Keep what has been read."""
        self._codes.save(path)

    def load(self, path: Path) -> None:
        """Take in what `save` kept for the same model.

        Raises:
            RunError: it is missing or damaged.
        """
        self._codes.load(path)


@torch.no_grad()
def combined(model: PersonalRewardModel, codes: Tensor, place: IntArray, vectors: Tensor, user: IntArray) -> FloatArray:
    """Return the rewards [N] of texts for users.

    Args:
        model: the reward model.
        codes: what its head makes of readings of texts [S, C].
        place: the reading of each request [N].
        vectors: embeddings of the users [U, D], in the encoder's scale.
        user: the user of each request [N].
    """
    states = torch.cat([model.tell(part) for part in torch.split(vectors, _REQUESTS_AT_ONCE)])
    level = model.level(states)
    scores = np.empty(len(user), dtype=np.float64)
    for start in range(0, len(user), _REQUESTS_AT_ONCE):
        part = slice(start, start + _REQUESTS_AT_ONCE)
        own = torch.from_numpy(user[part]).to(states.device)
        own_codes = codes[torch.from_numpy(place[part])].to(states.device)
        rewards = model.head.combine(own_codes, states[own]) + level[own]
        scores[part] = rewards.double().cpu().numpy()
    return scores


def score_responses(
    model: PersonalRewardModel, responses: ResponseTable, users: Tensor | None, rows: IntArray, *, zero: bool = False
) -> FloatArray:
    """Return the rewards [N] of responses for users.

    Args:
        model: the reward model; left in the mode it is in.
        responses: the table that `rows` refers to.
        users: embedding of the user of each request [N, D] in the encoder's scale; None for the average user.
        rows: row of the response of each request [N].
        zero: whether the adapters are zero, so that the frozen features say all.
    """
    rows = np.asarray(rows, dtype=np.int64)
    vectors = model.user_centre.expand(len(rows), -1) if users is None else users
    if vectors.shape != (len(rows), model.embedding_dim):
        raise ValueError(f"users must have the shape {(len(rows), model.embedding_dim)}, not {tuple(vectors.shape)}")
    return Scorer(model, zero=zero).scores(responses, rows, vectors, np.arange(len(rows)))
