"""What gates and heads see of users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from copl.errors import RunError
from copl.methods.parts.gate_view import GateView
from copl.records import Comparisons, NodeEmbeddings


def embeddings(dim: int, num_users: int = 50, seed: int = 0) -> NodeEmbeddings:
    """Users vary in three directions; of what they differ by in the last coordinates responses say nothing."""
    generator = torch.Generator().manual_seed(seed)
    users = torch.randn(num_users, 3, generator=generator) @ torch.randn(3, dim, generator=generator)
    responses = torch.randn(80, dim, generator=generator)
    if dim > 64:
        users[:, -5:] += 100 * torch.randn(num_users, 5, generator=generator)
        responses[:, -5:] = 1.0
    rng = np.random.default_rng(seed)
    pairs = np.array([rng.choice(80, 2, replace=False) for _ in range(300)])
    rows = Comparisons(rng.integers(num_users, size=300), pairs[:, 0], pairs[:, 1])
    ids = tuple(f"u{n}" for n in range(num_users)), tuple(f"r{n}" for n in range(80))
    return NodeEmbeddings(*ids, users, responses, torch.zeros(80), rows)


@pytest.mark.parametrize("dim", [1, 64])
def test_up_to_64_coordinates_are_seen_as_they_are(dim: int) -> None:
    known = embeddings(dim)
    assert torch.equal(GateView.of(known)(known.users), known.users)


def test_of_more_the_directions_are_seen_in_which_users_choose_differently() -> None:
    known = embeddings(100)
    seen = GateView.of(known)(known.users)
    assert seen.shape == (50, 3)  # of three directions that matter, whatever the other coordinates do
    rows = known.comparisons
    differences = known.responses[rows.chosen] - known.responses[rows.rejected]
    margins = (known.users - known.users.mean(dim=0)) @ differences.T
    # distances between users are those between their margins
    torch.testing.assert_close(torch.cdist(seen, seen), torch.cdist(margins, margins) / 300**0.5, rtol=1e-2, atol=5e-2)
    covariance = seen.T @ seen / 50
    torch.testing.assert_close(covariance, torch.diag(covariance.diagonal()), atol=1e-2, rtol=0)
    assert covariance.diagonal().tolist() == sorted(covariance.diagonal().tolist(), reverse=True)


def test_at_most_32_directions_are_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    known = embeddings(100)
    varied = NodeEmbeddings(
        known.user_ids,
        known.response_keys,
        torch.randn(50, 100, generator=generator),
        known.responses,
        known.response_bias,
        known.comparisons,
    )
    assert GateView.of(varied)(varied.users).shape == (50, 32)


def test_it_survives_saving_and_a_missing_file_is_named(tmp_path: Path) -> None:
    known = embeddings(70)
    view = GateView.of(known)
    view.save(tmp_path)
    assert torch.equal(GateView.load(tmp_path)(known.users), view(known.users))
    with pytest.raises(RunError, match=r"gate_view\.safetensors: missing"):
        GateView.load(tmp_path / "elsewhere")
