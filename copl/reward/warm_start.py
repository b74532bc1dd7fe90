"""The head fitted on frozen features: a convex problem (but for the MLP) solved in seconds before any adapter trains.

How strongly to penalise is chosen by two judges at once: comparisons of texts that were fitted on, and comparisons of
texts held out for the purpose. The first alone would let the head learn each text by heart.
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
    from copl.records import BoolArray, IntArray

_PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
_MAX_COMPARISONS = 60_000
_HELD_OUT_TEXTS = 0.2
_ENOUGH = 200


@final
@frozen(eq=False)
class FittedHead:
    """What the warm start found.

    Attributes:
        shared_penalty: L2 penalty of the part all users share.
        personal_penalty: L2 penalty of the part that depends on the user; 0 where there is none.
        seen_text_loss: Bradley-Terry loss on comparisons of texts that were fitted on; NaN-free, 0 where unknown.
        new_text_loss: that on texts held out from the fit.
        new_text_accuracy: accuracy on them.
    """

    shared_penalty: float
    personal_penalty: float
    seen_text_loss: float
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
@frozen(eq=False)
class _Verdict:
    """How the two judges like a fit."""

    seen: float
    new: float
    new_accuracy: float

    @property
    def value(self) -> float:
        return self.seen + self.new


def fit_head(
    head: Head,
    features: Tensor,
    users: Tensor,
    train: Comparisons,
    validation: Comparisons,
    *,
    groups: IntArray,
    seed: int,
) -> FittedHead:
    """Fit `head` in place by L2-penalised Bradley-Terry likelihood, minimised with L-BFGS.

    The penalty of the shared part is chosen first, with the personal part held at its start; then the personal one,
    all parameters free. Both go from strong to weak and stop when the judges' losses rise. A last fit with the chosen
    penalties takes all comparisons.

    Args:
        head: the head, at its initial values.
        features: scaled features of the responses [R, H].
        users: conditioned users [U, D].
        train: comparisons to fit; rows as in `features` and `users`.
        validation: further comparisons of the same users, as a judge.
        groups: the prompt of each response [R]; whole prompts are held out, single responses where all share one.
        seed: of the texts held out, and of the subset drawn when there are more comparisons than needed.
    """
    rng = np.random.default_rng(seed)
    if len(train) > _MAX_COMPARISONS:
        train = train.take(np.sort(rng.permutation(len(train))[:_MAX_COMPARISONS]))
    held_out = _held_out(groups, rng)
    fitted_on, judged_on = _divide(train, held_out)
    seen_by = validation.take(~_touches(validation, held_out))
    if len(seen_by) == 0:
        seen_by = validation if len(validation) else judged_on
    everything, part = _Pairs.of(train), _Pairs.of(fitted_on)
    judges = _Pairs.of(seen_by), _Pairs.of(judged_on)

    def loss(pairs: _Pairs) -> tuple[Tensor, Tensor]:
        codes = head.encode(features)
        z = users[pairs.users]
        margins = head.combine(codes[pairs.chosen], z) - head.combine(codes[pairs.rejected], z)
        return (F.softplus(-margins) * pairs.weight).sum() / pairs.weight.sum().clamp_min(1e-12), margins

    @torch.no_grad()
    def judge() -> _Verdict:
        seen, (new, margins) = loss(judges[0])[0], loss(judges[1])
        accuracy = float((torch.sign(margins) * 0.5 + 0.5).mean())
        return _Verdict(float(seen), float(new), accuracy)

    def search(
        free: Sequence[nn.Parameter], penalties: Callable[[float], tuple[float, float]]
    ) -> tuple[float, _Verdict]:
        best: tuple[float, _Verdict] | None = None
        kept = _copies(head)
        for penalty in _PENALTIES:
            _minimise(head, lambda: loss(part)[0], free, *penalties(penalty))
            verdict = judge()
            if best is not None and not verdict.value < best[1].value:
                break
            best, kept = (penalty, verdict), _copies(head)
        _restore(head, kept)
        assert best is not None
        return best

    shared, verdict = search([head.weight], lambda penalty: (penalty, 0.0))
    personal = 0.0
    if head.personal_parameters():
        personal, verdict = search(list(head.parameters()), lambda penalty: (shared, penalty))
    _minimise(head, lambda: loss(everything)[0], list(head.parameters()), shared, personal)
    return FittedHead(shared, personal, verdict.seen, verdict.new, verdict.new_accuracy)


def _held_out(groups: IntArray, rng: np.random.Generator) -> BoolArray:
    """Draw the responses [R] that are held out."""
    distinct = np.unique(groups)
    if len(distinct) < 10:
        groups, distinct = np.arange(len(groups)), np.arange(len(groups))
    drawn = rng.permutation(distinct)[: max(1, round(_HELD_OUT_TEXTS * len(distinct)))]
    held_out: BoolArray = np.isin(groups, drawn)
    return held_out


def _touches(pairs: Comparisons, held_out: BoolArray) -> BoolArray:
    touches: BoolArray = held_out[pairs.chosen] | held_out[pairs.rejected]
    return touches


def _divide(train: Comparisons, held_out: BoolArray) -> tuple[Comparisons, Comparisons]:
    """Return the comparisons to fit and those that judge; with few texts they may share some."""
    touched = _touches(train, held_out)
    inside = held_out[train.chosen] & held_out[train.rejected]
    judges = inside if inside.sum() >= _ENOUGH else touched
    if not judges.any() or touched.all():
        return train, train
    return train.take(~touched), train.take(judges)


def _copies(head: Head) -> list[Tensor]:
    return [p.detach().clone() for p in head.parameters()]


@torch.no_grad()
def _restore(head: Head, values: Sequence[Tensor]) -> None:
    for parameter, value in zip(head.parameters(), values, strict=True):
        parameter.copy_(value)


def _minimise(
    head: Head, data_loss: Callable[[], Tensor], free: Sequence[nn.Parameter], shared: float, personal: float
) -> None:
    """Minimise the penalised loss over the parameters in `free`."""
    own = head.personal_parameters()
    optimizer = torch.optim.LBFGS(
        free, max_iter=40, history_size=10, tolerance_grad=1e-5, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        head.zero_grad()
        value = data_loss() + 0.5 * shared * head.weight.square().sum()
        for parameter in own:
            value = value + 0.5 * personal * parameter.square().sum()
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    head.zero_grad()
