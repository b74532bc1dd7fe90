"""The newcomers' embeddings while they are being found; every newcomer starts with the population mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary

import numpy as np
import torch

from copl.adapt.support import MatchedSupport
from copl.records import AdaptedUsers, NodeEmbeddings

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray, IntArray

POPULATION = "population"
"""How an embedding was found when the newcomer says nothing about trained responses: the mean of all seen users."""

_MEANS: WeakKeyDictionary[NodeEmbeddings, Tensor] = WeakKeyDictionary()


def population_mean(trained: NodeEmbeddings) -> Tensor:
    """Return the mean of all seen users [D], float64; zeros where there are none."""
    if trained not in _MEANS:
        users = trained.users.detach().cpu().double()
        _MEANS[trained] = users.mean(dim=0) if len(users) else torch.zeros(trained.dim, dtype=torch.float64)
    return _MEANS[trained]


_FACTORS: WeakKeyDictionary[NodeEmbeddings, Tensor] = WeakKeyDictionary()


def covariance_factor(trained: NodeEmbeddings) -> Tensor:
    """Return L [D, rank] with L Lᵀ the covariance of the seen users; made once for each trained set."""
    if trained not in _FACTORS:
        centred = trained.users.detach().cpu().double() - population_mean(trained)
        values, vectors = torch.linalg.eigh(centred.T @ centred / max(len(centred), 1))
        kept = values > values[-1] * 1e-10
        _FACTORS[trained] = vectors[:, kept] * values[kept].sqrt()
    return _FACTORS[trained]


@final
class Estimates:
    """Collects the embeddings of the newcomers of one call.

    Until something better is `put`, a newcomer has the mean of all seen users, with confidence 0.
    """

    def __init__(self, support: MatchedSupport, trained: NodeEmbeddings) -> None:
        self._user_ids = support.user_ids
        self._dtype = trained.users.dtype
        self._embeddings = population_mean(trained).repeat(len(support), 1)
        self._how = np.full(len(support), POPULATION, dtype=object)
        self._num_neighbours = np.full(len(support), len(trained.user_ids), dtype=np.int64)
        self._confidence = np.zeros(len(support))

    def put(
        self, newcomers: IntArray, embeddings: Tensor, how: str, num_neighbours: IntArray | int, confidence: FloatArray
    ) -> None:
        """Set the answer for the newcomers at these rows."""
        self._embeddings[torch.from_numpy(newcomers)] = embeddings
        self._how[newcomers] = how
        self._num_neighbours[newcomers] = num_neighbours
        self._confidence[newcomers] = np.clip(confidence, 0.0, 1.0)

    def result(self) -> AdaptedUsers:
        return AdaptedUsers(
            self._user_ids,
            self._embeddings.to(self._dtype),
            tuple(self._how.tolist()),
            self._num_neighbours,
            self._confidence,
        )
