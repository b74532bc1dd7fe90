"""Comparisons as tensors of features: what losses and rules of adaptation work on."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from copl.records import ComparisonSet, UserTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from copl.records import IntArray


@final
@frozen(eq=False)
class Texts:
    """Features of texts.

    Attributes:
        features: scaled features of prompt and response together [S, H].
        prompts: scaled features of the prompt alone [S, H]; no columns where the method does not ask for them.
    """

    features: Tensor
    prompts: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Tensor) -> Texts:
        """Return the texts at `rows`."""
        return Texts(self.features[rows], self.prompts[rows])


@final
@frozen(eq=False)
class Pairs:
    """Comparisons of some users.

    Attributes:
        users: the users referred to, each with at least one comparison unless said otherwise.
        texts: the responses referred to.
        user: row of the user in `users` [N].
        chosen: row of the chosen response in `texts` [N].
        rejected: row of the rejected one [N].
        weight: weight of the comparison [N].
    """

    users: UserTable
    texts: Texts
    user: Tensor
    chosen: Tensor
    rejected: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def of(
        cls,
        comparisons: ComparisonSet,
        read: Callable[[IntArray], Texts],
        users: UserTable | None = None,
    ) -> Pairs:
        """Make tensors of comparisons.

        Args:
            comparisons: the comparisons.
            read: returns the texts at some rows of ``comparisons.responses``.
            users: users to number by, others are left out; None: all users who have comparisons, in the order of
                their table.
        """
        rows = comparisons.comparisons
        if users is None:
            present = np.unique(rows.user).tolist()
            table = comparisons.users
            users = UserTable([table.ids[row] for row in present], [table.groups[row] for row in present])
        numbers = np.array([users.rows.get(user, -1) for user in comparisons.users.ids], dtype=np.int64)
        if len(rows):
            rows = rows.take(numbers[rows.user] >= 0)
        used, place = np.unique(np.concatenate([rows.chosen, rows.rejected]), return_inverse=True)
        chosen, rejected = torch.from_numpy(place.astype(np.int64)).view(2, -1)
        user = torch.from_numpy(numbers[rows.user])
        return cls(users, read(used), user, chosen, rejected, torch.from_numpy(rows.weight).float())

    @property
    def winners(self) -> Texts:
        """The chosen texts, one for each comparison."""
        return self.texts.take(self.chosen)

    @property
    def losers(self) -> Texts:
        """The rejected texts, one for each comparison."""
        return self.texts.take(self.rejected)

    def take(self, rows: Tensor) -> Pairs:
        """Return the comparisons at `rows` (numbers or a mask); users and texts keep their rows."""
        return Pairs(self.users, self.texts, self.user[rows], self.chosen[rows], self.rejected[rows], self.weight[rows])

    def compact(self) -> tuple[Pairs, Tensor]:
        """Return the same comparisons with only the users that occur, and the former row of each user [U]."""
        present, user = self.user.unique(return_inverse=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        rows = present.tolist()
        users = UserTable([self.users.ids[row] for row in rows], [self.users.groups[row] for row in rows])
        return Pairs(users, self.texts, user, self.chosen, self.rejected, self.weight), present

    def mean(self, losses: Tensor) -> Tensor:
        """Return the weighted mean [] of one loss for each comparison [N]."""
        return (losses * self.weight).sum() / self.weight.sum().clamp_min(1e-12)

    def per_user(self, values: Tensor) -> Tensor:
        """Return the sum over each user's comparisons [U, ...] of `values` [N, ...], without weights."""
        sums = values.new_zeros(len(self.users), *values.shape[1:])
        return sums.index_add(0, self.user, values)

    def by_user(self) -> tuple[Tensor, Tensor]:
        """Return the comparisons of each user [U, L], padded with 0, and which of them are real [U, L]."""
        counts = torch.bincount(self.user, minlength=len(self.users))
        order = torch.argsort(self.user, stable=True)
        first = counts.cumsum(0) - counts
        width = int(counts.max()) if len(counts) else 0
        rows = torch.zeros(len(counts), width, dtype=torch.int64)
        mask = torch.arange(width) < counts[:, None]
        rows[self.user[order], torch.arange(len(order)) - first[self.user[order]]] = order
        return rows, mask
