"""A head fitted to texts as they are read: a convex problem (but for the MLP) that is solved in seconds.

How strongly to penalise is chosen on comparisons that were not fitted. For the part all users share these are of texts
held out for the purpose; comparisons of known texts would let the head learn each text by heart. For the personal part
they are those and the validation split, both counting the same: user embeddings come from a graph that knows all
training comparisons, of held-out texts too, but not the validation split, whose texts are mostly known.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor, nn

from copl.bradley_terry import bradley_terry_loss
from copl.records import Comparisons
from copl.reward.heads import Head
from copl.reward.training.divisions import Division, drawn

HeadWeights: TypeAlias = tuple[Tensor, ...]
"""The parameters of a head, in the order of ``head.parameters()``, on the processor."""

_PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
_MAX_COMPARISONS = 60_000


@final
@frozen(eq=False)
class FittedHead:
    """A head fitted with penalties that were chosen.

    Attributes:
        shared: its weights when nothing but the part that all users share had been fitted.
        whole: its weights, all fitted.
        shared_penalty: L2 penalty of the part all users share.
        personal_penalty: L2 penalty of the part that depends on the user; 0 where there is none.
        new_text_loss: Bradley-Terry loss on texts held out from it.
        new_text_accuracy: accuracy on them.
    """

    shared: HeadWeights
    whole: HeadWeights
    shared_penalty: float
    personal_penalty: float
    new_text_loss: float
    new_text_accuracy: float

    def facts(self) -> dict[str, float]:
        """Return what there is to say of it."""
        names = ("shared_penalty", "personal_penalty", "new_text_loss", "new_text_accuracy")
        return {name: getattr(self, name) for name in names}


@final
class HeadFit:
    """Fits a head by L2-penalised Bradley-Terry likelihood, minimised with L-BFGS, on the processor.

    Args:
        head: where a fit starts from; left as it is.
        features: scaled features of the texts [R, H].
        users: what the head is told of the users [U, K].
        seed: of the subset drawn when there are more comparisons than needed.
    """

    def __init__(self, head: Head, features: Tensor, users: Tensor, seed: int) -> None:
        self._head = copy.deepcopy(head).cpu().requires_grad_(True)
        self._features, self._users = features.cpu(), users.cpu()
        self._seed = seed

    def choose(self, divisions: Sequence[Division], validation: Comparisons) -> FittedHead:
        """Choose the penalties and fit the head to what the first division leaves to fit.

        The shared penalty is chosen on the held-out texts of all divisions, with the personal part at its start; then
        the personal one, all parameters free, on those and on `validation`, both counting the same. Both go from strong
        to weak and stop when the loss rises.
        """
        parts = [(self._pairs(one.fitted), [self._pairs(one.new_text)]) for one in divisions]
        known = [self._pairs(validation)] if len(validation) else []
        starts = [head_weights(self._head)] * len(parts)
        shared, fits = self._search([self._head.weight], lambda penalty: (penalty, 0.0), parts, starts)
        shared_only, personal = fits[0], 0.0
        if self._head.personal_parameters():
            judged = [(fitted, new_text + known) for fitted, new_text in parts]
            personal, fits = self._search(
                list(self._head.parameters()), lambda penalty: (shared, penalty), judged, fits
            )
        set_head_weights(self._head, fits[0])
        with torch.no_grad():
            loss, margins = self._loss(parts[0][1][0])
        accuracy = float((torch.sign(margins) * 0.5 + 0.5).mean())
        return FittedHead(shared_only, fits[0], shared, personal, float(loss), accuracy)

    def whole(self, chosen: FittedHead, train: Comparisons) -> HeadWeights:
        """Return the weights fitted to all of `train`, from those of `chosen` on and with its penalties."""
        set_head_weights(self._head, chosen.whole)
        pairs = self._pairs(train)
        self._minimise(list(self._head.parameters()), pairs, chosen.shared_penalty, chosen.personal_penalty)
        return head_weights(self._head)

    def _pairs(self, comparisons: Comparisons) -> _Pairs:
        return _Pairs.of(drawn(comparisons, _MAX_COMPARISONS, self._seed))

    def _loss(self, pairs: _Pairs) -> tuple[Tensor, Tensor]:
        codes, users = self._head.encode(self._features), self._users[pairs.users]
        # Not codes[rows]: with several threads the gradient of indexing adds up in no fixed order.
        chosen, rejected = F.embedding(pairs.chosen, codes), F.embedding(pairs.rejected, codes)
        margins = self._head.combine(chosen, users) - self._head.combine(rejected, users)
        return bradley_terry_loss(margins, pairs.weight), margins

    def _search(
        self,
        free: Sequence[nn.Parameter],
        penalties: Callable[[float], tuple[float, float]],
        divisions: Sequence[tuple[_Pairs, Sequence[_Pairs]]],
        starts: Sequence[HeadWeights],
    ) -> tuple[float, list[HeadWeights]]:
        """Return the penalty of the lowest mean loss, and the head fitted with it on each division."""
        fits = list(starts)
        best, lowest, kept = _PENALTIES[0], float("inf"), fits
        for penalty in _PENALTIES:
            total = 0.0
            for number, (fitted, judges) in enumerate(divisions):
                set_head_weights(self._head, fits[number])
                self._minimise(free, fitted, *penalties(penalty))
                fits[number] = head_weights(self._head)
                with torch.no_grad():
                    total += sum(float(self._loss(judge)[0]) for judge in judges) / len(judges)
            if not total < lowest:
                break
            best, lowest, kept = penalty, total, list(fits)
        return best, kept

    def _minimise(self, free: Sequence[nn.Parameter], pairs: _Pairs, shared: float, personal: float) -> None:
        """Minimise the penalised loss over the parameters in `free`."""
        own = self._head.personal_parameters()
        minimiser: Any = torch.optim.LBFGS(  # torch leaves its step untyped
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
            torch.autograd.backward(value)
            return value

        minimiser.step(closure)
        self._head.zero_grad()


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


def head_weights(head: Head) -> HeadWeights:
    """Return copies of a head's weights."""
    return tuple(parameter.detach().to("cpu", copy=True) for parameter in head.parameters())


@torch.no_grad()
def set_head_weights(head: Head, weights: HeadWeights) -> None:
    """Give a head, wherever it is, other weights."""
    for parameter, value in zip(head.parameters(), weights, strict=True):
        parameter.copy_(value)


@torch.no_grad()
def add_head_weights(head: Head, fitted: HeadWeights, less: HeadWeights) -> None:
    """Add the difference of two fits to a head."""
    for parameter, value, base in zip(head.parameters(), fitted, less, strict=True):
        parameter.add_((value - base).to(parameter.device))
