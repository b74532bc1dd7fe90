"""A small data set, and what tests do with data sets on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np

from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable
from copl.records.judgements import Judgements


def example(texts: tuple[str, str, str] = ("a", "b", "c")) -> PreferenceData:
    return PreferenceData(
        "example",
        UserTable(["u", "v"], ["g", None]),
        ResponseTable(["p"] * 3, texts),
        {"train": Comparisons([0, 1], [0, 1], [1, 2]), "test": Comparisons([0], [2], [1])},
        {"source": "test"},
    )


def assert_same(one: PreferenceData, other: PreferenceData) -> None:
    assert (one.name, one.users.ids, one.users.groups) == (other.name, other.users.ids, other.users.groups)
    assert (one.responses.prompts, one.responses.texts) == (other.responses.prompts, other.responses.texts)
    assert dict(one.provenance) == dict(other.provenance)
    assert set(one.splits) == set(other.splits)
    assert set(one.judgements) == set(other.judgements)
    pairs = [(part, other.splits[name]) for name, part in one.splits.items()]
    for part, same in [*pairs, *((part, other.judgements[name]) for name, part in one.judgements.items())]:
        assert isinstance(part, Comparisons | Judgements)
        for column in attrs.fields(type(part)):
            first, second = getattr(part, column.name), getattr(same, column.name)
            assert first.dtype == second.dtype
            assert np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def edited(key: str, value: object) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        path = directory / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), key: value}), encoding="utf-8")

    return edit
