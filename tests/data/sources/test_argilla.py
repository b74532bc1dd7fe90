"""Source ``argilla``: rankings, ratings and labels of its shapes, in old and new exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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


def test_equal_texts_under_two_names_are_one(tmp_path: Path) -> None:
    fields = {"prompt": "Why?", "r1": "Because.", "r2": "No idea.", "r3": " Because.", "r4": "Ask again."}
    records = [
        {**fields, **answers("q", ("ann", ["r1", "r3", "r2"], "submitted"))},
        {**fields, **answers("q", ("ben", ["r1", "r2", "r3", "r4"], "submitted"))},
        {**fields, **answers("q", ("cleo", "r2", "submitted"))},
    ]
    data = made("argilla", written(tmp_path / "r.json", records), question="q", responses=["r1", "r2", "r3"])
    weight = 0.778
    assert said(data) == {
        ("ann", "choice", "Because.", "No idea.", 1.0),
        ("ben", "choice", "Because.", "Ask again.", weight),
        ("ben", "choice", "No idea.", "Ask again.", weight),
        ("cleo", "choice", "No idea.", "Because.", 1.0),
    }
    assert notes(data) == [
        "3 rows were left out: between equal texts.",
        "1 rows were left out: between texts of which one was ranked twice, above the other and not.",
    ]


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


def test_lists_that_the_hub_keeps_as_columns(tmp_path: Path) -> None:
    ranked = [{"user_id": "ann", "value": {"rank": [2, 1], "value": ["r1", "r2"]}, "status": "submitted"}]
    labels = {"user_id": ["ann", "ben"], "value": ["r1", "r2"], "status": ["submitted", "draft"]}
    pq.write_table(pa.Table.from_pylist([{**FIELDS, "q": ranked, "label": labels}]), tmp_path / "r.parquet")
    assert said(made("argilla", tmp_path / "r.parquet", question="q")) == {
        ("ann", "choice", "No idea.", "Because.", 1.0)
    }
    labelled = made("argilla", tmp_path / "r.parquet", question="label", responses=["r1", "r2"])
    assert said(labelled) == {("ann", "choice", "Because.", "No idea.", 1.0)}
    assert notes(labelled) == ["1 rows were left out: answers that are draft, not submitted."]
    assert faults("argilla", tmp_path / "r.parquet", question="p") == ["no question 'p'; there are label, q"]


def test_an_answer_was_given_at_its_own_time(tmp_path: Path) -> None:
    def record(prompt: str, answer: dict[str, str], **times: str) -> dict[str, Any]:
        given = {"user_id": "ann", "status": "submitted", "values": {"q": {"value": ["r1", "r2"]}}, **answer}
        return {"fields": {**FIELDS, "prompt": prompt}, "responses": [given], **times}

    inserted = {"inserted_at": "2024-01-01T00:00:00.123456"}
    entries = [
        record("1", {"updated_at": "2024-05-01T00:00:00.5", **inserted}, updated_at="2024-09-01T00:00:00"),
        record("2", {}, updated_at="2024-09-01T02:00:00+02:00", **inserted),
        record("3", {}, **inserted),  # of the record, before anybody answered
    ]
    data = made("argilla", written(tmp_path / "r.json", entries), question="q")
    may, september = 1_714_521_600.5, 1_725_148_800.0
    assert np.array_equal(data.splits["train"].time, [may, september, np.nan], equal_nan=True)


def test_fields_of_a_label_are_there(tmp_path: Path) -> None:
    record = {"fields": FIELDS, **answers("q", ("ann", "both", "submitted"))}
    path = written(tmp_path / "r.json", [record])
    assert faults("argilla", path, question="q", responses=["r1", "r7"]) == [
        "entry 1: q: a label of field 'r7', which is not there; there are prompt, r1, r2, r3"
    ]
    assert faults("argilla", path, question="q", responses=["r1", "r2"]) == [
        "entry 1: q: expected one of r1, r2, tie, both_bad, got 'both'"
    ]


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
