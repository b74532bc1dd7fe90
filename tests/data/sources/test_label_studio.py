"""Source ``label-studio``: annotations of its shapes, in old and new exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.data.sources.exports import faults, made, notes, said, written


def task(*annotations: Any, key: str = "annotations", **data: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"prompt": "Why?", "answer1": "Because.", "answer2": "No idea.", **data}, key: annotations}


def annotation(selected: Any, by: Any = 7, **more: Any) -> dict[str, Any]:
    result = [{"type": "pairwise", "from_name": "pw", "to_name": "a,b", "value": {"selected": selected}}]
    time = "2026-01-31T10:00:00.123456Z"
    return {"id": 3, "completed_by": by, "result": result, "was_cancelled": False, "created_at": time, **more}


def test_annotations_are_comparisons_in_old_and_new_exports(tmp_path: Path) -> None:
    note = {"type": "textarea", "from_name": "why", "value": {"text": ["clear"]}}
    entries = [
        task(annotation("left"), annotation("right", {"id": 2, "email": "ben@example.org"})),
        task(annotation("left", 8), key="completions", prompt=[{"role": "user", "content": "How?"}]),
        task(annotation("left", was_cancelled=True), annotation("left", result=[note]), prompt="When?"),
        {"prompt": "Who?", "answer1": "Me.", "answer2": "You.", "pairwise": "right", "annotator": 9},
    ]
    data = made("label-studio", written(tmp_path / "t.json", entries))
    assert said(data) == {
        ("7", "choice", "Because.", "No idea.", 1.0),
        ("ben@example.org", "choice", "No idea.", "Because.", 1.0),
        ("8", "choice", "Because.", "No idea.", 1.0),
        ("9", "choice", "You.", "Me.", 1.0),
    }
    assert notes(data) == [
        "Some users are named by a number and some by text, such as '7' and 'ben@example.org'; one may be taken for "
        "two.",
        "1 rows were left out: skipped by the annotator.",
        "1 rows were left out: annotations without a pairwise answer.",
    ]
    assert np.isfinite(data.splits["train"].time).sum() == 3


def test_malformed_tasks_are_a_line_each(tmp_path: Path) -> None:
    entries = [task(annotation("up")), task(annotation("left", None)), task(annotation("left"), answer1=None), task(5)]
    assert faults("label-studio", written(tmp_path / "t.json", entries)) == [
        "entry 1: selected: expected left or right, got 'up'",
        "entry 2: completed_by: missing",
        "entry 3: data.answer1: missing",
        "entry 4: annotations: expected objects, got 5",
    ]


def test_answers_of_the_short_form_under_whatever_name(tmp_path: Path) -> None:
    def short(prompt: str, by: Any = 9, **answer: Any) -> dict[str, Any]:
        return {"id": 1, "prompt": prompt, "answer1": "Me.", "answer2": "You.", "annotator": by, **answer}

    entries = [
        short("1", pw=[{"selected": "left"}]),
        short("2", better={"selected": "right"}),
        short("3", better=[{"selected": "right"}], topics=["left", {"choices": ["right"]}]),
        short("4", pairwise=""),
        short("5"),
        {"id": 2, "data": {"prompt": "6", "answer1": "Me.", "answer2": "You."}},
    ]
    data = made("label-studio", written(tmp_path / "t.json", entries))
    assert said(data) == {("9", "choice", "Me.", "You.", 1.0), ("9", "choice", "You.", "Me.", 1.0)}
    assert len(data.splits["train"]) == 3
    assert notes(data) == [
        "2 rows were left out: annotations without a pairwise answer.",
        "1 rows were left out: tasks without an annotation.",
    ]
    assert len(made("label-studio", tmp_path / "t.json", question="pw").splits["train"]) == 1
    odd = [short("1", by, pw="left") for by in (5.5, [1], {"first_name": "Ann"})]
    assert faults("label-studio", written(tmp_path / "t.json", odd)) == [
        f"entry {n}: completed_by: expected the number or email of who annotated, got {given}"
        for n, given in ((1, "5.5"), (2, "[1]"), (3, "{'first_name': 'Ann'}"))
    ]


def test_of_several_controls_one_is_named(tmp_path: Path) -> None:
    def chosen(control: str, side: str) -> dict[str, Any]:
        return {"type": "pairwise", "from_name": control, "value": {"selected": side}}

    both = [chosen("helpful", "left"), chosen("safe", "right")]
    short = {"prompt": "Who?", "answer1": "Me.", "answer2": "You.", "annotator": 9,
             "helpful": [{"selected": "right"}], "safe": {"selected": "left"}}  # fmt: skip
    path = written(tmp_path / "t.json", [task(annotation("left", result=both)), short])
    assert faults("label-studio", path) == [
        f"entry {n}: answers to helpful and safe; choose one with question=" for n in (1, 2)
    ]
    assert said(made("label-studio", path, question="safe")) == {
        ("7", "choice", "No idea.", "Because.", 1.0),
        ("9", "choice", "Me.", "You.", 1.0),
    }
    assert faults("label-studio", path, question="save") == [
        "nobody answered a pairwise control 'save' (did you mean 'safe'?); there are answers to helpful, safe"
    ]
