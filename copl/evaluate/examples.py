"""What a model tells apart, to be read: two texts that two users judged the other way round, both as the model says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen

from copl.records import PreferenceData

if TYPE_CHECKING:
    from copl.records import FloatArray

_SPLITS = ("heldout", "cold", "test")
_LONGEST = 600


@final
@frozen
class Example:
    """Two users who want different texts, which the model knew.

    Attributes:
        prompt: what was asked; chat messages in one text.
        first: a user, and what the model puts first for that user.
        second: another user, and what it puts first for that one.
        split: the split that both comparisons are of.
    """

    prompt: str
    first: tuple[str, str]
    second: tuple[str, str]
    split: str


def examples(margins: Mapping[str, FloatArray], data: PreferenceData, *, count: int = 2) -> list[Example]:
    """Return a few examples, those the model is surest of, each on another prompt; newcomers come first.

    Args:
        margins: by split, the margin of each comparison.
        data: the data set they are of.
        count: how many at most.
    """
    chosen: list[Example] = []
    prompts: set[str] = set()
    for split in _SPLITS:
        if split not in margins:
            continue
        said, values = data.split(split), margins[split]
        rows = said.comparisons
        sure: dict[tuple[int, int], tuple[float, int]] = {}
        for place in np.flatnonzero((values > 0) & said.told_apart).tolist():
            ends = int(rows.chosen[place]), int(rows.rejected[place])
            sure[ends] = max(sure.get(ends, (0.0, -1)), (float(values[place]), place))
        both = [(min(sure[a, b][0], sure[b, a][0]), a, b) for a, b in sure if a < b and (b, a) in sure]
        for _, a, b in sorted(both, reverse=True):
            prompt, texts = data.responses.prompts[a], data.responses.texts
            if len(chosen) < count and prompt not in prompts and len(texts[a]) + len(texts[b]) < 2 * _LONGEST:
                one, other = (data.users.ids[int(rows.user[sure[ends][1]])] for ends in ((a, b), (b, a)))
                chosen.append(Example(prompt, (one, texts[a]), (other, texts[b]), split))
                prompts.add(prompt)
    return chosen
