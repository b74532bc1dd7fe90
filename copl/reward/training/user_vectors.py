"""The seen users as a reward model gets them, and the ones it trains along, on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

from attrs import field, frozen

from copl.errors import RunError
from copl.system.tensors import floats, load_tensors, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

USERS_FILE = "users.safetensors"
_AGAIN = "train the reward model again"


@final
@frozen
class _Header:
    ids: tuple[str, ...]


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
    save_tensors(directory / USERS_FILE, {"users": users.values.float()}, header={"ids": users.ids})


def load_trained_users(directory: Path) -> UserVectors | None:
    """Read the user embeddings trained along with the reward model in `directory`; None where none were.

    Raises:
        RunError: the file is damaged.
    """
    path = directory / USERS_FILE
    if not path.is_file():
        return None
    tensors = load_tensors(path, {"users": floats("U", "D")}, advice=_AGAIN)
    ids = tensors.read_header(_Header, advice=_AGAIN).ids
    if len(ids) != len(tensors["users"]):
        raise RunError(f"{path}: {len(ids)} ids for {len(tensors['users'])} users; {_AGAIN}")
    return UserVectors(ids, tensors["users"], trainable=True)
