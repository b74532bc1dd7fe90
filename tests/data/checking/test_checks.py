from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from copl.data.checking.checks import check
from copl.data.checking.description import describe_data, description_rows
from copl.data.checking.findings import Finding
from copl.data.checking.shortcuts import trivial_rules
from copl.data.making.origin import finding as finding_of_source
from copl.errors import quoted
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable

Rows = Sequence[tuple[int, int, int]]


def data_set(
    texts: Sequence[str] = "abcdefgh", provenance: dict[str, Any] | None = None, **splits: Rows
) -> PreferenceData:
    """A data set of users u0 to u9 on responses to one prompt; rows are (user, chosen, rejected)."""
    return PreferenceData(
        "example",
        UserTable([f"u{n}" for n in range(10)], ["g", "g", "h", *[None] * 7]),
        ResponseTable(["p"] * len(texts), texts),
        {name: Comparisons(*map(list, zip(*rows, strict=True))) for name, rows in splits.items()},
        provenance or {},
    )


def found(data: PreferenceData, what: str) -> list[Finding]:
    return [finding for finding in check(data) if what in finding.what]


TRAIN = [(0, 0, 1), (0, 2, 3), (0, 4, 5)]


def test_a_sound_data_set_gives_no_finding() -> None:
    assert check(data_set(train=TRAIN, validation=[(0, 1, 2)], test=[(0, 6, 7)])) == []


