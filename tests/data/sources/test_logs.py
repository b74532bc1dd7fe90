"""What tools log: exports of their shapes, written here, made into data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copl.data.checking.checks import check
from copl.data.dataset import load_dataset
from copl.errors import DataError
from copl.judgements import KINDS
from copl.plugins import load
from copl.records import PreferenceData

RunCopl = Callable[..., tuple[int, str, str]]
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
    return list(data.provenance["notes"])


# Open WebUI


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
        ('[{"rating": NaN}]', "not JSON: NaN is no number; export it again"),
        ("[" * 100_000, "not JSON: nested too deeply; export it again"),
    ],
)
def test_files_that_are_no_export(tmp_path: Path, content: str, fault: str) -> None:
    (tmp_path / "f.json").write_text(content)
    assert faults("open-webui", tmp_path / "f.json")[-1] == fault


def test_characters_that_no_file_can_keep_are_left_out(tmp_path: Path) -> None:
    messages = {
        "0": message("system", "\u200b", None),
        "1": message("user", "Why\x00?", "0"),
        "2": message("assistant", "Be\x00cause.", "1"),
    }
    data = made("open-webui", written(tmp_path / "f.json", [feedback(1, "2", messages)]))
    assert (data.responses.prompts, data.responses.texts) == (("Why?",), ("Because.",))
    one, other = state("Why\x00?", "Because.\ud800"), state("Why?", "No idea.", system_message="\u200b\x00")
    data = made("arena-votes", written(tmp_path / "l.json", [vote("leftvote", one, other)], lines=True))
    assert said(data) == {("10.0.0.1", "choice", "Because.?", "No idea.", 1.0)}


def test_a_changed_vote_counts_once(tmp_path: Path) -> None:
    one = feedback(1, "6", FORKED)
    entries = [{**one, "data": {"rating": -1}, "updated_at": 1_700_000_900}, one]
    data = made("open-webui", written(tmp_path / "f.json", entries))
    assert ("ann", "thumb", "Then it ends.", -1.0) in said(data)
    assert ("ann", "thumb", "Then it ends.", 1.0) not in said(data)


# Label Studio


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
        "1 rows were left out: skipped by the annotator.",
        "1 rows were left out: annotations without a pairwise answer.",
    ]
    assert np.isfinite(data.splits["train"].time).sum() == 3


def test_malformed_tasks_are_a_line_each(tmp_path: Path) -> None:
    entries = [task(annotation("up")), task(annotation("left", None)), task(annotation("left"), answer1=None), task(5)]
    assert faults("label-studio", written(tmp_path / "t.json", entries)) == [
        "entry 1: selected: expected left or right, got 'up'",
        "entry 2: completed_by: missing; who annotated?",
        "entry 3: data.answer1: missing",
        "entry 4: annotations: expected objects, got 5",
    ]


# Argilla

FIELDS = {"prompt": "Why?", "r1": "Because.", "r2": "No idea.", "r3": "Ask again."}


def answers(question: str, *given: tuple[str, Any, Any]) -> dict[str, Any]:
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


# arena


def state(*turns: str, **more: Any) -> dict[str, Any]:
    messages = [["USER" if n % 2 == 0 else "ASSISTANT", text] for n, text in enumerate(turns)]
    return {"template_name": "t", "system_message": "", "roles": ["USER", "ASSISTANT"], "messages": messages,
            "offset": 0, "conv_id": "c", "model_name": "m", **more}  # fmt: skip


def vote(kind: str, one: Any, other: Any, ip: Any = "10.0.0.1", time: float = 1_700_000_000.5) -> dict[str, Any]:
    return {"tstamp": time, "type": kind, "models": ["", ""], "states": [one, other], "ip": ip}


def test_votes_of_an_arena(tmp_path: Path) -> None:
    one, other = state("Why?", "Because."), state("Why?", "No idea.")
    long = state("Why?", "Because.", "How?", "So."), state("Why?", "No idea.", "How?", "Thus.")
    template = {"offset": 2, "messages": [["USER", "x"], ["ASSISTANT", "y"], *one["messages"]]}
    single = {"tstamp": 1_700_000_009.0, "type": "downvote", "model": "m", "state": one, "ip": "10.0.0.5"}
    battle = {
        "winner": "tie (bothbad)", "judge": "arena_user_1", "tstamp": 1_700_000_009.0,
        "conversation_a": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}],
        "conversation_b": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No idea."}],
    }  # fmt: skip
    entries = [
        vote("leftvote", one, other),
        vote("rightvote", {**one, **template}, other, "10.0.0.2"),
        vote("tievote", {**one, "system": "Be brief.", "system_message": "Be brief."},
             {**other, "system_message": "Be brief."}, "10.0.0.3"),
        vote("bothbad_vote", one, other, "10.0.0.4"),
        vote("leftvote", *long, "10.0.0.6"),
        vote("leftvote", one, state("Who?", "Me."), "10.0.0.6"),
        vote("leftvote", one, state("Why?", None), "10.0.0.6"),  # type: ignore[arg-type]
        {"tstamp": 1.0, "type": "chat", "model": "m", "state": one, "ip": "10.0.0.1"},
        single,
        battle,
    ]  # fmt: skip
    path = written(tmp_path / "log.json", entries, lines=True)
    data = made("arena-votes", path)
    assert said(data) == {
        ("10.0.0.1", "choice", "Because.", "No idea.", 1.0),
        ("10.0.0.2", "choice", "No idea.", "Because.", 1.0),
        ("10.0.0.3", "tie", "Because.", "No idea.", 0.0),
        ("10.0.0.4", "both_bad", "Because.", "No idea.", 0.0),
        ("10.0.0.5", "thumb", "Because.", -1.0),
        ("arena_user_1", "both_bad", "Because.", "No idea.", 0.0),
    }
    assert set(notes(data)) == {
        "1 rows were left out: after several turns, where the two conversations differ.",
        "1 rows were left out: between answers to different prompts.",
        "1 rows were left out: without an answer to judge.",
        "1 rows were left out: no votes, but other lines of the log.",
    }
    whole = said(made("arena-votes", path, conversations="all"))
    sides = [f"assistant: {a}\n\nuser: How?\n\nassistant: {b}" for a, b in (("Because.", "So."), ("No idea.", "Thus."))]
    assert ("10.0.0.6", "choice", *sides, 1.0) in whole


def test_malformed_votes_are_a_line_each(tmp_path: Path) -> None:
    one = state("Why?", "Because.")
    entries = [
        vote("middlevote", one, one),
        vote("leftvote", one, one, ip=None),
        {**vote("leftvote", one, one), "states": [one]},
        vote("leftvote", {**one, "messages": ["x"]}, one),
    ]
    assert [fault.split(", got")[0] for fault in faults("arena-votes", written(tmp_path / "l.json", entries))] == [
        "entry 1: type or winner: expected a vote such as leftvote or tie",
        "entry 2: ip: missing",
        "entry 3: states: expected 2 conversations",
        "entry 4: states: messages: expected pairs of a role and a text",
    ]


# thumbs


def thumb_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {"user_id": f"u{rng.integers(8)}", "prompt": f"p{n}", "response": f"answer {n}", "thumb": int(rng.integers(2))}
        for n in range(count)
    ]


def test_a_log_of_thumbs_is_learnt_from_and_judged(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", thumb_rows(400), lines=True)
    options = {"unseen_fraction": 0.2, "cold_fraction": 0.1, "test_fraction": 0.2, "validation_fraction": 0.1}
    data = made("thumbs", path, **options)
    assert set(data.judgements) == {"train", "support"}
    assert set(data.splits) == {"validation", "test", "cold", "heldout"}
    values = {row["response"]: row["thumb"] for row in thumb_rows(400)}
    for part in data.splits.values():
        assert all(values[data.responses.texts[row]] == 1 for row in part.chosen.tolist())
        assert all(values[data.responses.texts[row]] == 0 for row in part.rejected.tolist())
    learnt = set(data.judgements["train"].response.tolist())
    judged = {row for part in data.splits.values() for row in (*part.chosen.tolist(), *part.rejected.tolist())}
    assert not learnt & judged
    assert len(data.split("train")) > 100
    assert not [found for found in check(data) if found.severity == "error"]


@pytest.mark.parametrize(
    ("marks", "thumbs"),
    [(["up", "down", ""], [1, -1]), ([1, 0, 1], [1, -1, 1]), ([1, 0, -1], [1, -1]), ([True, False, None], [1, -1])],
)
def test_thumbs_are_written_in_many_ways(tmp_path: Path, marks: list[Any], thumbs: list[int]) -> None:
    rows = [
        {"user_id": "u", "prompt": f"p{n}", "completion": f"answer {n}", "label": mark} for n, mark in enumerate(marks)
    ]
    data = made("thumbs", written(tmp_path / "t.jsonl", rows, lines=True))
    assert sorted(data.judgements["train"].value.tolist()) == sorted(thumbs)
    left = len(marks) - len(thumbs)
    assert notes(data) == ([f"{left} rows were left out: without a thumb."] if left else [])


def test_malformed_thumbs_are_a_line_each(tmp_path: Path) -> None:
    rows = [{**row, "thumb": mark} for row, mark in zip(thumb_rows(2), ("sideways", 2), strict=True)]
    rows.append({**rows[0], "user_id": None, "thumb": 1})
    assert faults("thumbs", written(tmp_path / "t.jsonl", rows, lines=True)) == [
        "line 1: thumb: expected up or down, true or false, 1 or 0, or 1 or -1, got 'sideways'",
        "line 2: thumb: expected up or down, true or false, 1 or 0, or 1 or -1, got 2",
        "line 3: user_id: missing",
    ]


def test_thumbs_are_split_by_time(tmp_path: Path) -> None:
    rows = [{**row, "timestamp": 1_000 + n} for n, row in enumerate(thumb_rows(300))]
    options = {"strategy": "time", "test_fraction": 0.2, "validation_fraction": 0.1, "unseen_fraction": 0.2}
    data = made("thumbs", written(tmp_path / "t.jsonl", rows, lines=True), **options)
    number = {f"answer {n}": n for n in range(300)}
    learnt = max(number[data.responses.texts[row]] for row in data.judgements["train"].response.tolist())
    part = data.splits["test"]
    judged = min(number[data.responses.texts[row]] for row in (*part.chosen.tolist(), *part.rejected.tolist()))
    assert learnt < judged
    assert learnt == 209  # seven tenths of the times


def test_the_commands_count_each_kind(tmp_path: Path, run_copl: RunCopl) -> None:
    path = written(tmp_path / "t.jsonl", thumb_rows(200), lines=True)
    code, shown, _ = run_copl("data", "make", "thumbs", "--set", f"path={path}", "--out", str(tmp_path / "data"))
    assert (code, "train, judgements" in shown) == (0, True)
    code, shown, _ = run_copl("data", "check", str(tmp_path / "data"), "--json")
    assert code == 0
    counts = {found["what"]: found["count"] for found in json.loads(shown)}
    assert counts["judgements: thumb"] == len(load_dataset(tmp_path / "data").judgements["train"])
    code, _, told = run_copl("data", "make", "arena-votes", "--set", f"path={path}", "--out", str(tmp_path / "other"))
    assert (code, told.count("\n"), (tmp_path / "other").exists()) == (2, 21, False)
