from __future__ import annotations

import csv
import datetime
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from copl.data import requests
from copl.data.requests import (
    ScoreRows,
    check_score_target,
    question_pairs,
    read_candidates,
    read_score_rows,
    read_support,
    require_known,
    score_request,
    write_scores,
)
from copl.data.targets import check_target
from copl.errors import DataError

CHAT = [{"role": "user", "content": "Why?"}]
ROWS: list[dict[str, Any]] = [
    {"user_id": "a", "prompt": "p", "response": "s, t"},
    {"user_id": "b", "prompt": CHAT, "response": "s"},
    {"user_id": "a", "prompt": "p", "response": "s"},
]


def never(note: str) -> None:
    raise AssertionError(f"nothing was to be said: {note}")


def rows_in(path: Path, rows: list[dict[str, Any]]) -> ScoreRows:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_score_rows(path, never)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("rows_at_a_time", [2, 100])
def test_rows_come_back_with_their_rewards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int
) -> None:
    monkeypatch.setattr(requests, "_PART", rows_at_a_time)
    asked = rows_in(tmp_path / "rows.jsonl", ROWS)
    rewards = np.array([1.5, -2.0, 0.25])
    for ending in ("jsonl", "csv", "parquet"):
        write_scores(tmp_path / f"out.{ending}", asked, rewards, {"a"})
    added = [
        {"reward": float(reward), "user_known": known}
        for reward, known in zip(rewards, (True, False, True), strict=True)
    ]
    expected = [row | more for row, more in zip(ROWS, added, strict=True)]
    assert lines_of(tmp_path / "out.jsonl") == expected
    prompts = ["p", '[{"role":"user","content":"Why?"}]', "p"]
    as_text = [{**row, "prompt": prompt} for row, prompt in zip(expected, prompts, strict=True)]
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == as_text
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["prompt"], float(row["reward"]), row["user_known"] == "true") for row in rows] == [
        (row["prompt"], row["reward"], row["user_known"]) for row in as_text
    ]


