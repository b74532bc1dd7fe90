"""What gates and heads see of users: the few directions in which they choose most differently."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen

from copl.system.tensors import floats, load_tensors, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import NodeEmbeddings

_FILE = "gate_view.safetensors"
_MOST_COORDINATES = 64
_NUM_DIRECTIONS = 32
_SAMPLE = 20_000
_LEAST = 1e-4


@final
@frozen(eq=False)
class GateView:
    r"""A linear map of user embeddings.

    An embedding of up to 64 coordinates is seen as it is. Of a longer one, such as a taste in any direction of a text,
    the leading principal components are seen of the margins it gives, over users and over pairs of compared responses:
    (e_u - \bar e) S^{1/2} V with S the scatter of differences of responses and V the leading eigenvectors of
    S^{1/2} C S^{1/2}, with C the covariance of users.

    Attributes:
        centre: what is subtracted [D].
        axes: the map [D, K].
    """

    centre: Tensor
    axes: Tensor

    @classmethod
    def of(cls, embeddings: NodeEmbeddings) -> GateView:
        """Find the directions."""
        dim = embeddings.dim
        if dim <= _MOST_COORDINATES or not len(embeddings.user_ids):
            return cls(torch.zeros(dim), torch.eye(dim))
        users = embeddings.users.double()
        rows = embeddings.comparisons
        some = np.arange(0, len(rows), max(1, len(rows) // _SAMPLE))
        differences = (
            embeddings.responses[torch.from_numpy(rows.chosen[some])]
            - embeddings.responses[torch.from_numpy(rows.rejected[some])]
        ).double()
        values, vectors = torch.linalg.eigh(differences.T @ differences / len(some))
        root = vectors * values.clamp_min(0).sqrt() @ vectors.T
        centred = (users - users.mean(dim=0)) @ root
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(users))
        order = torch.argsort(values, descending=True)[:_NUM_DIRECTIONS]
        order = order[values[order] >= _LEAST * values.max()]
        return cls(users.mean(dim=0).float(), (root @ vectors[:, order]).float())

    def __call__(self, users: Tensor) -> Tensor:
        """Return what is seen of users with embeddings [U, D]: [U, K]."""
        seen: Tensor = (users - self.centre) @ self.axes
        return seen

    def save(self, directory: Path) -> None:
        """Write the map."""
        save_tensors(directory / _FILE, {"centre": self.centre, "axes": self.axes})

    @classmethod
    def load(cls, directory: Path) -> GateView:
        """Read the map.

        Raises:
            RunError: it is missing or damaged.
        """
        expected = {"centre": floats("D"), "axes": floats("D", "K")}
        tensors = load_tensors(directory / _FILE, expected, advice="train the run again")
        return cls(tensors["centre"], tensors["axes"])
