"""Scores of many (user, response) pairs: the same alone, in any batch and in any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from copl.interfaces import Progress
from copl.records import ResponseTable, TokenBatch
from copl.reward.backbones.loaded import EncodedResponses, collate
from copl.reward.model import PersonalRewardModel
from copl.reward.reading.kept import UnevenRows
from copl.reward.reading.passes import length_batches
from copl.system.progress import SilentProgress

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray

_USERS_AT_ONCE = 65_536


def score_responses(
    model: PersonalRewardModel,
    responses: ResponseTable,
    users: Tensor | None,
    rows: IntArray,
    *,
    progress: Progress | None = None,
    frozen: bool = False,
) -> FloatArray:
    """Return the rewards [N] of responses for users.

    A text is read once for each distinct setting of the experts: once in all where no expert depends on the user.

    Args:
        model: the reward model; left in the mode it is in.
        responses: the table that `rows` refers to.
        users: embedding of the user of each request [N, D] in the encoder's scale; None for the average user.
        rows: row of the response of each request [N].
        progress: where to show progress.
        frozen: whether the adapters are zero, so that the frozen features say all.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if len(rows) == 0:
        return np.zeros(0)
    texts, place = np.unique(rows, return_inverse=True)
    vectors = model.user_centre.expand(len(rows), -1) if users is None else users
    if vectors.shape != (len(rows), model.embedding_dim):
        raise ValueError(f"users must have the shape {(len(rows), model.embedding_dim)}, not {tuple(vectors.shape)}")
    reader = model.reader
    if frozen:
        return _score_features(model, reader.features(responses, texts), vectors, place)
    encoded, kept = reader.tokens(responses, texts), reader.states(responses, texts)
    return score_encoded(model, encoded, vectors, place, progress=progress or SilentProgress(), kept=kept)


@torch.no_grad()
def _score_features(model: PersonalRewardModel, features: Tensor, users: Tensor, place: IntArray) -> FloatArray:
    codes = model.head.encode(model.scaled(features.to(model.device)))
    return _combined(model, codes, place, users)


@torch.no_grad()
def score_encoded(
    model: PersonalRewardModel,
    encoded: EncodedResponses,
    users: Tensor,
    place: IntArray,
    *,
    progress: Progress,
    kept: UnevenRows | None = None,
) -> FloatArray:
    """Return the rewards [N] of encoded texts.

    Args:
        model: the reward model.
        encoded: the texts.
        users: embedding of the user of each request [N, D].
        place: which text each request is about [N].
        progress: where to show progress.
        kept: hidden states of the texts below the adapted layers, where they are there already.
    """
    codes, reading = readings(model, encoded, users, place, model.head.encode, progress=progress, kept=kept)
    return _combined(model, codes, reading, users)


@torch.no_grad()
def readings(
    model: PersonalRewardModel,
    encoded: EncodedResponses,
    users: Tensor,
    place: IntArray,
    keep: Callable[[Tensor], Tensor],
    *,
    progress: Progress,
    kept: UnevenRows | None = None,
) -> tuple[Tensor, IntArray]:
    """Read each text once for each distinct setting of the experts that it is asked for with.

    Args:
        model: the reward model.
        encoded: the texts.
        users: embedding of the user of each request [N, D].
        place: which text each request is about [N].
        keep: what is kept [B, C] of scaled features [B, H].
        progress: where to show progress.
        kept: hidden states of the texts below the adapted layers, where they are there already.

    Returns:
        what was kept of each reading [S, C], and which reading is that of each request [N].
    """
    training = model.training
    model.eval()
    try:
        weights = _routes(model, users)
        settings = place if weights is None else _distinct(place, weights)
        _, first, reading = np.unique(settings, return_index=True, return_inverse=True)
        own = None if weights is None else weights[first]
        return _read(model, encoded, place[first], own, keep, kept, progress), reading
    finally:
        model.train(training)


def _combined(model: PersonalRewardModel, codes: Tensor, place: IntArray, users: Tensor) -> FloatArray:
    """Return the rewards [N] of the texts with codes at `place` [N] for users with embeddings [N, D]."""
    scores = np.empty(len(place), dtype=np.float64)
    for start in range(0, len(place), _USERS_AT_ONCE):
        part = slice(start, start + _USERS_AT_ONCE)
        told = model.tell(users[part])
        rewards = model.head.combine(codes[torch.from_numpy(place[part])], told) + model.level(told)
        scores[part] = rewards.double().cpu().numpy()
    return scores


def _routes(model: PersonalRewardModel, users: Tensor) -> Tensor | None:
    if not model.gate.num_experts:
        return None
    weights = torch.empty(len(users), model.gate.num_experts, device=model.device)
    for start in range(0, len(users), _USERS_AT_ONCE):
        part = slice(start, start + _USERS_AT_ONCE)
        weights[part] = model.route(model.condition(users[part].to(model.device))).weights
    return weights


def _distinct(place: IntArray, weights: Tensor) -> IntArray:
    """Number the distinct pairs of a text and a setting of the experts."""
    _, setting = np.unique(weights.float().cpu().numpy(), axis=0, return_inverse=True)
    numbers: IntArray = place * (int(setting.max()) + 1) + setting.reshape(-1)
    return numbers


def _read(
    model: PersonalRewardModel,
    encoded: EncodedResponses,
    place: IntArray,
    weights: Tensor | None,
    keep: Callable[[Tensor], Tensor],
    kept: UnevenRows | None,
    progress: Progress,
) -> Tensor:
    """Return what is kept [S, C] of texts under settings of the experts."""
    found: list[Tensor] = []
    order: list[IntArray] = []
    with progress.task("scoring", len(place)) as task:
        for batch in length_batches(encoded.lengths[place]):
            tokens = collate(encoded, place[batch])
            states = None if kept is None else kept.padded(place[batch], tokens.attention_mask).to(model.device)
            tokens = TokenBatch(tokens.input_ids.to(model.device), tokens.attention_mask.to(model.device))
            features = model.features(tokens, None if weights is None else weights[torch.from_numpy(batch)], states)
            found.append(keep(features))
            order.append(batch)
            task.advance(len(batch))
    inverse = np.empty(len(place), dtype=np.int64)
    inverse[np.concatenate(order)] = np.arange(len(place))
    return torch.cat(found)[torch.from_numpy(inverse)]
