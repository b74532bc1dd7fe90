from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from copl.data.chat import decode_prompt
from copl.data.reading.rows import read_comparison_rows
from copl.data.requests import read_support
from copl.data.sources.tables import COMPONENTS, TableOptions, TableSource
from copl.errors import DataError
from copl.records import SPLITS, PreferenceData
from tests.data.sources.exports import notes as notes_of

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def row(user: Any = "u", prompt: Any = "p", chosen: Any = "good", rejected: Any = "bad", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def load(path: Path, source: str = "jsonl", **options: Any) -> PreferenceData:
    return TableSource(source, TableOptions(path=path, **options)).load(seed=0)


def faults(path: Path, source: str = "jsonl", **options: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        load(path, source, **options)
    return [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]


def triples(data: PreferenceData) -> list[tuple[str, str, str, str, str]]:
    table, found = data.responses, []
    for name in data.present():
        part = data.splits[name]
        for user, chosen, rejected in zip(
            part.user.tolist(), part.chosen.tolist(), part.rejected.tolist(), strict=True
        ):
            assert table.prompts[chosen] == table.prompts[rejected]
            found.append(
                (name, data.users.ids[user], table.prompts[chosen], table.texts[chosen], table.texts[rejected])
            )
    return sorted(found)


GIVEN = [
    row("1", "p", "a", "b", split="train", group="g", controversial=True, weight=2.5),
    row("1", "p", "b", "c", split="test", group="g"),
    row("2", "q", "a", "c", split="support", controversial=0),
    row("2", "q", "c", "d", split="heldout"),
]
EXPECTED = [
    ("heldout", "2", "q", "c", "d"),
    ("support", "2", "q", "a", "c"),
    ("test", "1", "p", "b", "c"),
    ("train", "1", "p", "a", "b"),
]


def assert_given(data: PreferenceData) -> None:
    assert triples(data) == EXPECTED
    assert data.users.groups == ("g", None)
    assert data.splits["train"].weight.tolist() == [2.5]
    assert data.splits["test"].weight.tolist() == [1.0]
    marks = {name: data.splits[name].controversial.tolist() for name in data.present()}
    assert marks == {"train": [1], "test": [-1], "support": [0], "heldout": [-1]}


def test_the_three_formats_say_the_same(tmp_path: Path) -> None:
    assert_given(load(jsonl(tmp_path / "a.jsonl", GIVEN)))
    names = list(GIVEN[0])
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(GIVEN)
    assert_given(load(tmp_path / "a.csv", "csv"))
    pq.write_table(
        pa.Table.from_pylist(
            [
                {n: int(r["user_id"]) if n == "user_id" else r.get(n) for n in names}
                | {"controversial": None if r.get("controversial") is None else bool(r["controversial"])}
                for r in GIVEN
            ]
        ),
        tmp_path / "a.parquet",
    )
    assert_given(load(tmp_path / "a.parquet", "parquet"))


def test_chat_messages_and_a_response_as_one_message(tmp_path: Path) -> None:
    answer = [{"role": "assistant", "content": "Because."}]
    rows = [row(prompt=CHAT, chosen=answer, split="train"), row(prompt="plain", split="train")]
    data = load(jsonl(tmp_path / "a.jsonl", rows))
    texts = {
        text: decode_prompt(prompt) for prompt, text in zip(data.responses.prompts, data.responses.texts, strict=True)
    }
    assert texts["Because."] == CHAT
    assert texts["good"] == "plain"
    pq.write_table(
        pa.Table.from_pylist([row(prompt=CHAT, chosen=answer, rejected=[{**answer[0], "content": "No."}])]),
        tmp_path / "a.parquet",
    )
    found = read_support(tmp_path / "a.parquet", print).responses
    assert (decode_prompt(found.prompts[0]), found.texts) == (CHAT, ("Because.", "No."))


def test_chat_messages_in_csv_are_json(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'user_id,prompt,chosen,rejected\n1,"[{""content"": ""Why?"", ""role"": ""system""}]",a,b\n2,[1] Why?,a,b\n'
    )
    prompts = read_support(tmp_path / "a.csv", print).responses.prompts
    assert [decode_prompt(prompt) for prompt in dict.fromkeys(prompts)] == [
        [{"role": "system", "content": "Why?"}],
        "[1] Why?",
    ]


def test_splits_are_made_where_none_are_given(tmp_path: Path) -> None:
    rows = [row(u, f"p{p}", f"a{(p + u) % 2}", f"a{(p + u + 1) % 2}") for u in range(20) for p in range(40)]
    data = load(jsonl(tmp_path / "a.jsonl", rows), unseen_fraction=0.2, support=3)
    assert set(data.present()) == set(SPLITS)
    assert set(np.bincount(data.splits["support"].user).tolist()) == {0, 3}
    assert data.provenance["split"] == "pair"
    assert data.provenance["counts"]["rows"] == 800
    other = load(jsonl(tmp_path / "b.jsonl", rows), unseen_fraction=0.2, support=3)
    assert triples(data) == triples(other)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (row(chosen=["good"]), "chosen: a list where text belongs"),
        (row(rejected=[]), "rejected: a list where text belongs"),
        (row(chosen=3), "chosen: expected text, got a number"),
        (row(chosen={"text": "a"}), "chosen: expected text, got an object"),
        (row(chosen=None), "chosen: missing"),
        (row(chosen=[{"role": "user", "content": "a"}]), "chosen: a message of role 'user'"),
        (row(chosen=[*CHAT]), "chosen: a list of 2 messages"),
        (row(chosen=" \n"), "chosen: empty text"),
        (row(prompt=""), "prompt: empty text"),
        (row(prompt=["a"]), "prompt: message 1 is str"),
        (row(prompt=3), "prompt: expected text or chat messages, got a number"),
        (row(rejected="good"), "chosen: chosen and rejected are the same text"),
        (row(rejected="b\0d"), "rejected: the text holds a NUL byte"),
        (row(rejected="\ud800"), "rejected: the text holds half of a surrogate pair"),
        (row(user=1.5), "user_id: expected text or a whole number, got 1.5"),
        (row(user=True), "user_id: expected text or a whole number, got a truth value"),
        (row(user=""), "user_id: empty text"),
        (row(weight=0), "weight: a weight must be positive and finite, got 0"),
        (row(weight="heavy"), "weight: expected a number, got 'heavy'"),
        (row(weight=True), "weight: expected a number, got True"),
        (row(controversial="maybe"), "controversial: expected 1, 0 or nothing, got 'maybe'"),
        (row(controversial=[1]), "controversial: expected 1, 0 or nothing"),
        (row(group=["g"]), "group: expected text or a whole number, got a list"),
        (row(split="tset"), "split: unknown split 'tset' (did you mean 'test'?)"),
    ],
)
def test_a_wrong_value_is_one_fault_naming_row_and_column(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    right = row("v", "q", **({"split": "train"} if "split" in wrong else {}))
    found = faults(jsonl(tmp_path / "a.jsonl", [right, wrong, right]))
    assert len(found) == 1
    assert found[0].startswith(f"line 2: {message}")


def test_faults_of_all_rows_come_together(tmp_path: Path) -> None:
    rows = [row(chosen=["x"])] * 30 + [row(rejected="")] * 5
    found = faults(jsonl(tmp_path / "a.jsonl", rows))
    assert len(found) == 21
    assert found[-1] == "and 15 more faults"


def test_missing_columns(tmp_path: Path) -> None:
    rows = [{"userid": 1, "prompt": "p", "chosen": "a", "rejects": "b"}]
    assert faults(jsonl(tmp_path / "a.jsonl", rows)) == [
        "no column 'user_id' (did you mean 'userid'?); it has userid, prompt, chosen, rejects; "
        "if one of these is meant, name it with columns=user_id=...",
        "no column 'rejected' (did you mean 'rejects'?); it has userid, prompt, chosen, rejects; "
        "if one of these is meant, name it with columns=rejected=...",
    ]
    data = load(tmp_path / "a.jsonl", columns={"user_id": "userid", "rejected": "rejects"})
    assert triples(data) == [("train", "1", "p", "a", "b")]
    found = faults(tmp_path / "a.jsonl", columns={"user": "userid", "user_id": "usrid", "rejected": "rejects"})
    assert found[0].startswith("option columns: 'user' is no column of the schema (did you mean 'user_id'?)")
    assert found[1].startswith("no column 'usrid' (did you mean 'userid'?)")
    twice = {"user_id": "userid", "prompt": "userid", "rejected": "rejects"}
    assert faults(tmp_path / "a.jsonl", columns=twice) == [
        "option columns: 'userid' is said to be user_id and prompt; name one for each"
    ]


def test_a_column_that_another_is_read_for_is_told(tmp_path: Path) -> None:
    rows = [{**row(), "first": "x", "second": "y"}]
    data = load(jsonl(tmp_path / "a.jsonl", rows), columns={"chosen": "first", "rejected": "second"})
    assert triples(data) == [("train", "u", "p", "x", "y")]
    assert data.provenance["notes"][:2] == [
        "Column 'chosen' was not read: 'first' is read in its place.",
        "Column 'rejected' was not read: 'second' is read in its place.",
    ]


def test_a_file_without_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,prompt,chosen,rejected\n")
    assert faults(tmp_path / "a.csv", "csv") == ["there are no rows"]


def test_columns_that_are_not_read_are_noted(tmp_path: Path) -> None:
    data = load(jsonl(tmp_path / "a.jsonl", [row(controversal=1)]))
    assert data.provenance["notes"] == [
        "Column 'controversal' is not part of the row schema and was not read (did you mean 'controversial'?).",
    ]


def test_a_user_has_one_group_and_is_seen_or_unseen(tmp_path: Path) -> None:
    rows = [row(group="g"), row(prompt="q", group=None), row(prompt="r", group="h")]
    assert faults(jsonl(tmp_path / "a.jsonl", rows)) == [
        "line 3: group: user 'u' is in group 'h' here and in 'g' before"
    ]
    rows = [row(split="train"), row(prompt="q", split="support")]
    assert faults(jsonl(tmp_path / "a.jsonl", rows)) == [
        "line 2: split: user 'u' is unseen (support) here but also in train"
    ]
    rows = [row(split="train"), row(prompt="q")]
    assert faults(jsonl(tmp_path / "a.jsonl", rows))[0].startswith("line 2: split: empty")


REPEATED = [row(), row(), row(chosen="bad", rejected="good"), row("v")]


def test_duplicates_and_contradictions_by_policy(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{**r, "split": "train"} for r in REPEATED])
    again = "line 2: user 'u' says again what line 1 says; remove one, or set duplicates=drop (or keep)"
    against = "line 3: user 'u' contradicts line 1; remove one, or set contradictions=keep (or drop)"
    assert faults(path) == [again, against]
    assert faults(path, contradictions="keep") == [again]
    data = load(path, duplicates="drop", contradictions="keep")
    assert len(data.splits["train"]) == 3
    assert data.provenance["counts"] == {"rows": 4, "duplicates": 1, "contradictions": 3, "kept": 3}
    assert len(load(path, duplicates="keep", contradictions="keep").splits["train"]) == 4
    only_one = load(path, duplicates="drop", contradictions="drop")
    assert triples(only_one) == [("train", "v", "p", "good", "bad")]


