"""Source ``argilla``: rankings, ratings and labels of its shapes, in old and new exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.data.sources.exports import faults, made, notes, said, written

FIELDS = {"prompt": "Why?", "r1": "Because.", "r2": "No idea.", "r3": "Ask again."}


def answers(question: str, *given: tuple[Any, Any, Any]) -> dict[str, Any]:
    users, given_values, status = zip(*given, strict=True) if given else ((), (), ())
    name = f"{question}.responses"
    return {name: list(given_values), f"{name}.users": list(users), f"{name}.status": list(status)}


def test_rankings_are_pairs_of_the_right_weight(tmp_path: Path) -> None:
    new = {**FIELDS, **answers("best", ("ann", ["r2", "r1", "r3"], "submitted"), ("ben", ["r1", "r2"], "draft"))}
    tied = [{"rank": 1, "value": "r1"}, {"rank": 1, "value": "r2"}]
    old = {**FIELDS, "prompt": "How?", "best": [{"user_id": "cleo", "value": tied, "status": "submitted"}]}
    nested = {"fields": FIELDS, "responses": {"best": [{"user_id": "dan", "value": ["r3", "r1"]}]}, "id": "x"}
    data = made("argilla", written(tmp_path / "r.json", [new, old, nested]), question="best")
    weight = 0.778
    assert said(data) == {
        ("ann", "choice", "No idea.", "Because.", weight),
        ("ann", "choice", "No idea.", "Ask again.", weight),
        ("ann", "choice", "Because.", "Ask again.", weight),
        ("cleo", "tie", "Because.", "No idea.", 0.0),
        ("dan", "choice", "Ask again.", "Because.", 1.0),
    }
    assert notes(data) == ["1 rows were left out: answers that are draft, not submitted."]


def test_ratings_and_labels_of_argilla(tmp_path: Path) -> None:
    rated = [
        {"prompt": f"p{n}", "response": f"answer {n}", **answers("q", ("ann", n % 5, "submitted"))} for n in range(6)
    ]
    data = made("argilla", written(tmp_path / "r.json", rated, lines=True), question="q")
    assert ("ann", "rating", "answer 3", 3.0) in said(data)
    labels = [
        {**FIELDS, **answers("q", ("ann", "r2", "submitted"), ("ben", "both_bad", "submitted"))},
        {**FIELDS, "prompt": "How?", **answers("q", ("ann", "tie", "submitted"))},
    ]
    data = made("argilla", written(tmp_path / "l.json", labels), question="q", responses=["r1", "r2"])
    assert said(data) == {
        ("ann", "choice", "No idea.", "Because.", 1.0),
        ("ben", "both_bad", "Because.", "No idea.", 0.0),
        ("ann", "tie", "Because.", "No idea.", 0.0),
    }


def test_malformed_records_are_a_line_each(tmp_path: Path) -> None:
    entries = [
        {**FIELDS, **answers("q", ("ann", ["r1", "r9"], "submitted"))},
        {**FIELDS, "q.responses": ["x"], "q.responses.users": []},
        {**FIELDS, "prompt": None, **answers("q", ("ann", ["r1", "r2"], "submitted"))},
        {**FIELDS, **answers("q", ("ann", ["r1", "r1"], "submitted"))},
        {**FIELDS, **answers("q", ("", ["r1", "r2"], "submitted"))},
    ]
    assert faults("argilla", written(tmp_path / "r.json", entries), question="q") == [
        "entry 1: q: a ranking of field 'r9', which is not there",
        "entry 2: q.responses.users: expected a user for each answer, got []",
        "entry 3: prompt: missing; name it with prompt=",
        "entry 4: q: a ranking names a field twice",
        "entry 5: q: an answer without its user",
    ]
    assert faults("argilla", tmp_path / "r.json", question="p") == ["no question 'p'; there are q"]


def test_answers_listed_by_user(tmp_path: Path) -> None:
    ranked = [{"rank": 1, "value": "r2"}, {"rank": 2, "value": "r1"}]
    entries = [
        {"fields": FIELDS, "responses": [
            {"user_id": "ann", "status": "submitted", "values": {"q": {"value": ranked}, "why": {"value": "clear"}}},
            {"user_id": "ben", "status": "discarded", "values": None},
        ]},
        {"fields": {**FIELDS, "prompt": "How?"}, "responses": [
            {"question_name": "q", "value": ["r1", "r3"], "user_id": "cleo", "status": "ResponseStatus.submitted"},
            {"question_name": "why", "value": "clear", "user_id": "cleo", "status": "submitted"},
        ]},
    ]  # fmt: skip
    assert said(made("argilla", written(tmp_path / "r.json", entries), question="q")) == {
        ("ann", "choice", "No idea.", "Because.", 1.0),
        ("cleo", "choice", "Because.", "Ask again.", 1.0),
    }
    assert faults("argilla", tmp_path / "r.json", question="p") == ["no question 'p'; there are q, why"]


def test_numbers_and_ids_that_are_none_are_a_line_each(tmp_path: Path) -> None:
    ranking = [{"value": "r1", "rank": 10**400}, {"value": "r2", "rank": 2}]
    entries = [
        {"prompt": "p", "response": "x", **answers("q", ("ann", 10**400, "submitted"))},
        {**FIELDS, **answers("q", ("ann", ranking, "submitted"))},
        {**FIELDS, **answers("q", (["ann"], ["r1", "r2"], "submitted"))},
        {**FIELDS, **answers("q", (5.0, ["r1", "r2"], "submitted"))},
    ]
    told = faults("argilla", written(tmp_path / "r.json", entries), question="q")
    assert [fault.split(", got")[0] for fault in told] == [
        "entry 1: q: expected a number",
        "entry 2: q: a ranking names fields",
        "entry 3: q: an answer without its user",
        "entry 4: q: an answer without its user",
    ]
