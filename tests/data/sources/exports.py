"""What the tests of logs and exports have in common: files written here, made into data sets, and what these say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from copl.data.making.notes import omissions
from copl.errors import DataError
from copl.plugins import load
from copl.records import PreferenceData
from copl.records.judgements import KINDS

ALL = {"unseen_fraction": 0.0, "cold_fraction": 0.0, "test_fraction": 0.0, "validation_fraction": 0.0}


def written(path: Path, entries: Sequence[Any], *, lines: bool = False) -> Path:
    text = "".join(json.dumps(entry) + "\n" for entry in entries) if lines else json.dumps(list(entries))
    path.write_text(text, encoding="utf-8")
    return path


def made(source: str, path: Path, **options: Any) -> PreferenceData:
    data: PreferenceData = load().registry("source").create(source, {"path": path, **ALL, **options}).load(seed=0)
    return data


def faults(source: str, path: Path, **options: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        made(source, path, **options)
    return [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]


def said(data: PreferenceData) -> set[tuple[Any, ...]]:
    """Everything to learn from: user, kind, texts, and weight or value."""
    texts, ids = data.responses.texts, data.users.ids
    heard: set[tuple[Any, ...]] = set()
    part = data.splits.get("train")
    if part is not None:
        for row in range(len(part)):
            ends = texts[part.chosen[row]], texts[part.rejected[row]]
            heard.add((ids[part.user[row]], "choice", *ends, round(float(part.weight[row]), 3)))
    judged = data.judgements.get("train")
    for row in range(len(judged) if judged is not None else 0):
        assert judged is not None
        kind = list(KINDS)[judged.kind[row]]
        ends = tuple(sorted(texts[end] for end in (judged.response[row], judged.other[row]) if end >= 0))
        heard.add((ids[judged.user[row]], kind, *ends, float(judged.value[row])))
    return heard


def notes(data: PreferenceData) -> list[str]:
    """What the data set notes, and what was left out."""
    return [*data.provenance["notes"], *map(str, omissions(data.provenance))]
