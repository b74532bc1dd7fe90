"""Source ``open-webui``: feedback of its shapes, in old and new exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.sources.exports import faults, made, notes, said, written


def message(role: str, content: Any, parent: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, "parentId": parent, "childrenIds": [], **more}


def feedback(rating: Any, rated: str, messages: Any, user: str = "ann", **more: Any) -> dict[str, Any]:
    chat = {"id": "c", "title": "t", "chat": {"history": {"messages": messages, "currentId": rated}}}
    return {
        "id": "f", "user_id": user, "version": 0, "type": "rating",
        "data": {"rating": rating, "model_id": "m", "sibling_model_ids": None, "reason": None, "comment": ""},
        "meta": {"arena": False, "chat_id": "c", "message_id": rated, "message_index": 1},
        "snapshot": {"chat": chat}, "created_at": 1_700_000_000, "updated_at": 1_700_000_100, **more,
    }  # fmt: skip


FORKED = {
    "1": message("user", "Why?", None),
    "2": message("assistant", "Because.", "1", model="a"),
    "3": message("assistant", [{"type": "text", "text": "Since it is so."}], "1", model="b"),
    "4": message("assistant", "No idea.", "1", model="a"),
    "5": message("user", "And then?", "3"),
    "6": message("assistant", "Then it ends.", "5", originalContent="Then it stops."),
}


def test_a_rated_answer_is_set_against_its_siblings(tmp_path: Path) -> None:
    entries = [
        feedback(1, "2", FORKED),
        feedback("-1", "3", FORKED, "ben"),
        feedback(0, "4", FORKED, "cleo"),
        feedback(1, "6", FORKED, "dan"),
    ]
    data = made("open-webui", written(tmp_path / "f.json", entries))
    weight = 0.667
    assert said(data) == {
        ("ann", "choice", "Because.", "Since it is so.", weight),
        ("ann", "choice", "Because.", "No idea.", weight),
        ("ben", "choice", "Because.", "Since it is so.", weight),
        ("ben", "choice", "No idea.", "Since it is so.", weight),
        ("cleo", "tie", "Because.", "No idea.", 0.0),
        ("cleo", "tie", "No idea.", "Since it is so.", 0.0),
        ("dan", "choice", "Then it ends.", "Then it stops.", 1.0),  # edited
        ("dan", "thumb", "Then it ends.", 1.0),
    }
    prompts = {text: prompt for prompt, text in zip(data.responses.prompts, data.responses.texts, strict=True)}
    assert prompts["Because."] == "Why?"
    assert json.loads(prompts["Then it ends."]) == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Since it is so."},
        {"role": "user", "content": "And then?"},
    ]
    assert set(data.splits["train"].time) == {1_700_000_100.0}


def test_siblings_that_were_rated_are_compared_by_both_ratings(tmp_path: Path) -> None:
    def rated(**ratings: Any) -> dict[str, Any]:
        messages = {"1": message("user", "Why?", None)}
        for key, rating in ratings.items():
            annotation = {} if rating is None else {"annotation": {"rating": rating, "tags": []}}
            messages[key] = message("assistant", f"answer {key}", "1", **annotation)
        return messages

    entries = [
        feedback(1, "a", rated(a=None, b=None, c=None), updated_at=1),
        feedback(1, "b", rated(a=1, b=None, c=None), updated_at=2),  # as good as the other one rated up
        feedback(-1, "a", rated(a=None, b="-1", c=None), "ben"),
        feedback(0, "a", rated(a=None, b=1, c=-1), "cleo"),
        feedback(1, "a", rated(a=None, b="sideways"), "dan"),
    ]
    assert said(made("open-webui", written(tmp_path / "f.json", entries))) == {
        ("ann", "choice", "answer a", "answer c", 0.667),
        ("ann", "choice", "answer b", "answer c", 1.0),
        ("ann", "tie", "answer a", "answer b", 0.0),
        ("ben", "both_bad", "answer a", "answer b", 0.0),
        ("ben", "choice", "answer c", "answer a", 1.0),
        ("cleo", "choice", "answer b", "answer a", 1.0),
        ("cleo", "choice", "answer a", "answer c", 1.0),
        ("dan", "choice", "answer a", "answer b", 1.0),
    }


def test_times_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    entries = [
        feedback(1, "6", FORKED, updated_at=0),
        feedback(1, "6", FORKED, "ben", updated_at="2026-01-31T10:00:00"),
        feedback(1, "6", FORKED, "cleo", updated_at=1_700_000_200 * 10**9),
    ]
    path = written(tmp_path / "f.json", entries)
    data = made("open-webui", path)
    assert np.array_equal(data.splits["train"].time, [1_700_000_000, np.nan, np.nan], equal_nan=True)
    unread = "2 times could not be read and are unknown, such as: a time without its zone, 2026-01-31 10:00:00; write Z"
    assert notes(data) == [f"{unread} or +02:00 at its end."]
    assert faults("open-webui", path, strategy="time") == [
        f"strategy=time needs a time for all, 4 have none; {unread} or +02:00 at its end"
    ]


def test_users_named_by_numbers_and_by_text_are_told(tmp_path: Path) -> None:
    entries = [feedback(1, "6", FORKED, user) for user in (7, "ann", 8)]  # type: ignore[arg-type]
    assert notes(made("open-webui", written(tmp_path / "f.json", entries))) == [
        "Some users are named by a number and some by text, such as '7' and 'ann'; one may be taken for two."
    ]
    assert notes(made("open-webui", written(tmp_path / "f.json", entries[::2]))) == []


def test_an_export_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("user_id,rating\nann,1\n")
    assert faults("open-webui", tmp_path / "f.csv") == [
        "unknown kind of file '.csv'; known are JSON and Parquet; export it as one of these"
    ]


def test_what_a_model_thinks_beforehand_is_no_part_of_its_answer(tmp_path: Path) -> None:
    def thought(what: str) -> str:
        summary = "<summary>Thought for 3 seconds</summary>"
        return f'<details type="reasoning" done="true" duration="3">\n{summary}\n> {what}\n</details>\n'

    messages = {
        "1": message("user", "Why?", None),
        "2": message("assistant", thought("hm") + "Because.", "1"),
        "3": message("assistant", thought("aha") + "Because.", "1"),
        "4": message("user", thought("what I read") + "And then?", "2"),
        "5": message(
            "assistant",
            '<details type="tool_calls" name="look" result="&quot;x&quot;">\n<summary>Tool Executed'
            "</summary>\n</details>\nIt ends.",
            "4",
        ),
        "6": message("assistant", '<details type="reasoning" done="false">\n' * 20_000, "4"),
    }
    data = made("open-webui", written(tmp_path / "f.json", [feedback(1, "2", messages), feedback(-1, "5", messages)]))
    assert said(data) == {("ann", "thumb", "Because.", 1.0), ("ann", "thumb", "It ends.", -1.0)}
    prompts = {text: prompt for prompt, text in zip(data.responses.prompts, data.responses.texts, strict=True)}
    assert [turn["content"] for turn in json.loads(prompts["It ends."])] == [
        "Why?", "Because.", thought("what I read") + "And then?",
    ]  # fmt: skip


def test_pictures_and_files_are_told(tmp_path: Path) -> None:
    plain = {"1": message("user", "What is it?", None), "2": message("assistant", "A cat.", "1")}
    shown = {**plain, "1": message("user", "What is it?", None, files=[{"type": "image", "url": "data:"}])}
    drawn = {**plain, "2": message("assistant", "Here.", "1", files=[{"type": "image", "url": "x"}, {"type": "file"}])}
    parts = [{"type": "text", "text": "Who?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    entries = [feedback(1, "2", messages, user) for user, messages in zip("abc", (plain, shown, drawn), strict=True)]
    entries.append(feedback(1, "2", {**plain, "1": message("user", parts, None)}, "d"))
    entries.append(feedback(1, "2", {**plain, "1": message("user", parts[1:], None)}, "e"))
    data = made("open-webui", written(tmp_path / "f.json", entries))
    assert {user for user, *_ in said(data)} == set("abcd")
    assert notes(data) == [
        "4 entries have more than text (file, image, image_url), which was not read: what is learnt of them rests on "
        "their text alone.",
        "1 rows were left out: whose prompt has no text.",
    ]


def test_ratings_as_tables_write_them_and_messages_beside_an_empty_tree(tmp_path: Path) -> None:
    listed = [{"id": "x", "role": "user", "content": "Why?"}, {"id": "y", "role": "assistant", "content": "Because."}]
    entry = feedback(-1.0, "y", {})
    entry["snapshot"]["chat"]["chat"]["messages"] = listed
    assert said(made("open-webui", written(tmp_path / "f.json", [entry]))) == {("ann", "thumb", "Because.", -1.0)}


def test_an_object_over_several_lines_is_one_entry(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text(json.dumps(feedback(1, "6", FORKED), indent=2))
    assert ("ann", "thumb", "Then it ends.", 1.0) in said(made("open-webui", path))
    path.write_text(json.dumps({"feedback": [feedback(1, "6", FORKED)]}, indent=2))
    assert faults("open-webui", path) == ["entry 1: user_id: missing"]


@pytest.mark.parametrize("user", [5.5, True, ["ann"], {"id": "ann"}])
def test_an_id_is_text_or_a_whole_number(tmp_path: Path, user: Any) -> None:
    entry = feedback(1, "2", FORKED, user_id=user)
    (fault,) = faults("open-webui", written(tmp_path / "f.json", [entry]))
    assert fault.startswith("entry 1: user_id: expected who gave the feedback, got ")
    assert ("7", "choice", "Because.", "No idea.", 0.667) in said(
        made("open-webui", written(tmp_path / "f.json", [{**entry, "user_id": 7}]))
    )


def test_old_exports_list_their_messages(tmp_path: Path) -> None:
    messages = [{"id": "x", "role": "user", "content": "Why?"}, {"id": "y", "role": "assistant", "content": "Because."}]
    entry = feedback(-1, "y", {})
    entry["snapshot"] = {"chat": {"messages": messages}}
    assert said(made("open-webui", written(tmp_path / "f.json", [entry]))) == {("ann", "thumb", "Because.", -1.0)}


def test_what_cannot_be_used_is_counted_by_reason(tmp_path: Path) -> None:
    orphan = {**FORKED, "5": message("user", "And then?", "gone")}
    entries = [
        feedback(1, "2", FORKED),
        feedback(1, "9", FORKED),
        feedback(1, "6", orphan),
        feedback(None, "2", FORKED),
        feedback(1, "2", FORKED, snapshot=None),
        feedback(1, "2", FORKED, type="comment"),
        feedback(0, "6", {**FORKED, "6": message("assistant", "Then it ends.", "5")}),
        feedback(1, "1", FORKED),
        feedback(1, "2", {**FORKED, "2": message("assistant", " ", "1")}),
    ]
    data = made("open-webui", written(tmp_path / "f.json", entries))
    assert notes(data) == [
        "2 rows were left out: on a message that was deleted.",
        "1 rows were left out: whose prompt was deleted.",
        "1 rows were left out: without a rating.",
        "1 rows were left out: without its conversation.",
        "1 rows were left out: not of type rating.",
        "1 rows were left out: rated 0, without another answer.",
        "1 rows were left out: with an empty text.",
    ]


def test_malformed_feedback_is_a_line_each(tmp_path: Path) -> None:
    entries = [feedback(1, "2", FORKED, user_id=None), feedback(7, "2", FORKED), 5, feedback(1, "2", FORKED, data=[])]
    assert faults("open-webui", written(tmp_path / "f.json", entries)) == [
        "entry 1: user_id: missing",
        "entry 2: data.rating: expected 1, 0 or -1, got 7",
        "entry 3: expected an object, got a number",
        "entry 4: data: expected an object with the rating, got []",
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[1, 2", "not JSON: expecting ',' delimiter at line 1, column 6; export it again"),
        ("", "the file is empty"),
        ("[]", "there are no entries"),
        ('{"a": 1}\n{"a"', "line 2: not JSON: expecting ':' delimiter at line 1, column 5"),
        ('[{"rating": 1e999}]', "1e999 is no number; export it again"),
        ('[{"rating": NaN}]', "NaN is no number; export it again"),
        ("[" * 100_000, "nested too deeply; export it again"),
    ],
)
def test_files_that_are_no_export(tmp_path: Path, content: str, fault: str) -> None:
    (tmp_path / "f.json").write_text(content)
    assert faults("open-webui", tmp_path / "f.json")[-1] == fault


def test_lines_end_where_json_says_so(tmp_path: Path) -> None:
    bad = '{"a": "one\u2028line\x85 of JSON"}'
    (tmp_path / "f.json").write_text(f"{bad}\n{bad}\n", encoding="utf-8")
    assert all("not JSON" not in fault for fault in faults("open-webui", tmp_path / "f.json"))


def test_characters_that_no_file_can_keep_are_left_out(tmp_path: Path) -> None:
    messages = {
        "0": message("system", "\u200b", None),
        "1": message("user", "Why\x00?", "0"),
        "2": message("assistant", "Be\x00cause.", "1"),
    }
    data = made("open-webui", written(tmp_path / "f.json", [feedback(1, "2", messages)]))
    assert (data.responses.prompts, data.responses.texts) == (("Why?",), ("Because.",))


def test_a_changed_vote_counts_once(tmp_path: Path) -> None:
    one = feedback(1, "6", FORKED)
    entries = [{**one, "data": {"rating": -1}, "updated_at": 1_700_000_900}, one]
    data = made("open-webui", written(tmp_path / "f.json", entries))
    assert ("ann", "thumb", "Then it ends.", -1.0) in said(data)
    assert ("ann", "thumb", "Then it ends.", 1.0) not in said(data)
