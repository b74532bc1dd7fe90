"""The seen users as a reward model gets them, and the ones it trains along, on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import final

import torch
from attrs import field, frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from copl.errors import RunError
from copl.system.files import write_atomically

_FILE = "users.safetensors"


@final
@frozen(eq=False)
class UserVectors:
    """Embeddings of the seen users.

    Attributes:
        ids: the users' own ids [U].
        values: their embeddings [U, D].
        groups: the true group of each, None where unknown [U]; only a gate that is told the truth looks at them.
        trainable: whether the embeddings are a table of weights that trains along with the reward model.
    """

    ids: tuple[str, ...]
    values: Tensor
    groups: tuple[str | None, ...] = field()
    trainable: bool = False

    @groups.default
    def _unknown(self) -> tuple[str | None, ...]:
        return (None,) * len(self.ids)

    def __attrs_post_init__(self) -> None:
        if not len(self.ids) == len(self.values) == len(self.groups):
            raise ValueError(f"{len(self.ids)} ids, {len(self.values)} embeddings and {len(self.groups)} groups")


def save_trained_users(users: UserVectors, directory: Path) -> None:
    """Write the embeddings that were trained along, and whose they are, into a reward model's directory."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {"users": users.values.detach().float().cpu().contiguous()}
    metadata = {"ids": json.dumps(users.ids)}
    write_atomically(directory / _FILE, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def load_trained_users(directory: Path) -> UserVectors | None:
    """Read the user embeddings trained along with the reward model in `directory`; None where none were.

    Raises:
        RunError: the file is damaged.
    """
    path = directory / _FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            ids = json.loads((file.metadata() or {})["ids"])
            values: Tensor = file.get_tensor("users")
        return UserVectors(tuple(ids), torch.as_tensor(values), trainable=True)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}); train the reward model again") from error
