"""What there is to show of tastes: where users lie, and pairs of responses to ask about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen

from copl.errors import CoplError

if TYPE_CHECKING:
    from copl.data.requests import Pair
    from copl.model import Model
    from copl.records import AdaptedUsers, FloatArray, PreferenceData

_MAX_USERS = 100
_MAX_PAIRS = 200


@final
@frozen(eq=False)
class TasteMap:
    """Users as points on a plane: the two directions in which the trained users differ most.

    Attributes:
        points: where trained users lie [U, 2], within -1 and 1; a sample where there are many.
        groups: their groups, where the data set says [U].
        centre: mean of their embeddings [D].
        axes: the directions, scaled [D, 2].
    """

    points: FloatArray
    groups: tuple[str | None, ...]
    centre: FloatArray
    axes: FloatArray

    @classmethod
    def of(cls, model: Model, data: PreferenceData | None) -> TasteMap | None:
        """Return the map of a model; None where it has no such users."""
        users = sorted(model.method.seen_users())
        if len(users) < 3:
            return None
        rng = np.random.default_rng(0)
        if len(users) > _MAX_USERS:
            users = [users[row] for row in sorted(rng.choice(len(users), _MAX_USERS, replace=False).tolist())]
        try:
            embeddings = np.stack([_embedding(model.online(user).adapted) for user in users])
        except CoplError:  # the method takes no notice of users
            return None
        centre = embeddings.mean(axis=0)
        _, values, directions = np.linalg.svd(embeddings - centre, full_matrices=False)
        if len(values) < 2 or values[0] <= 0:
            return None
        axes = directions[:2].T
        points = (embeddings - centre) @ axes
        largest = np.abs(points).max()
        groups = data.users.groups if data is not None else ()
        rows = data.users.rows if data is not None else {}
        return cls(
            points / largest, tuple(groups[rows[u]] if u in rows else None for u in users), centre, axes / largest
        )

    def place(self, adapted: AdaptedUsers) -> tuple[float, float]:
        """Return where a user lies, on the edge of the plane where that is outside."""
        x, y = np.clip((_embedding(adapted) - self.centre) @ self.axes, -1, 1).tolist()
        return float(x), float(y)


def _embedding(adapted: AdaptedUsers) -> FloatArray:
    embedding: FloatArray = adapted.embeddings[0].double().numpy()
    return embedding


def pairs_to_ask(data: PreferenceData | None) -> Sequence[Pair]:
    """Return pairs of responses of a data set, of as many prompts as there are, always the same."""
    if data is None:
        return []
    part = data.split("train").comparisons
    prompts, texts = data.responses.prompts, data.responses.texts
    pairs: dict[tuple[int, int], Pair] = {}
    order = np.random.default_rng(0).permutation(len(part))[: 20 * _MAX_PAIRS]
    by_prompt: dict[str, int] = {}
    for row in order.tolist():
        first, second = sorted((int(part.chosen[row]), int(part.rejected[row])))
        prompt = prompts[first]
        if prompt != prompts[second]:  # as thumbs and ratings imply it: nobody could choose
            continue
        if texts[first] != texts[second] and (first, second) not in pairs and by_prompt.get(prompt, 0) < 5:
            pairs[first, second] = (prompt, texts[first], texts[second])
            by_prompt[prompt] = by_prompt.get(prompt, 0) + 1
        if len(pairs) == _MAX_PAIRS:
            break
    return list(pairs.values())
