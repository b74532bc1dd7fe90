"""Adapted users as a file: embeddings as safetensors, ids and how each was obtained in its header."""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
from attrs import frozen

from copl.errors import RunError
from copl.records import AdaptedUsers
from copl.system.documents import to_json
from copl.system.tensors import content_checksum, floats, integers, load_tensors, save_tensors

FORMAT = 2
_EXPECTED = {"embeddings": floats("N", "D"), "num_neighbours": integers("N"), "confidence": floats("N")}
_AGAIN = "`copl adapt` writes files of adapted users"


@final
@frozen
class _Header:
    adapted_users: int
    run: str
    user_ids: tuple[str, ...]
    how: tuple[str, ...]
    content: str | None = None  # files of earlier versions have no checksum


def save_adapted(adapted: AdaptedUsers, path: Path) -> None:
    """Write adapted users to `path`, whole or not at all."""
    tensors = {name: getattr(adapted, name) for name in _EXPECTED}
    save_tensors(path, tensors, header=_Header(FORMAT, adapted.run, adapted.user_ids, adapted.how, _checksum(adapted)))


def load_adapted(path: Path) -> AdaptedUsers:
    """Read adapted users.

    Raises:
        RunError: the file is missing, damaged or of another kind.
    """
    tensors = load_tensors(path, _EXPECTED, advice=_AGAIN)
    header = tensors.read_header(_Header, advice=_AGAIN, version={"adapted_users": FORMAT})
    count = len(tensors["embeddings"])
    if not len(header.user_ids) == len(header.how) == count or len(set(header.user_ids)) != count:
        raise RunError(f"{path}: damaged: {count} embeddings are not those of so many different users; {_AGAIN}")
    counts, confidence = tensors.array("num_neighbours"), tensors.array("confidence")
    adapted = AdaptedUsers(header.user_ids, tensors["embeddings"], header.how, counts, confidence, header.run)
    if header.content not in (None, _checksum(adapted)):
        raise RunError(f"{path}: damaged (its checksum differs); {_AGAIN}")
    return adapted


def _checksum(adapted: AdaptedUsers) -> str:
    said = to_json([adapted.run, list(adapted.user_ids), list(adapted.how)])
    values = {
        "embeddings": adapted.embeddings.detach().float().cpu().numpy(),
        "num_neighbours": np.asarray(adapted.num_neighbours, dtype=np.int64),
        "confidence": np.asarray(adapted.confidence, dtype=np.float64),
    }
    return content_checksum(said, values)
