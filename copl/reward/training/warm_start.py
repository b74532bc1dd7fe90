"""The head fitted on frozen features: a convex problem (but for the MLP) solved in seconds before any adapter trains.

How strongly to penalise is chosen on comparisons that were not fitted. For the part all users share these are of texts
held out for the purpose; comparisons of known texts would let the head learn each text by heart. For the personal part
they are those and the validation split, both counting the same: user embeddings come from a graph that knows all
training comparisons, of held-out texts too, but not the validation split, whose texts are mostly known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor, nn

from copl.records import Comparisons
from copl.reward.heads import Head

if TYPE_CHECKING:
    from copl.records import IntArray

_PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
_MAX_COMPARISONS = 60_000
_HELD_OUT_TEXTS = 0.15
_ENOUGH = 200


@final
@frozen(eq=False)
class TrainingParts:
    """Training comparisons divided for choosing: some texts are held out.

    Attributes:
        fitted: comparisons without any held-out text.
        new_text: comparisons among held-out texts, or touching them where those are few.
    """

    fitted: Comparisons
    new_text: Comparisons


@final
@frozen
class FittedHead:
    """What the warm start found.

    Attributes:
        shared_penalty: L2 penalty of the part all users share.
        personal_penalty: L2 penalty of the part that depends on the user; 0 where there is none.
        new_text_loss: Bradley-Terry loss of the chosen fit on texts held out from it.
        new_text_accuracy: accuracy on them.
    """

    shared_penalty: float
    personal_penalty: float
    new_text_loss: float
    new_text_accuracy: float


@final
@frozen(eq=False)
class _Pairs:
    users: Tensor
    chosen: Tensor
    rejected: Tensor
    weight: Tensor

    @classmethod
    def of(cls, comparisons: Comparisons) -> _Pairs:
        return cls(
            torch.from_numpy(comparisons.user),
            torch.from_numpy(comparisons.chosen),
            torch.from_numpy(comparisons.rejected),
            torch.from_numpy(comparisons.weight).float(),
        )


@final
class HeadFit:
    """Fits a head in place by L2-penalised Bradley-Terry likelihood, minimised with L-BFGS.

    Args:
        head: the head, at its initial values.
        features: scaled features of the responses [R, H].
        users: what the head is told of the users [U, K].
        seed: of the subset drawn when there are more comparisons than needed.
    """

    def __init__(self, head: Head, features: Tensor, users: Tensor, seed: int) -> None:
        self._head, self._features, self._users = head, features, users
        self._rng = np.random.default_rng(seed)
        self._shared = self._chosen = _copies(head)

    def choose(self, divisions: Sequence[TrainingParts], validation: Comparisons) -> FittedHead:
        """Choose the penalties and leave the head fitted on ``divisions[0].fitted``.

        The shared penalty is chosen on the held-out texts of all divisions, with the personal part at its start; then
        the personal one, all parameters free, on those and on `validation`, both counting the same. Both go from strong
        to weak and stop when the loss rises.
        """
        parts = [(self._pairs(one.fitted), [self._pairs(one.new_text)]) for one in divisions]
        known = [self._pairs(validation)] if len(validation) else []

        def shared_only(penalty: float) -> tuple[float, float]:
            return penalty, 0.0

        starts = [_copies(self._head)] * len(parts)
        shared, starts = self._search([self._head.weight], shared_only, parts, starts)
        self._shared, personal = starts[0], 0.0
        if self._head.personal_parameters():

            def both(penalty: float) -> tuple[float, float]:
                return shared, penalty

            judged = [(fitted, new_text + known) for fitted, new_text in parts]
            personal, starts = self._search(list(self._head.parameters()), both, judged, starts)
        self._chosen = starts[0]
        _restore(self._head, self._chosen)
        with torch.no_grad():
            loss, margins = self._loss(parts[0][1][0])
        accuracy = float((torch.sign(margins) * 0.5 + 0.5).mean())
        return FittedHead(shared, personal, float(loss), accuracy)

    def without_personal(self) -> None:
        """Leave the head as it was when `choose` had fitted nothing but the part all users share."""
        _restore(self._head, self._shared)

    def complete(self, found: FittedHead, train: Comparisons) -> None:
        """Add to the trained head what the comparisons held out from it would have changed before training.

        The head is fitted once more from where `choose` left it, on all training comparisons and with the penalties
        that were chosen; the difference is added. A head that has not been trained since becomes that fit.
        """
        trained = _copies(self._head)
        _restore(self._head, self._chosen)
        pairs = self._pairs(train)
        self._minimise(list(self._head.parameters()), pairs, found.shared_penalty, found.personal_penalty)
        _restore(self._head, [t + (f - c) for t, f, c in zip(trained, _copies(self._head), self._chosen, strict=True)])

    def _pairs(self, comparisons: Comparisons) -> _Pairs:
        return _Pairs.of(drawn(comparisons, _MAX_COMPARISONS, self._rng))

    def _loss(self, pairs: _Pairs) -> tuple[Tensor, Tensor]:
        codes, z = self._head.encode(self._features), self._users[pairs.users]
        # Not codes[rows]: with several threads the gradient of indexing adds up in no fixed order.
        chosen, rejected = F.embedding(pairs.chosen, codes), F.embedding(pairs.rejected, codes)
        margins = self._head.combine(chosen, z) - self._head.combine(rejected, z)
        return (F.softplus(-margins) * pairs.weight).sum() / pairs.weight.sum().clamp_min(1e-12), margins

    def _search(
        self,
        free: Sequence[nn.Parameter],
        penalties: Callable[[float], tuple[float, float]],
        divisions: Sequence[tuple[_Pairs, Sequence[_Pairs]]],
        starts: Sequence[list[Tensor]],
    ) -> tuple[float, list[list[Tensor]]]:
        """Return the penalty of the lowest mean loss, and the head fitted with it on each division."""
        states = list(starts)
        best, lowest, kept = _PENALTIES[0], float("inf"), states
        for penalty in _PENALTIES:
            total = 0.0
            for number, (fitted, judges) in enumerate(divisions):
                _restore(self._head, states[number])
                self._minimise(free, fitted, *penalties(penalty))
                states[number] = _copies(self._head)
                with torch.no_grad():
                    total += sum(float(self._loss(judge)[0]) for judge in judges) / len(judges)
            if not total < lowest:
                break
            best, lowest, kept = penalty, total, list(states)
        return best, kept

    def _minimise(self, free: Sequence[nn.Parameter], pairs: _Pairs, shared: float, personal: float) -> None:
        """Minimise the penalised loss over the parameters in `free`."""
        own = self._head.personal_parameters()
        optimizer = torch.optim.LBFGS(
            free,
            max_iter=30,
            history_size=10,
            tolerance_grad=1e-5,
            tolerance_change=1e-7,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            self._head.zero_grad()
            value = self._loss(pairs)[0] + 0.5 * shared * self._head.weight.square().sum()
            for parameter in own:
                value = value + 0.5 * personal * parameter.square().sum()
            value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return value

        optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._head.zero_grad()


def drawn(comparisons: Comparisons, count: int, rng: np.random.Generator) -> Comparisons:
    """Return at most `count` of the comparisons, drawn at random, in their order."""
    if len(comparisons) <= count:
        return comparisons
    return comparisons.take(np.sort(rng.permutation(len(comparisons))[:count]))


def hold_out_texts(train: Comparisons, groups: IntArray, seed: int) -> TrainingParts:
    """Hold out a part of the texts: whole prompts, or single responses where there are fewer than ten prompts.

    Args:
        train: the training comparisons.
        groups: the prompt of each response [R].
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    distinct = np.unique(groups)
    if len(distinct) < 10:
        groups, distinct = np.arange(len(groups)), np.arange(len(groups))
    drawn = rng.permutation(distinct)[: max(1, round(_HELD_OUT_TEXTS * len(distinct)))]
    held_out = np.isin(groups, drawn)
    touched = held_out[train.chosen] | held_out[train.rejected]
    inside = held_out[train.chosen] & held_out[train.rejected]
    judges = inside if inside.sum() >= _ENOUGH else touched
    if not judges.any() or touched.all():  # too few texts to hold any out
        return TrainingParts(train, train)
    return TrainingParts(train.take(~touched), train.take(judges))


def _copies(head: Head) -> list[Tensor]:
    return [p.detach().clone() for p in head.parameters()]


@torch.no_grad()
def _restore(head: Head, values: Sequence[Tensor]) -> None:
    for parameter, value in zip(head.parameters(), values, strict=True):
        parameter.copy_(value)
