from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from copl.data.chat import encode_messages
from copl.data.sources.trl import TrlOptions, TrlSource
from copl.errors import DataError, OptionsError
from copl.plugins import load as plugins
from copl.records import PreferenceData
from tests.data.published import write_lines, write_parquet

ALL_IN_TRAIN = {"test_fraction": 0.0, "validation_fraction": 0.0, "cold_fraction": 0.0, "unseen_fraction": 0.0}
QUESTION = {"role": "user", "content": "Why?"}


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def load(path: Path, **options: Any) -> PreferenceData:
    return TrlSource(TrlOptions(path=path, **{**ALL_IN_TRAIN, **options})).load(seed=0)


def rows_of(data: PreferenceData) -> list[tuple[str, str, str, str]]:
    table, found = data.responses, []
    for name in data.present():
        part = data.splits[name]
        for user, chosen, rejected in zip(*(c.tolist() for c in (part.user, part.chosen, part.rejected)), strict=True):
            assert table.prompts[chosen] == table.prompts[rejected]
            found.append((data.users.ids[user], table.prompts[chosen], table.texts[chosen], table.texts[rejected]))
    return sorted(found)


FORMS: dict[str, dict[str, Any]] = {
    "explicit, plain": {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    "explicit, conversational": {"prompt": "Why?", "chosen": [answer("Because.")], "rejected": [answer("No.")]},
    "implicit, conversational": {"chosen": [QUESTION, answer("Because.")], "rejected": [QUESTION, answer("No.")]},
    "conversational with a prompt beside": {
        "prompt": "Why?", "chosen": [QUESTION, answer("Because.")], "rejected": [QUESTION, answer("No.")]
    },
    "implicit, a transcript": {
        "chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."
    },
    "implicit, plain": {"chosen": "Why? Because.", "rejected": "Why? No."},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("write", [write_lines, write_parquet])
def test_every_form_says_the_same(tmp_path: Path, form: str, write: Any) -> None:
    rows = [{"user_id": f"u{n}", **FORMS[form]} for n in range(2)]
    data = load(write(tmp_path / f"a.{'jsonl' if write is write_lines else 'parquet'}", rows))
    assert rows_of(data) == [(f"u{n}", "Why?", "Because.", "No.") for n in range(2)]


def test_a_conversation_of_several_turns(tmp_path: Path) -> None:
    before = [{"role": "system", "content": "Be brief."}, QUESTION, answer("So."), {"role": "user", "content": "But?"}]
    row = {"user_id": "u", "chosen": [*before, answer("Yes.")], "rejected": [*before, answer("No.")]}
    expected = [("u", encode_messages(before), "Yes.", "No.")]
    assert rows_of(load(write_lines(tmp_path / "a.jsonl", [row]))) == expected
    explicit = {"user_id": "u", "prompt": before, "chosen": [answer("Yes.")], "rejected": [answer("No.")]}
    assert rows_of(load(write_lines(tmp_path / "b.jsonl", [explicit]))) == expected


def test_a_system_text_is_the_first_message_and_other_columns_are_named(tmp_path: Path) -> None:
    asked = {"user_id": "u", "chosen": "Yes.", "rejected": "No.", "tools": "[]"}
    rows = [
        {**asked, "prompt": "a", "system": "Be brief. "},
        {**asked, "prompt": [{"role": "system", "content": "Be brief."}, QUESTION], "system": "Be brief."},
        {**asked, "prompt": [{"role": "system", "content": "Be long."}, QUESTION], "system": "Be brief."},
        {**asked, "prompt": "b", "system": ""},
        {**asked, "prompt": "c"},
    ]
    data = load(write_lines(tmp_path / "a.jsonl", rows))
    system = {"role": "system", "content": "Be brief."}
    prompts = [
        [system, {"role": "user", "content": "a"}],
        [system, QUESTION],
        [{**system, "content": "Be long."}, QUESTION],
    ]
    assert {row[1] for row in rows_of(data)} == {*map(encode_messages, prompts), "b", "c"}
    assert data.provenance["notes"] == [
        "1 prompts begin with the row's system text, as a message of its own.",
        "1 rows have a system text beside another in the prompt; that in the prompt is used.",
        "Column 'tools' is not part of the row schema and was not read.",
    ]


def test_a_prompt_beside_a_conversation_that_begins_otherwise_is_said(tmp_path: Path) -> None:
    row = {"user_id": "u", "prompt": "How?", "chosen": [QUESTION, answer("a")], "rejected": [QUESTION, answer("b")]}
    data = load(write_lines(tmp_path / "a.jsonl", [row]))
    assert rows_of(data) == [("u", "Why?", "a", "b")]
    assert data.provenance["notes"] == [
        "1 rows have a prompt beside whole conversations that begin otherwise; the conversations are used."
    ]


def test_all_faults_of_all_rows_are_said_at_once(tmp_path: Path) -> None:
    rows = [
        {"user_id": "u", "chosen": "Yes.", "rejected": "No."},
        {"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b", "system": ["x"]},
        {"user_id": "u", "prompt": "p", "chosen": "", "rejected": "b"},
    ]
    with pytest.raises(DataError) as caught:
        load(write_lines(tmp_path / "a.jsonl", rows))
    assert [fault.partition(": ")[2] for fault in caught.value.faults] == [
        "row 1: no prompt column, and chosen and rejected do not begin alike; name it with columns=prompt=...",
        "row 2: system: expected text, got a list",
        "row 3: chosen: empty text",
    ]


def test_columns_user_and_splits(tmp_path: Path) -> None:
    rows = [
        {"annotator": n, "question": "p", "chosen": "a", "rejected": "b", "group": "g", "split": "train", "other": 1}
        for n in range(3)
    ]
    data = load(write_lines(tmp_path / "a.jsonl", rows), user="annotator", columns={"prompt": "question"})
    assert data.users.ids == ("0", "1", "2")
    assert set(data.users.groups) == {"g"}
    assert data.provenance["split"] == "given"


def test_the_published_test_part_is_never_trained_on(tmp_path: Path) -> None:
    def row(prompt: str) -> dict[str, Any]:
        return {"user_id": "u", "prompt": prompt, "chosen": "a", "rejected": "b"}

    write_lines(tmp_path / "train.jsonl", [row("p1"), row("p2")])
    write_lines(tmp_path / "test.jsonl", [row("p2"), row("p3")])
    data = load(tmp_path)
    prompts = {
        name: {data.responses.prompts[end] for end in data.splits[name].chosen.tolist()} for name in data.present()
    }
    assert prompts == {"train": {"p1", "p2"}, "cold": {"p3"}}
    assert "1 rows of the test part are on prompts of the training part and were left out." in data.provenance["notes"]
    assert {r[1] for r in rows_of(load(tmp_path, test_split=None))} == {"p1", "p2"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "Yes.", "rejected": "No."}, "row 1: no prompt column, and chosen and rejected do not begin alike"),
        ({"prompt": "p", "chosen": ["a"], "rejected": "b"}, "row 1: chosen: a list where text belongs"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "row 1: chosen: chosen and rejected are the same text"),
        (
            {"chosen": [QUESTION, answer("a"), QUESTION, answer("b")], "rejected": [QUESTION, answer("c")]},
            "row 1: chosen: a list of 3 messages; a response is one assistant message",
        ),
        ({"prompt": "p", "chosen": "a", "other": "b"}, "no column 'rejected'.*with user=... and columns="),
        ({"prompt": "p", "completion": "a", "label": True}, "no column 'chosen'.*is read by source thumbs"),
    ],
)
def test_faults(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write_lines(tmp_path / "a.jsonl", [{"user_id": "u", **row}]))


def test_something_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="name a repository on the Hub or a path"):
        plugins().registry("source").create("trl", {})
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(DataError, match="the file is empty"):
        load(tmp_path / "a.jsonl")
