"""The head fitted once more, on what trained adapters make of the texts.

Adapters under a head that already reads the user from frozen features have little left to learn. So they train under
the part of the head that all users share, where all that is personal has to come through the experts; what is personal
beyond that is fitted here. The frozen model stays the alternative: whichever has the lower loss on comparisons that
neither was fitted to is kept (decision 20).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import evolve, frozen
from torch import nn

from copl.records import Comparisons
from copl.reward.scoring import readings
from copl.reward.training.setting import Setting
from copl.reward.training.warm_start import FittedHead, HeadFit, TrainingParts, drawn, hold_out_texts
from copl.system.progress import SilentProgress

if TYPE_CHECKING:
    from copl.records import IntArray

_MAX_COMPARISONS = 10_000  # of a gate that learns, every user has texts read for itself alone


@final
@frozen(eq=False)
class HeadChoice:
    """A head's penalties, with what it takes to fit it once more.

    Attributes:
        fit: fits the head.
        found: the penalties, and how good they are.
        train: all comparisons to learn from, as `fit` numbers texts.
    """

    fit: HeadFit
    found: FittedHead
    train: Comparisons

    def complete(self) -> None:
        """Add to the head what comparisons held out from choosing would have changed."""
        self.fit.complete(self.found, self.train)


@contextmanager
def held_fixed(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Leave some parameters out of training."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def refit_head(setting: Setting, seed: int) -> HeadChoice:
    """Fit the head on the texts as trained adapters read them, penalties chosen anew, and leave it fitted.

    Args:
        setting: the model with trained adapters, its head as trained with them.
        seed: the one that texts were held out with when adapters trained.
    """
    model, material = setting.model, setting.material
    device = model.device
    train = drawn(material.train, _MAX_COMPARISONS, np.random.default_rng(seed))
    # Other texts than these the adapters have learnt from.
    parts = hold_out_texts(train, material.groups, seed)
    validation = drawn(material.validation, _MAX_COMPARISONS, np.random.default_rng(seed))
    whole = (parts.fitted, parts.new_text, validation, train)
    every = Comparisons.concat(whole)
    features, reading = readings(
        model,
        setting.encoded,
        setting.users[torch.from_numpy(np.tile(every.user, 2))],
        np.concatenate([every.chosen, every.rejected]),
        lambda values: values.float().cpu(),
        progress=SilentProgress(),
        kept=setting.kept,
    )
    fitted, new_text, validation, train = _divided(every, reading, [len(part) for part in whole])
    model.head.to("cpu")
    fit = HeadFit(model.head, features, model.tell(setting.users).cpu(), seed)
    found = fit.choose([TrainingParts(fitted, new_text)], validation)
    model.head.to(device)
    return HeadChoice(fit, found, train)


def _divided(every: Comparisons, reading: IntArray, counts: list[int]) -> list[Comparisons]:
    """Return the comparisons in parts of so many, each about readings instead of texts."""
    chosen, rejected = reading.reshape(2, -1)
    numbered = evolve(every, chosen=chosen, rejected=rejected)
    rows = np.split(np.arange(len(every)), np.cumsum(counts)[:-1])
    return [numbered.take(part) for part in rows]
