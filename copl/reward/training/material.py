"""A data set as reward training needs it: only the responses and users that occur, numbered from 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from copl.data.hashing import hashes
from copl.errors import DataError, TrainingError
from copl.records import Comparisons, PreferenceData
from copl.reward.training.user_vectors import UserVectors

if TYPE_CHECKING:
    from copl.records import IntArray, ResponseTable


@final
@frozen(eq=False)
class Material:
    """What a reward model is trained and judged on.

    Attributes:
        texts: row of each text in the data set's response table, in an order that follows from the texts [R].
        groups: number of the prompt of each text [R].
        user_ids: ids of the users that occur [U].
        users: their embeddings, in the encoder's scale [U, D].
        train: training comparisons; rows of `texts` and `users`.
        validation: validation comparisons.
    """

    texts: IntArray
    groups: IntArray
    user_ids: tuple[str, ...]
    users: Tensor
    train: Comparisons
    validation: Comparisons

    @property
    def trained_users(self) -> Tensor:
        """Embeddings of the users with training comparisons, each once."""
        return self.users[torch.from_numpy(np.unique(self.train.user))]


def gather(data: PreferenceData, users: UserVectors | None) -> Material:
    """Collect the comparisons of the splits ``train`` and ``validation`` with what they refer to.

    Args:
        data: the data set.
        users: embeddings of the seen users; None gives embeddings of dimension 0. A user of the validation split who
            is not among them counts as the average user.

    Raises:
        DataError: there is nothing to train on, or a user of the split ``train`` has no embedding.
        TrainingError: an embedding is not finite.
    """
    train, validation = data.split("train").comparisons, data.split("validation").comparisons
    if len(train) == 0:
        raise DataError(f"data set {data.name!r} has no comparisons in the split 'train'; the reward model needs some")
    both = Comparisons.concat([train, validation])
    texts = _in_their_order(np.unique(np.concatenate([both.chosen, both.rejected])), data.responses)
    place = np.zeros(len(data.responses), dtype=np.int64)
    place[texts] = np.arange(len(texts))
    present, user = np.unique(both.user, return_inverse=True)
    ids = tuple(data.users.ids[row] for row in present)
    vectors = _vectors(ids, users, {data.users.ids[row] for row in np.unique(train.user)})
    both = evolve(both, user=user, chosen=place[both.chosen], rejected=place[both.rejected])
    _, groups = np.unique(hashes([data.responses.prompts[row] for row in texts]), return_inverse=True)
    count = np.arange(len(both))
    return Material(texts, groups, ids, vectors, both.take(count < len(train)), both.take(count >= len(train)))


def _in_their_order(rows: IntArray, responses: ResponseTable) -> IntArray:
    """Return rows of texts by hashes of these, so that what is drawn of them does not depend on who named them."""
    return rows[np.argsort(hashes([responses.keys[row] for row in rows]), kind="stable")]


def _vectors(ids: tuple[str, ...], users: UserVectors | None, trained_on: set[str]) -> Tensor:
    """The embeddings of the users `ids`."""
    if users is None:
        return torch.zeros(len(ids), 0)
    if not bool(torch.isfinite(users.values).all()):
        raise TrainingError("some user embeddings are not finite numbers; train the encoder with a lower learning rate")
    rows = {user: row for row, user in enumerate(users.ids)}
    missing = [user for user in ids if user in trained_on and user not in rows]
    if missing:
        raise DataError(f"{len(missing)} users of the split 'train' have no embedding, such as {missing[0]!r}")
    average = users.values.float().mean(0)
    return torch.stack([users.values[rows[user]].float() if user in rows else average for user in ids])