def test_columns_that_scoring_does_not_need_come_out_again(tmp_path: Path) -> None:
    rows = [
        {"request_id": 7, "user_id": 1, "prompt": " p ", "response": "s", "tags": ["x"], "note": None},
        {"user_id": 1, "prompt": "p", "response": "t", "request_id": 8, "price": 0.5},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes: list[str] = []
    asked = read_score_rows(path, notes.append)
    assert notes == [
        "1 values of column 'prompt' were put into the one spelling of texts, such as ' p ' into 'p'; 1 thereby became "
        "the same as others."
    ]
    write_scores(tmp_path / "out.jsonl", asked, np.array([1.0, 2.0]), {"1"})
    del rows[0]["note"]
    known = {"user_known": True}
    assert lines_of(tmp_path / "out.jsonl") == [rows[0] | {"reward": 1.0} | known, rows[1] | {"reward": 2.0} | known]
    write_scores(tmp_path / "out.csv", asked, np.array([1.0, 2.0]), {"1"})
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [(row["request_id"], row["user_id"], row["tags"], row["price"]) for row in written] == [
        ("7", "1", '["x"]', ""), ("8", "1", "", "0.5")
    ]  # fmt: skip


def test_types_of_parquet_come_out_again(tmp_path: Path) -> None:
    rows = [
        {"user_id": "a", "prompt": CHAT, "response": "s", "day": datetime.date(2024, 1, 2), "price": 0.5, "n": None},
        {"user_id": "b", "prompt": CHAT, "response": "t", "day": None, "price": None, "n": 3},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    asked = read_score_rows(tmp_path / "rows.parquet", never)
    write_scores(tmp_path / "out.parquet", asked, np.array([1.0, 2.0]), {"a", "b"})
    added = [{"reward": 1.0, "user_known": True}, {"reward": 2.0, "user_known": True}]
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [a | b for a, b in zip(rows, added, strict=True)]


def test_scores_of_scored_rows_replace_the_old_ones(tmp_path: Path) -> None:
    asked = rows_in(tmp_path / "rows.jsonl", ROWS)
    write_scores(tmp_path / "out.jsonl", asked, np.zeros(3), {"a"})
    notes: list[str] = []
    again = read_score_rows(tmp_path / "out.jsonl", notes.append)
    assert notes == ["Column 'reward' of the rows is replaced.", "Column 'user_known' of the rows is replaced."]
    write_scores(tmp_path / "again.jsonl", again, np.ones(3), {"a"})
    assert [row["reward"] for row in lines_of(tmp_path / "again.jsonl")] == [1.0, 1.0, 1.0]


def test_unknown_users_are_named_with_the_first_row_that_asks(tmp_path: Path) -> None:
    asked = rows_in(tmp_path / "rows.jsonl", ROWS)
    require_known(asked, {"a", "b"})
    with pytest.raises(DataError, match="line 2: unknown user 'b'"):
        require_known(asked, {"a"})


def test_an_ending_that_scores_cannot_be_written_in() -> None:
    for name, fault in (("out.txt", r"unknown kind of file '\.txt'"), ("out", "its name has no ending")):
        with pytest.raises(DataError, match=fault):
            check_score_target(Path(name))


@pytest.mark.parametrize(
    "name", ["run.json", "log.jsonl", "learnt.safetensors", "graph/embeddings.safetensors", "graph/new.jsonl"]
)
def test_files_of_a_run_are_not_written_over(tmp_path: Path, small_run: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"belongs to .*, which would be damaged; choose another file"):
        check_target(small_run / name)
    check_target(small_run / "scores.jsonl")
    (tmp_path / "run.json").write_text("{}")
    check_target(tmp_path / "deeper" / "run.json")


def test_no_device_and_no_pipe_is_put_out_of_its_place(tmp_path: Path) -> None:
    pipe = tmp_path / "out.jsonl"
    os.mkfifo(pipe)
    for target in (Path("/dev/null"), pipe):
        with pytest.raises(DataError, match="is no ordinary file"):
            check_target(target)


def test_files_of_a_data_set_are_not_written_over(small_data: Path) -> None:
    with pytest.raises(DataError, match="belongs to"):
        check_score_target(small_data / "comparisons.parquet")
    check_score_target(small_data / "scores.parquet")


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("")
    (tmp_path / "link.jsonl").symlink_to(rows)
    for target in (rows, tmp_path / "link.jsonl", tmp_path / "." / "rows.jsonl"):
        with pytest.raises(DataError, match=r"is what is read; choose another file for the output"):
            check_score_target(target, tmp_path / "other", rows)
    check_score_target(tmp_path / "new.jsonl", rows)


@pytest.mark.parametrize("user", [7, np.int64(7), "7", " 7\u00a0"])
def test_arguments_are_read_as_rows_are(tmp_path: Path, user: object) -> None:
    row = {"user_id": 7, "prompt": [{"role": "user", "content": "Cafe\u0301?"}], "response": "Oui.\r\n"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    read = read_score_rows(path, lambda note: None).requests
    asked = score_request(user, "Café?\u200b", ["\u00a0Oui."])
    assert asked.users.ids == read.users.ids == ("7",)
    assert asked.responses.keys == read.responses.keys


def test_a_text_is_no_list_of_texts() -> None:
    with pytest.raises(DataError, match="responses: one text where a list of texts belongs"):
        score_request("u", "p", "Hot pan.")


def test_columns_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("account,prompt,answer,user_id\nann,p,a,1\nben,p,b,2\n")
    named = {"user_id": "account", "response": "answer"}
    asked = read_score_rows(tmp_path / "rows.csv", never, named)
    assert (asked.requests.users.ids, asked.requests.responses.texts) == (("ann", "ben"), ("a", "b"))
    write_scores(tmp_path / "out.csv", asked, np.array([1.0, 2.0]), {"ann"})
    assert (tmp_path / "out.csv").read_text().startswith('"account","prompt","answer","user_id","reward"')
    with pytest.raises(DataError, match=r"no column 'response'; it has .* name it with columns=response=\.\.\.$"):
        read_score_rows(tmp_path / "rows.csv", never, {})
    (tmp_path / "said.csv").write_text("account,prompt,answer,mark\nann,p,a,up\nann,p,b,down\n")
    said = read_support(tmp_path / "said.csv", never, {**named, "thumb": "mark"})
    assert (said.users.ids, said.judgements.value.tolist()) == (("ann",), [1.0, -1.0])
    with pytest.raises(DataError, match=r"no column 'marks' .did you mean 'mark'"):
        read_support(tmp_path / "said.csv", never, {**named, "thumb": "mark", "timestamp": "marks"})


def test_all_that_is_wrong_with_arguments_is_said_at_once() -> None:
    responses: Any = ["", 3, "a\0"]
    with pytest.raises(DataError) as caught:
        score_request(1.5, [], responses)
    assert caught.value.faults == (
        "score: user: expected text or a whole number, got 1.5",
        "score: prompt: the list of messages is empty",
        "score: response 1: empty text",
        "score: response 2: expected text, got a number",
        "score: response 3: the text holds a NUL byte; remove it",
    )


def test_questions_are_pairs_of_different_responses() -> None:
    pairs = question_pairs("u", [("p", "a ", "b"), (tuple(CHAT), "c", "d")])
    assert (pairs.responses.prompts, pairs.responses.texts) == (("p", "p", "Why?", "Why?"), ("a", "b", "c", "d"))
    with pytest.raises(DataError) as caught:
        question_pairs("u", [("p", "a", "a\u200b"), ("p", "a"), "pab", ("p", None, "b")])
    assert caught.value.faults == (
        "candidates: candidate 1: the same response twice; a question needs two different responses",
        "candidates: candidate 2: expected a prompt and two responses",
        "candidates: candidate 3: expected a prompt and two responses",
        "candidates: candidate 4: response: expected text, got nothing",
    )
    with pytest.raises(DataError, match="no candidates to choose a question from"):
        question_pairs("u", [])


def test_what_was_not_read_of_support_and_candidates_is_said(tmp_path: Path) -> None:
    row = {"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b", "wieght": 2}
    (tmp_path / "s.jsonl").write_text(json.dumps(row))
    (tmp_path / "c.jsonl").write_text(json.dumps({"prompt": "p", "first": "a", "second": "b", "topic": "t"}))
    notes: list[str] = []
    read_support(tmp_path / "s.jsonl", notes.append)
    assert read_candidates(tmp_path / "c.jsonl", notes.append) == [("p", "a", "b")]
    assert notes == [
        "Column 'wieght' is not part of the row schema and was not read (did you mean 'weight'?).",
        "Column 'topic' is not part of the row schema and was not read.",
    ]
