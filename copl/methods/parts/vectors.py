"""Which vector a user has: the last one that anybody knows of the user, or that of a stranger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import UserTable


def vectors_of(users: UserTable, stranger: Tensor, *known: tuple[Mapping[str, int], Tensor]) -> Tensor:
    """Return the vector of each user [U, D].

    Args:
        users: the users.
        stranger: the vector of a user whom none of the others knows [D].
        known: the rows of users by their ids, and the vectors there [N, D]; the last that knows a user counts.
    """
    vectors = stranger.expand(len(users), -1).clone()
    for rows, values in known:
        places = [(place, rows[user]) for place, user in enumerate(users.ids) if user in rows]
        if places:
            place, row = torch.tensor(places).T
            vectors[place] = values[row].to(vectors.dtype)
    return vectors
