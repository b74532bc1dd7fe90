"""Adapted users as a file: embeddings as safetensors, ids and how each was obtained in its metadata."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from copl.errors import RunError
from copl.records import AdaptedUsers
from copl.system.files import write_atomically

_FORMAT = "copl-adapted-users-1"


def save_adapted(adapted: AdaptedUsers, path: Path) -> None:
    """Write adapted users to `path`, whole or not at all."""
    import torch

    tensors = {
        "embeddings": adapted.embeddings.contiguous(),
        "num_neighbours": torch.from_numpy(np.ascontiguousarray(adapted.num_neighbours)),
        "confidence": torch.from_numpy(np.ascontiguousarray(adapted.confidence)),
    }
    metadata = {"format": _FORMAT, "user_ids": json.dumps(adapted.user_ids), "how": json.dumps(adapted.how)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def load_adapted(path: Path) -> AdaptedUsers:
    """Read adapted users.

    Raises:
        RunError: the file is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file of adapted users; `copl adapt` writes one")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise RunError(f"{path}: not a file of adapted users; `copl adapt` writes one")
            return AdaptedUsers(
                user_ids=tuple(json.loads(metadata["user_ids"])),
                embeddings=file.get_tensor("embeddings"),
                how=tuple(json.loads(metadata["how"])),
                num_neighbours=file.get_tensor("num_neighbours").numpy(),
                confidence=file.get_tensor("confidence").numpy(),
            )
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: damaged or not a file of adapted users ({error})") from error