@pytest.mark.parametrize(
    ("data", "severity", "what", "where", "count"),
    [
        (data_set(["a", " ", "c"], train=[(0, 0, 2)]), "error", "empty response", "row 1", 1),
        (data_set(["a", "a", "c"], train=[(0, 0, 2)]), "error", "the same prompt and text", "responses", 1),
        (data_set(train=[*TRAIN, (1, 3, 3)]), "error", "same response", "train, such as user 'u1'", 1),
        (data_set(train=[*TRAIN, TRAIN[1]]), "warning", "repeated", "user 'u0'", 1),
        (data_set(train=[*TRAIN, (0, 1, 0)]), "warning", "decided both ways", "user 'u0'", 2),
        (data_set(train=TRAIN, test=[(0, 1, 0)]), "error", "same pair of a user in two", "train and test", 1),
        (
            data_set(train=TRAIN, test=[(0, 0, 6)], provenance={"split": "response"}),
            "error", "a response of a user in two splits", "train and test", 1,
        ),
        (data_set(train=TRAIN, cold=[(0, 5, 6)]), "error", "cold responses outside", "cold and train", 1),
        (data_set(train=TRAIN, cold=[(0, 6, 7)], test=[(0, 6, 1)]), "warning", "cold responses", "cold and test", 1),
        (data_set(train=TRAIN, test=[(0, 0, 3)]), "info", "both of whose responses", "test", 1),
        (data_set(test=TRAIN), "error", "nothing to train on", "train", 0),
        (data_set(train=TRAIN), "warning", "no validation", "validation", 0),
        (data_set(train=TRAIN, support=[(0, 5, 6)]), "error", "both seen and unseen", "user 'u0'", 1),
        (data_set(train=TRAIN, test=[(1, 0, 1), (2, 0, 1)]), "warning", "comparison in train", "user 'u1'", 2),
        (data_set(train=TRAIN, heldout=[(1, 0, 1)]), "warning", "comparison in support", "heldout", 1),
        (data_set(train=[*TRAIN, (1, 0, 1)]), "info", "fewer than 3", "train", 1),
        (data_set(train=[(0, 0, 1), (1, 0, 1)]), "warning", "fewer than 3", "train", 2),
        (data_set(train=[(0, 0, 1), (1, 1, 2), (2, 3, 4)]), "warning", "in 2 parts", "train", 1),
        (data_set(train=TRAIN, support=[(5, 6, 7), (6, 0, 7)]), "warning", "share no response", "user 'u5'", 1),
        (data_set(train=TRAIN, provenance={"counts": {"ties": 3, "judgements": 4}}), "info", "75% of the", "source", 3),
        (data_set(train=TRAIN, provenance={"left_out": [{"count": 7, "what": "rows", "reason": "empty"}]}), "info",
         "rows left out", "source", 7),
        (data_set(["[{'role': 'assistant', 'content': 'a'}]", "b"], train=[(0, 0, 1)]), "error", "list of messages",
         "row 0", 1),
        (data_set(["a", "<think>Hm.</think>b", "c\n</think>\nd"], train=[(0, 0, 1)]), "warning", "a model thought",
         "row 1", 2),
        (data_set(["a", "b" * 100_001], train=[(0, 0, 1)]), "warning", "longer than 100,000", "row 1", 1),
        (data_set(['["a"]', "b", "['c', 'd']"], train=[(0, 0, 1)]), "warning", "list of texts", "row 0", 2),
        (data_set(train=[*TRAIN, (1, 0, 1), (2, 6, 7), (3, 0, 1)]), "warning", "nobody has a response in common",
         "user 'u2'", 1),
        (data_set(train=[(0, 0, 1), (1, 2, 3), (1, 3, 4)]), "warning", "nobody has a response in common", "user", 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_findings(data: PreferenceData, severity: str, what: str, where: str, count: int) -> None:
    (finding,) = found(data, what)
    assert (finding.severity, finding.count) == (severity, count)
    assert where in finding.where
    assert finding.advice


def test_a_label_that_length_tells() -> None:
    texts = ["x" * (n + 1) for n in range(60)]
    # 24 users prefer the longer of two in all but one of five comparisons: 80 %.
    rows = [(0, n + 1, n) if n % 5 else (0, n, n + 1) for n in range(50)]
    (finding,) = found(data_set(texts, train=rows, test=[(0, 59, 58)]), "longer response wins")
    assert finding.what == "the longer response wins 80%"
    assert finding.where == "train 80%, test 100%"
    assert finding.count == 51
    fair = [(0, n + 1, n) if n % 2 else (0, n, n + 1) for n in range(50)]
    assert not found(data_set(texts, train=fair), "response wins")
    assert not found(data_set(texts, train=[(0, 1, 0), (0, 3, 2)]), "response wins")


LONG = "What is the answer to this rather long question?"


def asked(*texts: str, prompt: str = LONG) -> PreferenceData:
    data = data_set(texts, train=[(0, row, row + 1) for row in range(len(texts) - 1)])
    return PreferenceData("asked", data.users, ResponseTable([prompt] * len(texts), texts), data.splits)


def test_a_prompt_within_the_responses() -> None:
    everywhere = asked(f"{LONG} Yes.", f"Human: {LONG}\n\nAssistant: No.", f"{LONG} Perhaps.")
    (finding,) = found(everywhere, "prompt")
    assert (finding.severity, finding.what, finding.count) == (
        "warning",
        "the prompt stands in the response's text, too",
        3,
    )
    missing = asked(f"{LONG} Yes.", f"{LONG} No.", "Perhaps.")
    first, second = found(missing, "prompt")
    assert (first.severity, first.what, first.count) == ("error", "prompt missing from the response's text", 1)
    assert (second.severity, second.count) == ("warning", 2)
    assert not found(asked("Yes.", "No.", f"{LONG} Perhaps."), "prompt")
    assert not found(asked("Hi there", "Hi you", prompt="Hi"), "prompt")


def test_a_prompt_that_is_messages_as_text() -> None:
    conversation = '[{"role":"user","content":"Why?"}]'
    assert not found(asked("Yes.", "No.", prompt=conversation), "prompt that is a list")
    for odd in ("[{'role': 'user', 'content': 'Why?'}]", '["Why?","And then?"]'):
        (finding,) = found(asked("Yes.", "No.", prompt=odd), "prompt that is a list")
        assert (finding.severity, finding.where) == ("warning", f"such as {quoted(odd)}")


def test_a_label_that_the_place_in_the_table_or_on_the_screen_tells() -> None:
    texts = [f"{n:02}" for n in range(40)]
    rows = [(0, n, n + 1) for n in range(36)] + [(0, n + 1, n) for n in range(36, 39)]
    (finding,) = found(data_set(texts, train=rows), "stored first wins")
    assert (finding.what, finding.where, finding.count) == ("the response stored first wins 92%", "train 92%", 39)
    shown = {"positions": {"judgements": 100, "first": 20}}
    (finding,) = found(data_set(train=TRAIN, provenance=shown), "shown second wins")
    assert (finding.what, finding.where) == ("the response shown second wins 80%", "source")
    assert not found(data_set(train=TRAIN, provenance={"positions": {"judgements": 9, "first": 0}}), "shown")


def test_trivial_rules_are_told_even_where_they_are_wrong_as_often() -> None:
    texts = ["x" * (n + 1) for n in range(11)]
    rows = [(0, n, n + 1) if n % 2 else (0, n + 1, n) for n in range(10)]
    rules = {
        rule.rule: (rule.accuracy, rule.count, dict(rule.splits)) for rule in trivial_rules(data_set(texts, train=rows))
    }
    assert rules == {
        "the longer response": (0.5, 10, {"train": 0.5}),
        "the response stored first": (0.5, 10, {"train": 0.5}),
    }


def test_what_a_source_has_found_is_reported() -> None:
    recorded = finding_of_source("warning", "odd workers", "workers 1, 2", 2, "leave them out")
    data = data_set(train=TRAIN, validation=[(0, 1, 2)], provenance={"findings": [recorded]})
    assert found(data, "odd workers") == [Finding("warning", "odd workers", "workers 1, 2", 2, "leave them out")]


def test_unseen_users_may_be_judged_on_cold_responses() -> None:
    data = data_set(train=TRAIN, validation=[(0, 1, 2)], cold=[(0, 6, 7)], support=[(5, 0, 1)], heldout=[(5, 6, 7)])
    assert not found(data, "cold responses")


def test_errors_come_first() -> None:
    data = data_set(train=[*TRAIN, (1, 0, 1)], test=[(0, 1, 0)], provenance={"notes": ["n"]})
    severities = [finding.severity for finding in check(data)]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert {"error", "warning", "info"} == set(severities)


def test_a_description_counts() -> None:
    data = data_set(train=[*TRAIN, (1, 0, 1)], support=[(2, 0, 7)], provenance={"source": "own", "licence": "CC0"})
    marked = Comparisons([3, 3], [0, 1], [1, 2], np.ones(2), np.array([1, 0], dtype=np.int8))
    data = PreferenceData(data.name, data.users, data.responses, {**data.splits, "test": marked}, data.provenance)
    described = describe_data(data)
    assert (described["users"], described["responses"], described["prompts"]) == (10, 8, 1)
    assert described["groups"] == {"g": 2, "h": 1}
    assert list(described["splits"]) == ["train", "test", "support"]
    train = described["splits"]["train"]
    assert len(train["digest"]) == 32
    assert (train["comparisons"], train["users"], train["responses"]) == (4, 2, 6)
    assert train["per_user"] == {"min": 1, "quarter": 1.5, "median": 2, "three_quarters": 2.5, "max": 3}
    assert (described["splits"]["test"]["controversial"], described["splits"]["test"]["common"]) == (0.5, 0.5)
    assert described["lengths"]["response"]["max"] == 1
    rows = dict(description_rows(described))
    assert rows["users by group"] == "g: 2, h: 1"
    assert rows["licence"] == "CC0"
    assert rows["train"] == "4 comparisons, 2 users, 6 responses; a user has 2 (1 to 3)"
    assert rows["test"] == "2 comparisons, 1 users, 3 responses; a user has 2 (2 to 2); 50% controversial"
    assert "attribution" not in rows


def test_a_description_has_the_findings_and_the_trivial_rules() -> None:
    data = data_set(["a", "bb", " "], train=[(0, 1, 0), (0, 2, 0)], provenance={"notes": ["Take care."]})
    assert not found(data, "Take care.")
    described = describe_data(data, check(data))
    assert [found["what"] for found in described["findings"] if found["severity"] == "error"] == ["empty response"]
    assert described["notes"] == ["Take care."]
    assert "Take care." not in [found["what"] for found in described["findings"]]
    rows = description_rows(described)
    assert ("the longer response wins", "100.0% of 1 comparisons") in rows
    assert ("error", "empty response: 1 (responses, such as row 2); leave these rows out of the file") in rows
    assert describe_data(data)["findings"] == []


def test_an_empty_data_set_can_be_described_and_checked() -> None:
    data = PreferenceData("none", UserTable([], []), ResponseTable([], []), {})
    assert describe_data(data)["splits"] == {}
    assert ("response length, characters", "none") in description_rows(describe_data(data))
    assert [finding.what for finding in check(data)] == ["nothing to train on"]
