"""A file of adapted users comes back as it was written, or is refused in a line a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from copl.adapt.store import load_adapted, save_adapted
from copl.errors import RunError
from copl.records import AdaptedUsers
from copl.system.tensors import save_tensors

IDS = ("ann", "bob")
HEADER = {"adapted_users": 2, "run": "r", "user_ids": list(IDS), "how": ["mean", "mean"]}
TENSORS: dict[str, Any] = {
    "embeddings": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    "num_neighbours": torch.tensor([1, 2]),
    "confidence": torch.tensor([0.5, 1.0]),
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = AdaptedUsers(IDS, TENSORS["embeddings"], ("mean", "knn"), np.array([1, 2]), np.array([0.5, 1.0]), "r")
    save_adapted(written, tmp_path / "users.safetensors")
    read = load_adapted(tmp_path / "users.safetensors")
    assert (read.user_ids, read.how, read.run) == (IDS, ("mean", "knn"), "r")
    assert read.embeddings.equal(written.embeddings)
    assert read.num_neighbours.tolist() == [1, 2]
    assert read.confidence.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("tensors", "header", "fault"),
    [
        ({"embeddings": torch.zeros(2)}, {}, r"embeddings: expected shape \[\w+, \w+\], got \[2\]"),
        ({"embeddings": torch.zeros(2, 3).long()}, {}, "embeddings: expected"),
        ({"embeddings": torch.full((2, 3), torch.nan)}, {}, "embeddings: holds what is no finite number"),
        ({"confidence": torch.tensor([0.5, torch.inf])}, {}, "confidence: holds what is no finite number"),
        ({"embeddings": torch.zeros(3, 3)}, {}, r"got \[3"),
        ({"more": torch.zeros(2)}, {}, "more does not belong there"),
        ({}, {"user_ids": ["ann", "bob", "cy"]}, "2 embeddings are not those of so many different users"),
        ({}, {"user_ids": ["ann", "ann"]}, "2 embeddings are not those of so many different users"),
        ({}, {"how": ["mean"]}, "2 embeddings are not those of so many different users"),
        ({}, {"user_ids": "ab"}, "user_ids: expected"),
        ({}, {"user_ids": None}, "user_ids: expected"),
        ({}, {"run": 3}, "run: expected"),
        ({}, {"adapted_users": 9}, "this version of copl reads 2"),
        ({}, {"content": "0" * 64}, "its checksum differs"),
    ],
)
def test_what_is_not_so_is_a_line(tensors: dict[str, Any], header: dict[str, Any], fault: str, tmp_path: Path) -> None:
    path = tmp_path / "users.safetensors"
    save_tensors(path, TENSORS | tensors, header=HEADER | header)
    with pytest.raises(RunError, match=fault) as refused:
        load_adapted(path)
    assert all(line.startswith(str(path)) and line.isprintable() for line in refused.value.faults)
