"""What a metric may know about a split beside the margins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
from attrs import frozen

from copl.records import PreferenceData


@final
@frozen(eq=False)
class SplitContext:
    """The context of one split; an `copl.interfaces.EvaluationContext`.

    Attributes:
        split: name of the split the margins belong to.
        num_comparisons: by user id, the comparisons the user has given to the model.
        seed: seed of the resampling behind the intervals.
    """

    split: str
    num_comparisons: Mapping[str, int]
    seed: int = 0

    @classmethod
    def of(cls, data: PreferenceData, split: str, *, seed: int = 0) -> SplitContext:
        """Return the context of a split of `data`: unseen users gave their support, all others what was trained on."""
        given = data.split("support" if split == "heldout" else "train").comparisons.user
        counts = np.bincount(given, minlength=len(data.users)).tolist()
        return cls(split, dict(zip(data.users.ids, counts, strict=True)), seed)
