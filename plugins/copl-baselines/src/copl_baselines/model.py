"""What a method here implements: a reward of frozen features that depends on the user through a state vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from attrs import field, frozen
from torch import Tensor, nn

from copl.records import UserTable
from copl.system.optimizers import eager
from copl_baselines.pairs import Pairs, Texts


@final
@frozen(eq=False)
class Shape:
    """What the size of a model depends on, beside its options.

    Attributes:
        hidden_size: size H of a feature vector.
        users: the seen users, in the order of their states.
    """

    hidden_size: int
    users: UserTable


@final
@frozen(eq=False)
class Step:
    """One step of training.

    Attributes:
        train: all training comparisons, of which the batch is a part.
        done: share of the steps already made, from 0 to 1.
        generator: where every random number of training comes from.
    """

    train: Pairs
    done: float
    generator: torch.Generator


@final
@frozen(eq=False)
class Placed:
    """States of newcomers.

    Attributes:
        states: one for each user of the support [N, D].
        how: by which rule they were found, of all or of each [N].
        confidence: 0 (nothing known) to 1, where the method has a measure of it [N].
    """

    states: Tensor
    how: str | tuple[str, ...]
    confidence: Tensor = field()

    @confidence.default
    def _none(self) -> Tensor:
        return torch.zeros(len(self.states))


class FeatureReward(nn.Module, ABC):
    """A reward model on frozen features.

    A user is known by a state [D]: a trained embedding, an encoding of what the user said, weights of a mixture.
    `copl_baselines.method.FeatureMethod` makes a whole method of one: features, training, files, scoring.

    Args:
        options: the method's options.
        shape: sizes.
    """

    needs_prompts: ClassVar[bool] = False
    """Whether `Texts.prompts` is filled."""
    knows_groups: ClassVar[bool] = False
    """Whether the true groups of users are used: for oracles only."""
    batches_users: ClassVar[bool] = False
    """Whether a training batch holds all comparisons of some users rather than some comparisons of any."""

    @abstractmethod
    def __init__(self, options: Any, shape: Shape) -> None:
        super().__init__()

    def start(self, train: Pairs) -> None:
        """Set initial values from the training comparisons; called once before training, does nothing by default."""
        return

    @abstractmethod
    def loss(self, batch: Pairs, step: Step) -> Tensor:
        """Return the training loss [] of a batch; rows of users are those of the seen users."""

    @abstractmethod
    def encode(self, texts: Texts) -> Tensor:
        """Return codes [S, C] of texts, all that does not depend on the user: computed once for each distinct text."""

    @abstractmethod
    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        """Return the rewards [S] of texts with codes [S, C] for the S user states `users` [S, D]."""

    @abstractmethod
    def seen_states(self, train: Pairs) -> Tensor:
        """Return the states [U, D] of the seen users, D = 0 where the method takes no notice of users."""

    @abstractmethod
    def place(self, support: Pairs) -> Placed:
        """Return the states of newcomers from their comparisons; nothing of the model is changed.

        Called without gradients; `fit_states` turns them on for itself.
        """

    def stranger(self, seen: Tensor) -> Tensor:
        """Return the state [D] of a user without comparisons: the mean of the `seen` states [U, D]."""
        return seen.mean(0) if len(seen) else seen.new_zeros(seen.shape[1])

    def parameter_groups(self) -> list[dict[str, object]]:
        """Return the parameters as the optimiser takes them; a group may have a weight decay of its own."""
        return [{"params": list(self.parameters())}]

    def margins(self, pairs: Pairs, states: Tensor) -> Tensor:
        """Return the margins [N] of comparisons; `states` [U, D] are those of ``pairs.users``."""
        users = F.embedding(pairs.user, states)
        chosen, rejected = self.codes(pairs)
        return self.combine(chosen, users) - self.combine(rejected, users)

    def codes(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Return the codes [N, C] of the chosen and of the rejected texts."""
        both = torch.cat([pairs.chosen, pairs.rejected])
        used, place = both.unique(return_inverse=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        codes = self.encode(pairs.texts.take(used))
        chosen, rejected = place.view(2, -1)
        return F.embedding(chosen, codes), F.embedding(rejected, codes)

    def notes(self) -> Mapping[str, float]:
        """Return what is worth a line in the run's log after training."""
        return {}


def bradley_terry(margins: Tensor) -> Tensor:
    """Return the loss of each comparison [N], -log sigmoid(margin) (Bradley and Terry 1952)."""
    return F.softplus(-margins)


def fit_states(
    states: Tensor,
    loss: Any,
    *,
    learning_rate: float,
    num_steps: int,
    weight_decay: float = 0.0,
) -> Tensor:
    """Return the states that minimise ``loss(states)`` [] after `num_steps` steps of AdamW; nothing else is changed.

    Args:
        states: where to start [N, D].
        loss: a sum over newcomers, so that no newcomer's result depends on the others.
        learning_rate: of AdamW.
        num_steps: steps.
        weight_decay: of AdamW.
    """
    free = nn.Parameter(states.detach().clone())
    optimizer = eager(torch.optim.AdamW)([free], lr=learning_rate, weight_decay=weight_decay)
    with torch.enable_grad():
        for _ in range(num_steps):
            optimizer.zero_grad()
            (gradient,) = torch.autograd.grad(loss(free), [free])
            free.grad = gradient
            optimizer.step()
    return free.detach()
