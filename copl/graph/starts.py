"""Embeddings before training: singular vectors of the signed incidence, scaled factors, random draws; and clusters."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from copl.records import Comparisons, FloatArray, IntArray, NodeEmbeddings, PreferenceGraph

_OVERSAMPLING = 8
_POWER_ITERATIONS = 8
_LLOYD_STEPS = 30


def signed_incidence(comparisons: Comparisons, num_users: int, num_responses: int) -> Tensor:
    """Return S [U, R]: S_ur = (weight chosen - weight rejected) / sqrt(deg_u deg_r), degrees over both signs.

    Sparse and in double precision.
    """
    users = torch.from_numpy(comparisons.user).repeat(2)
    responses = torch.cat([torch.from_numpy(comparisons.chosen), torch.from_numpy(comparisons.rejected)])
    weight = torch.from_numpy(comparisons.weight)
    user_degrees = torch.bincount(users, weight.repeat(2), num_users)
    response_degrees = torch.bincount(responses, weight.repeat(2), num_responses)
    degrees = (user_degrees[users] * response_degrees[responses]).sqrt()
    values = torch.where(degrees > 0, torch.cat([weight, -weight]) / degrees, 0.0)
    index = torch.stack([users, responses])
    return torch.sparse_coo_tensor(index, values, (num_users, num_responses), check_invariants=False).coalesce()


def leading_vectors(
    comparisons: Comparisons, num_users: int, num_responses: int, rank: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return U [U, rank], s [rank], V [R, rank] with U diag(s) Vᵀ near the signed incidence; zeros beyond its rank.

    Randomised subspace iteration (Halko, Martinsson and Tropp, 2011, arXiv 0909.4061), in double precision.
    """
    incidence = signed_incidence(comparisons, num_users, num_responses)
    width = min(rank + _OVERSAMPLING, num_users, num_responses)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        users, values, responses = torch.svd_lowrank(incidence, q=width, niter=_POWER_ITERATIONS)
    missing = max(rank - width, 0)
    left, s, right = (nn.functional.pad(part[..., :rank], (0, missing)) for part in (users, values, responses))
    return left, s, right


def spectral_tables(graph: PreferenceGraph, rank: int, seed: int, *, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return users [U, rank] and responses [R, rank]: leading singular vectors times the roots of their values.

    Args:
        graph: the graph.
        rank: number of vectors.
        seed: of the random subspace and the noise.
        noise: standard deviation of what is added, so that no direction is empty.
    """
    left, values, right = leading_vectors(graph.comparisons, graph.num_users, graph.num_responses, rank, seed)
    generator = torch.Generator().manual_seed(seed)
    users, responses = (
        (0.3 * side * (values * len(side)).sqrt()).float() + noise * torch.randn(side.shape, generator=generator)
        for side in (left, right)
    )
    return users, responses


def random_tables(graph: PreferenceGraph, dim: int) -> tuple[Tensor, Tensor]:
    """Return users [U, D] and responses [R, D] drawn as by Glorot and Bengio (2010), by torch's generator."""
    users, responses = (nn.init.xavier_uniform_(torch.empty(n, dim)) for n in (graph.num_users, graph.num_responses))
    return users, responses


def scaled_factors(factors: NodeEmbeddings, length: float = 1.2) -> tuple[Tensor, Tensor]:
    """Return users and responses of fitted factors, each scaled to this root mean square length."""
    users, responses = (
        table * length / table.square().sum(dim=1).mean().sqrt().clamp_min(1e-6)
        for table in (factors.users, factors.responses)
    )
    return users, responses


def clusters(points: FloatArray, num_clusters: int, rng: np.random.Generator) -> IntArray:
    """Return the cluster of each point [U] by k-means, started by k-means++ (Arthur and Vassilvitskii, 2007)."""
    from scipy.cluster.vq import kmeans2

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore")  # clusters that run empty, as where there are fewer points than clusters
        cluster: IntArray = kmeans2(points, num_clusters, iter=_LLOYD_STEPS, minit="++", seed=rng)[1]
    return cluster.astype(np.int64)
