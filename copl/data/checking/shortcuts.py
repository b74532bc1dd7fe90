"""Rules that predict a label without reading: the longer response, the one shown first, the one stored first."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, final

import attrs
import numpy as np

from copl.records import PreferenceData

if TYPE_CHECKING:
    from copl.records import IntArray

_TELLING = 0.6
"""Accuracy of a trivial rule from which on it is worth a warning."""


@final
@attrs.frozen
class Rule:
    """How often a trivial rule is right.

    Attributes:
        rule: the response it picks, such as "the longer response".
        accuracy: how often that one was chosen, over all comparisons where the rule can tell.
        count: number of these comparisons.
        splits: the same accuracy by split.
    """

    rule: str
    accuracy: float
    count: int
    splits: Mapping[str, float]

    @property
    def is_telling(self) -> bool:
        """Whether the rule is right often, and more often than chance explains."""
        # Four standard errors: few comparisons must not raise an alarm by chance.
        return self.accuracy >= _TELLING and self.accuracy - 0.5 > 2 / np.sqrt(self.count)


def trivial_rules(data: PreferenceData) -> list[Rule]:
    """Return the rules that can tell anything on a data set, each in the direction in which it is right more often."""
    length = np.array([len(text) for text in data.responses.texts], dtype=np.int64)
    rules = [
        _rule(data, length, ("the longer response", "the shorter response")),
        _rule(data, -np.arange(len(length)), ("the response stored first", "the response stored last")),
        _shown(data),
    ]
    return [rule for rule in rules if rule is not None]


def _rule(data: PreferenceData, score: IntArray, names: tuple[str, str]) -> Rule | None:
    """Return the rule to pick the response of higher, or of lower, score."""
    right: dict[str, tuple[int, int]] = {}
    for name in data.present():
        part = data.splits[name]
        higher = score[part.chosen] - score[part.rejected]
        if np.any(higher):
            right[name] = int((higher > 0).sum()), int((higher != 0).sum())
    wins, count = (sum(column) for column in zip(*right.values(), strict=True)) if right else (0, 0)
    if not count:
        return None
    upward = 2 * wins >= count
    splits = {name: (w if upward else n - w) / n for name, (w, n) in right.items()}
    return Rule(names[0] if upward else names[1], max(wins, count - wins) / count, count, splits)


def _shown(data: PreferenceData) -> Rule | None:
    """Return the rule to pick the response shown first, or second, where the source has counted that."""
    counted = data.provenance.get("positions")
    if not counted or not counted["judgements"]:
        return None
    share = counted["first"] / counted["judgements"]
    name = "the response shown first" if share >= 0.5 else "the response shown second"
    return Rule(name, max(share, 1 - share), counted["judgements"], {})


def list_shape(text: str) -> Literal["messages", "texts"] | None:
    """Return what a text is a list of, where it is one that somebody has turned into text instead of taking it apart.

    >>> list_shape("[{'role': 'assistant', 'content': 'Hello'}]")
    'messages'
    >>> list_shape("[1] is a reference")
    """
    text = text.strip()
    if not (text.startswith(("[{", "['", '["')) and text.endswith("]")):
        return None
    value = _parsed(text)
    if isinstance(value, list) and value:
        if all(isinstance(entry, dict) and "content" in entry for entry in value):
            return "messages"
        if all(isinstance(entry, str) for entry in value):
            return "texts"
    return None


def _parsed(text: str) -> object:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None
