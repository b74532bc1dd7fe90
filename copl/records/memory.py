"""What an encoder leaves to go on from when rows are added: what its embeddings alone do not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import attrs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@final
@attrs.frozen(eq=False)
class Memory:
    """Tensors by name, apart by whose they are, so that rows can be found again in a graph that has grown.

    Attributes:
        users: a row for each user [U, ...].
        responses: a row for each response [R, ...].
        shared: what belongs to no node.
        facts: plain JSON values, such as settings that were chosen.
    """

    users: Mapping[str, Tensor] = attrs.field(factory=dict)
    responses: Mapping[str, Tensor] = attrs.field(factory=dict)
    shared: Mapping[str, Tensor] = attrs.field(factory=dict)
    facts: Mapping[str, Any] = attrs.field(factory=dict)

    @classmethod
    def joined(cls, parts: Mapping[str, Memory], facts: Mapping[str, object]) -> Memory:
        """Return several memories as one, each below its name, with facts of their own beside theirs."""

        def together(kind: str) -> dict[str, Tensor]:
            return {f"{part}.{name}": t for part, own in parts.items() for name, t in getattr(own, kind).items()}

        inner = {name: dict(part.facts) for name, part in parts.items()}
        return cls(together("users"), together("responses"), together("shared"), {**facts, "parts": inner})

    def part(self, name: str) -> Memory:
        """Return one of the memories that were joined."""

        def own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            prefix = f"{name}."
            return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}

        return Memory(own(self.users), own(self.responses), own(self.shared), self.facts["parts"][name])

    def renumbered(self, users: NDArray[np.int64] | None, responses: NDArray[np.int64] | None) -> Memory:
        """Return it for nodes that had other rows, or none (-1), whose values are zeros.

        Args:
            users: the former row of each user; None for the same users.
            responses: the former row of each response; None for the same responses.
        """
        return attrs.evolve(self, users=_taken(self.users, users), responses=_taken(self.responses, responses))


def _taken(tensors: Mapping[str, Tensor], rows: NDArray[np.int64] | None) -> Mapping[str, Tensor]:
    if rows is None:
        return tensors
    import torch

    place = torch.from_numpy(rows)
    known = torch.nonzero(place >= 0).flatten()
    return {
        name: tensor.new_zeros((len(rows), *tensor.shape[1:])).index_copy_(0, known, tensor[place[known]])
        for name, tensor in tensors.items()
    }
