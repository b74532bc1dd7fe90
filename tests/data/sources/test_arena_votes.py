"""Source ``arena-votes``: logs and battles of their shapes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.sources.exports import faults, made, notes, said, written


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


def test_published_battles(tmp_path: Path) -> None:
    def sides(text: bool) -> dict[str, Any]:
        return {
            f"conversation_{side}": [
                {"role": "user", "content": [{"type": "text", "text": "Why?"}] if text else "Why?"},
                {"role": "assistant", "content": [{"type": "text", "text": answer}] if text else answer},
            ]
            for side, answer in (("a", "Because."), ("b", "No idea."))
        }

    as_text = {name: json.dumps(turns) for name, turns in sides(False).items()}
    published = [{"judge_hash": "x1", "winner": "model_b", "tstamp": 1_720_000_000.5, **as_text}]
    assert said(made("arena-votes", written(tmp_path / "b.json", published))) == {
        ("x1", "choice", "No idea.", "Because.", 1.0)
    }
    times = [datetime(2025, 7, 1, tzinfo=UTC), datetime(2025, 7, 2, tzinfo=UTC)]
    table = pa.Table.from_pylist(
        [{"id": n, "winner": winner, "evaluation_session_id": f"s{n}", **sides(True)}
         for n, winner in enumerate(("both_bad", "model_a"))]
    ).append_column("timestamp", pa.array(times, pa.timestamp("ns", "UTC")))  # fmt: skip
    pq.write_table(table, tmp_path / "b.parquet")
    assert faults("arena-votes", tmp_path / "b.parquet")[0] == (
        "entry 1: judge: missing; name the field that says who voted with user=; there are id, winner, "
        "evaluation_session_id, conversation_a, conversation_b, timestamp"
    )
    data = made("arena-votes", tmp_path / "b.parquet", user="evaluation_session_id")
    assert said(data) == {
        ("s0", "both_bad", "Because.", "No idea.", 0.0), ("s1", "choice", "Because.", "No idea.", 1.0),
    }  # fmt: skip
    assert data.splits["train"].time.tolist() == [times[1].timestamp()]


def test_pictures_are_told_and_thoughts_are_no_part_of_an_answer(tmp_path: Path) -> None:
    shown = state("What is it?", "<think>Hm.</think>A cat.")
    shown["messages"][0][1] = ["What is it?", ["0123"]]
    parts = [{"type": "input_text", "text": "Why?"}, {"type": "input_audio"}, {"type": "reasoning", "text": "Hm."}]
    battle = {
        "winner": "model_a", "judge": "ben",
        "conversation_a": [{"role": "user", "content": parts},
                           {"role": "assistant", "content": "Because.\n</think>\nIt is so."}],
        "conversation_b": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No idea."}],
    }  # fmt: skip
    entries = [vote("leftvote", shown, {**shown, "messages": [shown["messages"][0], ["ASSISTANT", "A dog."]]}), battle]
    data = made("arena-votes", written(tmp_path / "log.json", entries, lines=True))
    assert said(data) == {
        ("10.0.0.1", "choice", "A cat.", "A dog.", 1.0),
        ("ben", "choice", "It is so.", "No idea.", 1.0),
    }
    assert notes(data) == [
        "2 entries have more than text (image, input_audio), which was not read: what is learnt of them rests on their "
        "text alone."
    ]


def test_characters_that_no_file_can_keep_are_left_out(tmp_path: Path) -> None:
    one, other = state("Why\x00?", "Because.\ud800"), state("Why?", "No idea.", system_message="\u200b\x00")
    data = made("arena-votes", written(tmp_path / "l.json", [vote("leftvote", one, other)], lines=True))
    assert said(data) == {("10.0.0.1", "choice", "Because.?", "No idea.", 1.0)}


def test_malformed_votes_are_a_line_each(tmp_path: Path) -> None:
    one = state("Why?", "Because.")
    entries = [
        vote("middlevote", one, one),
        vote("leftvote", one, one, ip=None),
        {**vote("leftvote", one, one), "states": [one]},
        vote("leftvote", {**one, "messages": ["x"]}, one),
        vote("leftvote", {**one, "offset": "2"}, one),
        vote("leftvote", one, one, ip=["10.0.0.1"]),
    ]
    assert [fault.split(", got")[0] for fault in faults("arena-votes", written(tmp_path / "l.json", entries))] == [
        "entry 1: type or winner: expected a vote such as leftvote or tie",
        "entry 2: ip: missing; name the field that says who voted with user=",
        "entry 3: states: expected 2 conversations",
        "entry 4: states: messages: expected pairs of a role and a text",
        "entry 5: states: offset: expected a number of messages",
        "entry 6: ip: expected text or a whole number",
    ]
