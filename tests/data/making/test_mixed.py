"""Own files with rows of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from copl.data.reading.rows import read_comparison_rows
from copl.data.requests import read_support
from copl.data.sources.tables import TableOptions, TableSource
from copl.errors import DataError
from copl.plugins import load
from copl.records import Comparisons, PreferenceData
from copl.records.judgements import KINDS
from tests.data.sources.exports import notes as notes_of

PLAIN = {"unseen_fraction": 0.0, "cold_fraction": 0.0, "test_fraction": 0.0, "validation_fraction": 0.0}
ROWS: list[dict[str, Any]] = [
    {"chosen": "a", "rejected": "b"},
    {"response_a": "a", "response_b": "c", "winner": "model_b"},
    {"response_a": "a", "response_b": "d", "winner": "tie"},
    {"response_a": "a", "response_b": "e", "winner": "tie (bothbad)"},
    {"response": "a", "thumb": "up", "timestamp": "2026-01-31T10:00:00Z"},
    {"completion": "b", "label": False, "weight": 2},
    {"response": "b", "rating": 3.5},
    {"responses": ["a", "b", "c"], "ranking": [1, 2, 2]},
]


def rows_of(*users: str) -> list[dict[str, Any]]:
    return [{"user_id": user, "prompt": f"question {n}", **row} for user in users for n, row in enumerate(ROWS)]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(path: Path, source: str = "jsonl", **options: Any) -> PreferenceData:
    return TableSource(source, TableOptions(path=path, **{**PLAIN, **options})).load(seed=0)


def faults(path: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        made(path)
    return [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]


def said(data: PreferenceData) -> set[tuple[Any, ...]]:
    texts, judged = data.responses.texts, data.judgements["train"]
    part = data.splits.get("train", Comparisons.empty())
    heard: set[tuple[Any, ...]] = {
        ("choice", texts[chosen], texts[rejected], round(weight, 3))
        for chosen, rejected, weight in zip(
            part.chosen.tolist(), part.rejected.tolist(), part.weight.tolist(), strict=True
        )
    }
    for row in range(len(judged)):
        ends = [texts[end] for end in (judged.response[row], judged.other[row]) if end >= 0]
        heard.add((list(KINDS)[judged.kind[row]], *ends, float(judged.value[row]), round(float(judged.weight[row]), 3)))
    return heard


def test_rows_of_every_kind_in_one_file(tmp_path: Path) -> None:
    data = made(written(tmp_path / "r.jsonl", rows_of("ann")))
    assert said(data) == {
        ("choice", "a", "b", 1.0),
        ("choice", "c", "a", 1.0),
        ("tie", "a", "d", 0.0, 1.0),
        ("both_bad", "a", "e", 0.0, 1.0),
        ("thumb", "a", 1.0, 1.0),
        ("thumb", "b", -1.0, 2.0),
        ("rating", "b", 3.5, 1.0),
        ("choice", "a", "b", 0.778),
        ("choice", "a", "c", 0.778),
        ("tie", "b", "c", 0.0, 0.778),
    }
    assert data.provenance["counts"]["tie"] == 2
    assert data.name == "r"


def test_a_table_of_empty_cells_is_read_alike(tmp_path: Path) -> None:
    header = "user_id,prompt,chosen,rejected,response_a,response_b,winner,response,thumb,rating,responses,ranking\n"
    lines = [
        "ann,q0,a,b,,,,,,,,",
        "ann,q1,,,a,c,b,,,,,",
        "ann,q2,,,,,,a,1,,,",
        "ann,q3,,,,,,b,,4,,",
        'ann,q4,,,,,,,,,"[""a"",""b""]","[2,1]"',
    ]
    (tmp_path / "r.csv").write_text(header + "\n".join(lines) + "\n")
    assert said(made(tmp_path / "r.csv", "csv")) == {
        ("choice", "a", "b", 1.0), ("choice", "c", "a", 1.0), ("thumb", "a", 1.0, 1.0), ("rating", "b", 4.0, 1.0),
        ("choice", "b", "a", 1.0),
    }  # fmt: skip


def test_what_0_says_follows_from_its_own_column(tmp_path: Path) -> None:
    said = [{"completion": "a", "label": 0}, {"completion": "b", "label": 1}, {"response": "c", "thumb": -1},
            {"response": "d", "thumb": 0}]  # fmt: skip
    data = made(written(tmp_path / "r.jsonl", [{"user_id": "u", "prompt": "p", **row} for row in said]))
    texts, judged = data.responses.texts, data.judgements["train"]
    values = {texts[row]: value for row, value in zip(judged.response.tolist(), judged.value.tolist(), strict=True)}
    assert values == {"a": -1.0, "b": 1.0, "c": -1.0}
    assert notes_of(data) == [
        "1 values of column 'label' are 0 and were read as down, since none is -1.",
        "1 rows were left out: without a thumb.",
    ]


def test_wrong_rows_are_a_line_each(tmp_path: Path) -> None:
    base = {"user_id": "u", "prompt": "p"}
    rows = [
        {**base, "response": "a", "thumb": "up", "rating": 3},
        {**base, "response": "a"},
        {**base, "response_a": "a", "response_b": "a", "winner": "tie"},
        {**base, "response_a": "a", "response_b": "b", "winner": "c"},
        {**base, "rating": 3},
        {**base, "response": "a", "rating": "many"},
        {**base, "responses": ["a", "b"], "ranking": [1]},
        {**base, "responses": ["a", "b"], "ranking": [1, 2, 3]},
        {**base, "responses": ["a", "a"], "ranking": [1, 2]},
        {"prompt": "p", "response": "a", "thumb": "up"},
        {**base, "response": "a", "thumb": "up", "timestamp": 5},
        {**base, "response": "a", "thumb": "up", "timestamp": "2026-01-31T10:00:00Z"},
        {**base, "chosen": "a"},
    ]
    needed = "a row has chosen and rejected, or one of winner, thumb, rating and ranking"
    assert faults(written(tmp_path / "r.jsonl", rows)) == [
        f"line 1: says several things at once: thumb, rating; {needed}",
        f"line 2: says nothing; {needed}",
        "line 3: response_a and response_b are the same text; two different responses are needed",
        "line 4: winner: expected a, b, tie or both_bad, got 'c'",
        "line 5: response: missing",
        "line 6: rating: expected a number, got 'many'",
        "line 7: ranking: expected a list of two or more, got [1]",
        "line 8: ranking: 3 ranks of 2 responses",
        "line 9: responses: the same text twice",
        "line 10: user_id: missing",
        "line 12: timestamp: a date with its time zone here, seconds before; write times in one way throughout",
        f"line 13: says nothing; {needed}",
    ]


def test_a_split_may_be_given(tmp_path: Path) -> None:
    rows = [{**row, "split": "train"} for row in rows_of("ann")]
    rows += [{"user_id": "ann", "prompt": "p", "response": f"r{n}", "thumb": n, "split": "test"} for n in (0, 1)]
    rows += [
        {"user_id": "ann", "prompt": "p", "response_a": "r0", "response_b": "r1", "winner": "tie", "split": "test"}
    ]
    data = made(written(tmp_path / "r.jsonl", rows))
    assert len(data.splits["test"]) == 1
    assert "1 rows were left out: ties in a split that is judged by." in notes_of(data)
    rows[0].pop("split")
    with pytest.raises(DataError, match="some rows name a split and some do not"):
        made(written(tmp_path / "r.jsonl", rows))
    mixed = [{**rows[1], "split": "support"}, {**rows[2], "split": "train"}]
    with pytest.raises(DataError, match="'ann' is both seen and unseen"):
        made(written(tmp_path / "r.jsonl", mixed))


def test_comparisons_with_other_columns_stay_comparisons(tmp_path: Path) -> None:
    rows = [{"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b", "rating": 5}]
    data = made(written(tmp_path / "r.jsonl", rows))
    assert (len(data.splits["train"]), dict(data.judgements)) == (1, {})
    assert any("'rating' is not part of the row schema" in note for note in data.provenance["notes"])


def test_a_header_alone_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("user_id,prompt,response,thumb\n")
    with pytest.raises(DataError, match="there are no rows"):
        made(path, "csv")
    with pytest.raises(DataError, match="there are no rows"):
        read_support(path, print)


def test_newcomers_may_say_anything(tmp_path: Path) -> None:
    support = read_support(written(tmp_path / "s.jsonl", rows_of("new", "newer")), print)
    assert support.users.ids == ("new", "newer")
    assert support.num_given == 2 * 4
    assert len(support) > 8
    assert len(support.judgements) == 2 * 6
    same = read_comparison_rows(rows_of("new", "newer"))
    assert same.comparisons.chosen.tolist() == support.comparisons.chosen.tolist()


def test_a_zero_is_no_thumb_where_a_table_writes_minus_one_for_down(tmp_path: Path) -> None:
    rows = [
        {"user_id": "u", "prompt": "p", "response": text, "thumb": mark}
        for text, mark in zip("abc", (1, 0, -1), strict=True)
    ]
    data = made(written(tmp_path / "r.jsonl", rows))
    assert said(data) == {("thumb", "a", 1.0, 1.0), ("thumb", "c", -1.0, 1.0)}
    assert "1 rows were left out: without a thumb." in notes_of(data)
    same = load().registry("source").create("thumbs", {"path": str(tmp_path / "r.jsonl"), **PLAIN}).load(seed=0)
    assert said(same) == said(data)
    assert said(made(written(tmp_path / "r.jsonl", rows[:2]))) == {("thumb", "a", 1.0, 1.0), ("thumb", "b", -1.0, 1.0)}


def test_cells_that_a_row_does_not_say_anything_by_are_counted(tmp_path: Path) -> None:
    thumb = {"user_id": "u", "prompt": "p", "response": "a", "thumb": 1}
    rows = [thumb, {"user_id": "u", "prompt": "p", "chosen": "a", "rejected": "b", "thumb": -1}]
    data = made(written(tmp_path / "r.jsonl", rows))
    assert "1 values of column 'thumb' were not read: their rows say something else." in data.provenance["notes"]


def test_what_a_newcomer_says_again_is_counted_and_the_last_counts(tmp_path: Path) -> None:
    """Whether a thumb stands beside it or not."""
    decided = [("a", "b", 20), ("b", "a", 10)]
    rows = [{"user_id": "u", "prompt": "p", "chosen": c, "rejected": r, "timestamp": t} for c, r, t in decided]
    thumb = {"user_id": "u", "prompt": "q", "response": "c", "thumb": "up", "timestamp": 5}
    for more in ([], [thumb]):
        notes: list[str] = []
        support = read_support(written(tmp_path / "s.jsonl", [*rows, *more]), notes.append)
        given = support.given
        assert [support.responses.texts[end[0]] for end in (given.chosen, given.rejected)] == ["a", "b"]
        assert notes == ["1 rows were left out: said again later by the same user of the same."]
        same = read_comparison_rows([*rows, *more]).given
        assert (len(same), same.chosen.tolist()) == (1, given.chosen.tolist())


@pytest.mark.parametrize("kind", [{"chosen": "a", "rejected": "b"}, {"response": "a", "thumb": 1}])
@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ({"weight": float("nan")}, "weight: a weight must be positive and finite, got nan"),
        (
            {"timestamp": "0001-01-01T00:00:00+14:00"},
            "timestamp: '0001-01-01 00:00:00+14:00' is no time from 1970 to 2096",
        ),
        (
            {"timestamp": "1969-12-31T23:59:59Z"},
            "timestamp: '1969-12-31 23:59:59+00:00' is no time from 1970 to 2096",
        ),
        (
            {"timestamp": "9999-12-31T23:59:59-12:00"},
            "timestamp: '9999-12-31 23:59:59-12:00' is no time from 1970 to 2096",
        ),
    ],
)
def test_a_wrong_cell_is_the_same_fault_in_rows_of_every_kind(
    kind: dict[str, Any], cell: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.jsonl"
    assert faults(written(path, [{"user_id": "u", "prompt": "p", **kind, **cell}])) == [f"line 1: {fault}"]


def test_ids_are_written_in_one_way_and_what_is_respelt_is_said(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    rows: list[dict[str, Any]] = [
        {"user_id": user, "prompt": "p", "response": text, "thumb": up}
        for user, text, up in (("a  b", "x", 1), ("a b", "y", 0), (7, "x", 1))
    ]
    assert faults(written(path, rows)) == [
        "line 3: user_id: a number here, text before; write ids in one way throughout"
    ]
    data = made(written(path, rows[:2]))
    assert data.users.ids == ("a b",)
    note = "1 values of column 'user_id' were put into the one spelling of texts, such as 'a  b' into 'a b'."
    assert note in data.provenance["notes"]


def test_a_zero_beside_words_is_down_by_every_way(tmp_path: Path) -> None:
    rows = [
        {"user_id": "u", "prompt": "p", "response": t, "thumb": v} for t, v in (("a", 0), ("b", "down"), ("c", "up"))
    ]
    by_rows = made(written(tmp_path / "r.jsonl", rows))
    by_source = load().registry("source").create("thumbs", {"path": str(tmp_path / "r.jsonl"), **PLAIN}).load(seed=0)
    assert said(by_rows) == said(by_source)
    assert len(said(by_rows)) == 3