def test_where_all_is_left_out_nothing_is_made(tmp_path: Path) -> None:
    rows = [row for row in REPEATED if row["user_id"] == "u"]
    path = jsonl(tmp_path / "a.jsonl", rows)
    assert faults(path, duplicates="drop", contradictions="drop") == ["no comparison is left: 3 contradict others"]


def test_rows_given_as_objects() -> None:
    found = read_comparison_rows([row("n", CHAT, "a", "b"), row("n", "q", "b", "c", split="anything")][:1])
    assert found.users.ids == ("n",)
    assert [found.responses.texts[int(found.comparisons.chosen[0])], len(found)] == ["a", 1]
    with pytest.raises(DataError, match="rows: row 2: chosen: a list where text belongs"):
        read_comparison_rows([row(), row(chosen=["a"])])


def test_a_file_of_unknown_kind(tmp_path: Path) -> None:
    for name, fault in (
        ("a.txt", "unknown kind of file '.txt'"),
        ("votes", "its name has no ending"),
        ("a.", "no ending"),
    ):
        (tmp_path / name).write_text("x")
        with pytest.raises(DataError, match=fault):
            read_support(tmp_path / name, print)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_compressed_file_is_the_file(tmp_path: Path, kind: str) -> None:
    plain = tmp_path / f"votes.{kind}"
    if kind == "jsonl":
        jsonl(plain, GIVEN)
    else:
        plain.write_text("user_id,prompt,chosen,rejected\nu,p,good,bad\n", encoding="utf-8")
    packed = plain.with_name(f"{plain.name}.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    whole, same = load(plain, kind), load(packed, kind)
    assert triples(same) == triples(whole)
    assert same.name == whole.name
    assert read_support(packed, print).responses.keys == read_support(plain, print).responses.keys


def test_compressed_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown kind of file '.parquet.gz'"):
        read_support(jsonl(tmp_path / "a.parquet.gz", [row()]), print)


def test_the_sources_are_offered_by_name(tmp_path: Path) -> None:
    assert [component.name for component in COMPONENTS] == ["jsonl", "csv", "parquet"]
    path = jsonl(tmp_path / "a.jsonl", [row()])
    assert triples(COMPONENTS[0].build(TableOptions(path=path)).load(seed=0)) == [("train", "u", "p", "good", "bad")]


def times_of(path: Path, values: list[Any]) -> list[float]:
    rows = [row(prompt=f"p{n}", split="train", timestamp=value) for n, value in enumerate(values)]
    times: list[float] = load(jsonl(path, rows)).splits["train"].time.tolist()
    return times


@pytest.mark.parametrize(
    ("values", "times"),
    [
        (["1970-01-01T00:00:10Z", "1970-01-01T01:00:10+01:00", None, " "], [10.0, 10.0, np.nan, np.nan]),
        ([1_700_000_000, "1700000000.5", ""], [1.7e9, 1.7e9 + 0.5, np.nan]),
        ([1_700_000_000_000, "1700000000500"], [1.7e9, 1.7e9 + 0.5]),
    ],
)
def test_times_are_read(tmp_path: Path, values: list[Any], times: list[float]) -> None:
    assert np.array_equal(times_of(tmp_path / "a.jsonl", values), times, equal_nan=True)


def test_times_that_are_none(tmp_path: Path) -> None:
    values = ["2026-01-31T10:00:00", "2026-01-31", "yesterday", True, -5, 1e15, "2026-13-01T00:00:00Z", [1]]
    rows = [row(prompt=f"p{n}", timestamp=value) for n, value in enumerate(values)]
    path = jsonl(tmp_path / "a.jsonl", rows)
    expected = "expected a time such as 2026-01-31T09:30:00Z"
    assert faults(path) == [
        "line 1: timestamp: a time without its zone, 2026-01-31 10:00:00; write Z or +02:00 at its end",
        "line 2: timestamp: a time without its zone, 2026-01-31 00:00:00; write Z or +02:00 at its end",
        f"line 3: timestamp: {expected} or in seconds since 1970, got 'yesterday'",
        f"line 4: timestamp: {expected} or in seconds since 1970, got True",
        "line 5: timestamp: -5 is no time in seconds or milliseconds since 1970",
        "line 6: timestamp: 1000000000000000.0 is no time in seconds or milliseconds since 1970",
        f"line 7: timestamp: {expected}, got '2026-13-01T00:00:00Z'",
        f"line 8: timestamp: {expected} or in seconds since 1970, got [1]",
    ]


def test_a_day_written_as_a_number_is_no_time_in_1970(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [row(timestamp=20260131), row(prompt="q", timestamp="20260228")])
    day = "is a day without a time; write a time such as 2026-01-31T09:30:00Z"
    assert faults(path) == [f"line 1: timestamp: 20260131 {day}", f"line 2: timestamp: '20260228' {day}"]
    assert times_of(path, [20261301, 20260131.5]) == [20261301.0, 20260131.5]


def test_times_written_in_two_ways_are_a_fault(tmp_path: Path) -> None:
    values = [1_700_000_000, 1_700_000_000_000, "2026-01-31T10:00:00Z", 5]
    path = jsonl(tmp_path / "a.jsonl", [row(prompt=f"p{n}", timestamp=value) for n, value in enumerate(values)])
    assert faults(path) == [
        "line 2: timestamp: milliseconds here, seconds before; write times in one way throughout",
        "line 3: timestamp: a date with its time zone here, seconds before; write times in one way throughout",
    ]


def test_times_of_parquet_are_read(tmp_path: Path) -> None:
    times = pa.array([10_000_000_000, None], pa.int64()).cast(pa.timestamp("ns", "UTC"))
    names = {name: pa.array(["p", "q"]) for name in ("user_id", "prompt")}
    table = {**names, "chosen": pa.array(["a", "a"]), "rejected": pa.array(["b", "b"]), "timestamp": times}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    data = load(tmp_path / "a.parquet", "parquet", unseen_fraction=0.0, cold_fraction=0.0)
    assert data.splits["train"].time[0] == 10.0


def test_a_change_of_mind_that_has_a_time_is_no_contradiction(tmp_path: Path) -> None:
    rows = [row(timestamp=1), row(chosen="bad", rejected="good", timestamp=2), row(timestamp=2, prompt="q")]
    data = load(jsonl(tmp_path / "a.jsonl", rows), unseen_fraction=0.0)
    assert ("train", "u", "p", "bad", "good") in triples(data)
    assert not any(said[3:] == ("good", "bad") and said[2] == "p" for said in triples(data))
    assert "1 comparisons were left out: the same user decided again at a later time." in notes_of(data)
    both = load(jsonl(tmp_path / "a.jsonl", rows), unseen_fraction=0.0, contradictions="keep")
    assert len(triples(both)) == 3
    at_once = [row(timestamp=2), row(chosen="bad", rejected="good", timestamp=2)]
    assert "contradicts line 1" in faults(jsonl(tmp_path / "b.jsonl", at_once))[0]
    timeless = [row(timestamp=2), row(chosen="bad", rejected="good")]
    assert "contradicts line 1" in faults(jsonl(tmp_path / "b.jsonl", timeless))[0]


def test_a_split_by_time_needs_times(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [row(prompt=f"p{n}", timestamp=n if n != 3 else None) for n in range(10)])
    assert faults(path, strategy="time") == ["line 4: timestamp: missing; strategy=time needs the time of every row"]
