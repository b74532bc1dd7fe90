"""Gates that look at all seen users once and route by distance afterwards: ``cluster`` and ``oracle``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from copl.errors import DataError
from copl.experts.gates.catalogue import ClusterGateOptions, OracleGateOptions
from copl.interfaces import ExpertGate
from copl.records import GateWeights

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray

_ROWS_AT_ONCE = 1024
_ROUNDS = 30


@final
class NearestGate(ExpertGate):
    """Routes every user with weight 1 to the expert of the nearest of some reference points.

    Args:
        num_experts: number M of routed experts.
        embedding_dim: dimension D of the user embeddings.
        reference: makes points [K, D] and the expert of each [K] from the arguments of `bind`.
    """

    points: Tensor
    expert: Tensor

    def __init__(self, num_experts: int, *, embedding_dim: int, reference: Any) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.top_k = 1
        self._reference = reference
        self.register_buffer("points", torch.zeros(0, embedding_dim))
        self.register_buffer("expert", torch.zeros(0, dtype=torch.long))

    def bind(self, users: Tensor, groups: Sequence[str | None], *, seed: int) -> None:
        """Find the reference points among the seen users [U, D].

        Raises:
            DataError: the gate needs true groups and the data has none, or more of them than experts.
        """
        values = users.detach().double().cpu().numpy()
        points, expert = self._reference(values, list(groups), self.num_experts, seed)
        self.points = torch.from_numpy(points).to(self.points)
        self.expert = torch.from_numpy(expert).to(self.expert)

    def forward(self, users: Tensor) -> GateWeights:
        """Return weights [B, M] for user embeddings [B, D]."""
        if len(self.points) == 0:
            raise RuntimeError("bind the gate to the seen users first")
        places = range(0, max(1, len(users)), _ROWS_AT_ONCE)
        parts = [users.detach()[place : place + _ROWS_AT_ONCE] for place in places]
        chosen = torch.cat([self.expert[_nearest(part, self.points)] for part in parts])
        weights = torch.nn.functional.one_hot(chosen, self.num_experts).float()
        return GateWeights(weights, weights.new_zeros(()))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        # How many points there are is known only from what was saved.
        for name in ("points", "expert"):
            saved, own = state_dict.get(prefix + name), getattr(self, name)
            if saved is not None and saved.shape[1:] == own.shape[1:]:
                setattr(self, name, own.new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _nearest(users: Tensor, points: Tensor) -> Tensor:
    """The nearest point [B] of each user, the first of equals; by differences, so that a point finds itself."""
    distances = torch.cdist(users.float(), points.float(), compute_mode="donot_use_mm_for_euclid_dist")
    return distances.argmin(dim=1)


def _clusters(
    users: FloatArray, groups: Sequence[str | None], num_experts: int, seed: int, *, restarts: int
) -> tuple[FloatArray, IntArray]:
    """The centres of a k-means clustering; fewer than experts where there are fewer distinct users."""
    rng = np.random.default_rng(seed)
    count = min(num_experts, len(np.unique(users, axis=0)))
    runs = [_k_means(users, count, rng) for _ in range(restarts)]
    centres = min(runs, key=lambda run: run[1])[0]
    return centres, np.arange(count, dtype=np.int64)


def _k_means(users: FloatArray, count: int, rng: np.random.Generator) -> tuple[FloatArray, float]:
    """Return the centres of k-means, started by k-means++, and the sum of the squared distances to them."""
    from scipy.cluster.vq import kmeans2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cluster that runs empty keeps its centre
        centres, nearest = kmeans2(users, count, iter=_ROUNDS, minit="++", seed=rng)
    return centres, float(np.square(users - centres[nearest]).sum())


def _true_groups(
    users: FloatArray, groups: Sequence[str | None], num_experts: int, seed: int
) -> tuple[FloatArray, IntArray]:
    """Every seen user whose group is known is a point, its expert the place of its group among the sorted groups."""
    known = [group is not None for group in groups]
    names = sorted({group for group in groups if group is not None})
    if not names:
        raise DataError(
            "gate 'oracle' needs the true groups of seen users, but the data has none; add a column 'group' to it or "
            "choose another gate"
        )
    if len(names) > num_experts:
        raise DataError(
            f"gate 'oracle' needs an expert for each of the {len(names)} groups, but there are {num_experts}; "
            f"set gate.num_experts to {len(names)} or more"
        )
    number = {name: place for place, name in enumerate(names)}
    return users[known], np.array([number[group] for group in groups if group is not None], dtype=np.int64)


def build_cluster(options: ClusterGateOptions, *, embedding_dim: int) -> NearestGate:
    """Hard routing by k-means on the user embeddings.

    As in MoCLE (Gou et al., 2023, arXiv:2312.12379), where k-means on instruction embeddings decides the expert and a
    universal expert serves all; here the shared expert is that one. MoCLE puts a learnt gate between cluster and
    expert; here cluster m is expert m, with weight 1.
    """

    def reference(
        users: FloatArray, groups: Sequence[str | None], num_experts: int, seed: int
    ) -> tuple[FloatArray, IntArray]:
        return _clusters(users, groups, num_experts, seed, restarts=options.restarts)

    return NearestGate(options.num_experts, embedding_dim=embedding_dim, reference=reference)


def build_oracle(options: OracleGateOptions, *, embedding_dim: int) -> NearestGate:
    """A seen user has the expert of its true group; anybody else that of the nearest user whose group is known.

    Users whose embeddings are exactly equal cannot be told apart and share the group of the first.
    """
    return NearestGate(options.num_experts, embedding_dim=embedding_dim, reference=_true_groups)
