"""Sources ``ratings`` and ``votes``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copl.data.sources.opinion_tables import OpinionTableSource, RatingOptions, VoteOptions
from copl.errors import DataError
from copl.records import PreferenceData
from tests.data.published import write_lines
from tests.data.sources.exports import notes as notes_of

ALL_IN_TRAIN = {"test_fraction": 0.0, "validation_fraction": 0.0, "cold_fraction": 0.0, "unseen_fraction": 0.0}


def ratings(path: Path, seed: int = 0, **options: Any) -> PreferenceData:
    return OpinionTableSource("ratings", RatingOptions(path=path, **options)).load(seed=seed)


def votes(path: Path, **options: Any) -> PreferenceData:
    return OpinionTableSource("votes", VoteOptions(path=path, **options)).load(seed=0)


def rows_of(data: PreferenceData, *splits: str) -> list[tuple[str, str, str, str]]:
    table, found = data.responses, []
    for name in splits or tuple(data.present()):
        part = data.splits[name]
        for user, chosen, rejected in zip(*(c.tolist() for c in (part.user, part.chosen, part.rejected)), strict=True):
            assert table.prompts[chosen] == table.prompts[rejected]
            found.append((data.users.ids[user], table.prompts[chosen], table.texts[chosen], table.texts[rejected]))
    return sorted(found)


def test_pairs_where_the_difference_reaches_the_margin(tmp_path: Path) -> None:
    levels = {"a": 5, "b": 4.5, "c": 3, "d": 1}
    path = write_lines(
        tmp_path / "r.jsonl", [{"user_id": "u", "response": text, "rating": level} for text, level in levels.items()]
    )
    for margin in (0.5, 1.0, 1.5, 2.0, 3.6):
        expected = sorted(
            ("u", "A person stated:", one, other)
            for one, other in itertools.permutations(levels, 2)
            if levels[one] - levels[other] >= margin
        )
        assert rows_of(ratings(path, margin=margin, **ALL_IN_TRAIN)) == expected


def test_only_responses_to_one_prompt_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("who,question,answer,stars\nu,p,a,1\nu,p,b,5\nu,q,c,3\nu,q,a,2\nv,p,a,4\nv,p,b,4\n")
    names = {"user_id": "who", "prompt": "question", "response": "answer", "rating": "stars"}
    data = ratings(path, columns=names, margin=1.0, **ALL_IN_TRAIN)
    assert rows_of(data) == [("u", "p", "b", "a"), ("u", "q", "c", "a")]
    assert data.provenance["counts"]["ratings"] == 6


def test_no_two_splits_of_a_user_share_a_response(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for prompts in (1, 8):
        rows = [
            {"user_id": f"u{u}", "prompt": f"p{p}", "response": f"r{p}-{n}", "rating": float(rng.integers(1, 8))}
            for u in range(20)
            for p in range(prompts)
            for n in range(60 // prompts)
        ]
        data = ratings(write_lines(tmp_path / "r.jsonl", rows), margin=1.0, cold_fraction=0.3)
        assert set(data.present()) == {"train", "validation", "test", "cold", "support", "heldout"}
        known = {(r["user_id"], r["prompt"], r["response"]): r["rating"] for r in rows}
        used: dict[tuple[str, str, str], str] = {}
        for name in data.present():
            for user, prompt, chosen, rejected in rows_of(data, name):
                assert known[user, prompt, chosen] - known[user, prompt, rejected] >= 1
                for text in (chosen, rejected):
                    assert used.setdefault((user, prompt, text), name) == name
        cold = {end for row in rows_of(data, "cold") for end in (row[1:3], row[1::2])}
        assert not cold & {end for row in rows_of(data, "train", "support") for end in (row[1:3], row[1::2])}
        again = ratings(tmp_path / "r.jsonl", margin=1.0, cold_fraction=0.3)
        assert again.digest(*again.splits) == data.digest(*data.splits)


@pytest.mark.parametrize("prompts", [1, 6])
def test_opinions_that_are_added_move_none(tmp_path: Path, prompts: int) -> None:
    rng = np.random.default_rng(1)
    rows = [
        {"user_id": f"u{u}", "prompt": f"p{n % prompts}", "response": f"r{n}", "rating": float(rng.integers(1, 8))}
        for n in range(60)
        for u in range(30)
    ]
    places: list[dict[tuple[str, str], str]] = []
    for count in (900, len(rows)):
        data = ratings(write_lines(tmp_path / "r.jsonl", rows[:count]), margin=1.0, unseen_fraction=0.2)
        ends = {name: rows_of(data, name) for name in data.present()}
        places.append({(row[0], text): name for name, held in ends.items() for row in held for text in row[2:]})
    before, after = places
    both = before.keys() & after.keys()
    assert len(both) > 0.8 * len(before)
    assert {judged: before[judged] for judged in both} == {judged: after[judged] for judged in both}
    assert set(before.values()) > {"train", "test", "support", "heldout"}


def test_votes_go_up_and_down(tmp_path: Path) -> None:
    spelt = {"a": "agree", "b": "-1", "c": 0, "d": "up", "e": "disagree"}
    path = write_lines(
        tmp_path / "v.jsonl", [{"user_id": "u", "response": text, "vote": vote} for text, vote in spelt.items()]
    )
    prompt = "In a survey, somebody stated:"
    up_down = [("u", prompt, one, other) for one in "ad" for other in "be"]
    assert rows_of(votes(path, prompt=prompt, **ALL_IN_TRAIN)) == up_down
    middle = [*(("u", prompt, one, "c") for one in "ad"), *(("u", prompt, "c", other) for other in "be")]
    assert rows_of(votes(path, prompt=prompt, use_passes=True, **ALL_IN_TRAIN)) == sorted([*up_down, *middle])


def test_votes_tell_which_pairs_are_controversial(tmp_path: Path) -> None:
    # Six users put a above b, three b above a: a third against the rest. Nobody who compares a with c puts c first.
    rows = [
        {"user_id": f"u{n}", "response": text, "vote": vote}
        for n in range(9)
        for text, vote in (("a", 1 if n < 6 else -1), ("b", -1 if n < 6 else 1), ("c", -1 if n < 6 else 0))
    ]
    data = votes(write_lines(tmp_path / "v.jsonl", rows), **ALL_IN_TRAIN)
    part, texts = data.splits["train"], data.responses.texts
    marks = {
        frozenset((texts[c], texts[r])): mark
        for c, r, mark in zip(part.chosen.tolist(), part.rejected.tolist(), part.controversial.tolist(), strict=True)
    }
    assert marks == {frozenset("ab"): 1, frozenset("ac"): 0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"rating": "high"}], "line 1: rating: expected a number, got 'high'"),
        ([{"rating": None}], "line 1: rating: expected a number, got None"),
        ([{"rating": float("inf")}], "line 1: rating: expected a number, got inf"),
        ([{"rating": 1, "response": ["a"]}], "line 1: response: a list where text belongs"),
        ([{"rating": 1}, {"rating": 2}], "line 2: response: user 'u' gives a rating for this text in line 1 already"),
        ([{"stars": 1}], "no column 'rating'"),
        ([{"rating": 1}, {"rating": 1, "response": "b"}], "no user rates two responses differently"),
    ],
)
def test_faults_of_ratings(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    path = write_lines(tmp_path / "r.jsonl", [{"user_id": "u", "response": "a", **row} for row in rows])
    with pytest.raises(DataError, match=message):
        ratings(path)


def test_a_margin_is_reached_as_decimals_are_written(tmp_path: Path) -> None:
    # in binary .7 - .4 is a little less than .3, and .4 - .1 a little more
    levels = {"a": 0.7, "b": 0.4, "c": 0.1, "d": 0.11}
    path = write_lines(
        tmp_path / "r.jsonl", [{"user_id": "u", "response": text, "rating": level} for text, level in levels.items()]
    )
    prompt = "A person stated:"
    expected = [("u", prompt, *pair) for pair in ("ab", "ac", "ad", "bc")]
    assert rows_of(ratings(path, margin=0.3, **ALL_IN_TRAIN)) == expected


@pytest.mark.parametrize(("which", "expected"), [("first", "ab"), ("last", "ba")])
def test_a_changed_vote_counts_once(tmp_path: Path, which: str, expected: str) -> None:
    spelt = [("a", "1"), ("b", "-1.0"), ("a", "-0.0"), ("a", "down"), ("b", "up")]
    rows = [{"user_id": "u", "response": text, "vote": vote} for text, vote in spelt]
    path = write_lines(tmp_path / "v.jsonl", rows)
    with pytest.raises(DataError, match=r"line 3: .* already; remove one, or set repeated=last \(or first\)"):
        votes(path)
    data = votes(path, repeated=which, **ALL_IN_TRAIN)
    assert rows_of(data) == [("u", "A person stated:", *expected)]
    assert f"3 votes were left out: a user's {which} vote of a text counts." in notes_of(data)


def test_of_judgements_at_several_times_the_last_counts(tmp_path: Path) -> None:
    """Whatever the order in the file is."""
    said = [("a", 5, 300), ("b", 3, 300), ("a", 1, 200), ("b", 4, None), ("c", 2, 100)]
    rows = [{"user_id": "u", "response": text, "rating": rating, "timestamp": time, "weight": 2}
            for text, rating, time in said]  # fmt: skip
    path = write_lines(tmp_path / "r.jsonl", rows)
    data = ratings(path, repeated="last", **ALL_IN_TRAIN)
    judged = data.judgements["train"]
    texts = [data.responses.texts[row] for row in judged.response.tolist()]
    told = sorted(zip(texts, judged.value.tolist(), judged.time.tolist(), judged.weight.tolist(), strict=True))
    assert told == [("a", 5.0, 300.0, 2.0), ("b", 3.0, 300.0, 2.0), ("c", 2.0, 100.0, 2.0)]
    assert rows_of(ratings(path, repeated="first", margin=1, **ALL_IN_TRAIN)) == [
        ("u", "A person stated:", *pair) for pair in ("ba", "bc", "ca")
    ]
    with pytest.raises(DataError, match="line 4: response: user 'u' gives a rating for this text in line 2 already"):
        ratings(path, **ALL_IN_TRAIN)
    write_lines(path, [*rows[:3], rows[4]])
    by_margin = ratings(path, margin=1, **ALL_IN_TRAIN)  # a change of mind is no fault where it has a time
    assert rows_of(by_margin) == [("u", "A person stated:", *pair) for pair in ("ab", "ac", "bc")]
    assert notes_of(by_margin) == [
        "Column 'weight' is not part of the row schema and was not read.",
        "Times say which rating of a text counts; comparisons that are drawn from ratings have none.",
        "1 ratings were left out: a user's last rating of a text counts.",
    ]


def test_faults_of_votes(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "v.jsonl", [{"user_id": "u", "response": "a", "vote": 2}])
    with pytest.raises(DataError, match=r"line 1: vote: expected 1 \(up\), -1 \(down\) or 0 \(pass\), got 2"):
        votes(path)


@pytest.mark.parametrize("prompts", [1, 5])
def test_ratings_stay_ratings_where_no_margin_is_asked_for(tmp_path: Path, prompts: int) -> None:
    rng = np.random.default_rng(3)
    rows = [
        {"user_id": f"u{u}", "prompt": f"p{n % prompts}", "response": f"r{n}", "rating": float(rng.integers(-10, 11)),
         "group": f"g{u % 2}"}
        for n in range(30) for u in range(12)
    ]  # fmt: skip
    data = ratings(write_lines(tmp_path / "r.jsonl", rows), unseen_fraction=0.3)
    known = {(r["user_id"], r["prompt"], r["response"]): r["rating"] for r in rows}
    table, learnt = data.responses, set()
    for part in data.judgements.values():
        for user, response, value in zip(part.user.tolist(), part.response.tolist(), part.value.tolist(), strict=True):
            key = data.users.ids[user], table.prompts[response], table.texts[response]
            assert known[key] == value
            learnt.add(key)
    assert set(data.judgements) == {"train", "support"}
    judged = set()
    for part in data.splits.values():
        for user, *ends in zip(part.user.tolist(), part.chosen.tolist(), part.rejected.tolist(), strict=True):
            keys = [(data.users.ids[user], table.prompts[end], table.texts[end]) for end in ends]
            assert known[keys[0]] > known[keys[1]]
            judged |= set(keys)
    assert not learnt & judged
    assert {"test", "heldout"} <= set(data.present()) <= {"validation", "test", "cold", "heldout"}
    assert data.users.groups[data.users.rows["u1"]] == "g1"
    assert data.provenance["options"]["eval_pairs_per_user"] == 10
