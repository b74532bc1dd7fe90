"""`copl ask`: the questions it chooses are those of `Model`, and what was answered is not asked again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copl import Model
from copl.data.dataset import load_dataset
from copl.data.requests import read_candidates
from copl.records import PreferenceData

RunCopl = Callable[..., tuple[int, str, str]]
Row = dict[str, Any]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


@pytest.fixture(scope="module")
def data(small_data: Path) -> PreferenceData:
    return load_dataset(small_data)


@pytest.fixture
def run(small_run: Path) -> Path:
    return small_run


def _pairs(data: PreferenceData, count: int) -> list[Row]:
    rows, table = data.split("train").comparisons, data.responses
    return [
        {"prompt": table.prompts[chosen], "first": table.texts[chosen], "second": table.texts[rejected]}
        for chosen, rejected in zip(rows.chosen[:count].tolist(), rows.rejected[:count].tolist(), strict=True)
    ]


def _said(pair: Row, user: str) -> Row:
    return {"user_id": user, "prompt": pair["prompt"], "chosen": pair["second"], "rejected": pair["first"]}


def _write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_questions_are_those_of_the_model(
    run_copl: RunCopl, run: Path, data: PreferenceData, tmp_path: Path
) -> None:
    pairs = [{"prompt": CHAT, "first": "Yes.", "second": "No."}, *_pairs(data, 8)]
    candidates = _write(tmp_path / "candidates.jsonl", pairs)
    code, out, err = run_copl("ask", run, candidates, "--count", 20, "--json")
    assert code == 0, err
    found = json.loads(out)
    questions = Model.open(run).online("somebody new").questions(read_candidates(candidates, print))
    assert [q["index"] for q in found] == [q.index for q in questions]
    assert [q["information"] for q in found] == [q.information for q in questions]
    assert found[-1] == {"index": 0, **pairs[0], "information": 0.0}  # nobody annotated it
    assert all({name: q[name] for name in pairs[0]} == pairs[q["index"]] for q in found)

    code, out, _ = run_copl("ask", run, candidates)
    best = questions[0]
    assert code == 0
    first, second = ("\n     ".join(text.split("\n")) for text in (best.first, best.second))
    bits = f"  expected information: {best.information:.3f} bits"
    assert out == f"{best.prompt}\n  1. {first}\n  2. {second}\n{bits}\n\n"


def test_what_was_said_counts_and_is_not_asked_again(
    run_copl: RunCopl, run: Path, data: PreferenceData, tmp_path: Path
) -> None:
    pairs = _pairs(data, 6)
    candidates = _write(tmp_path / "candidates.jsonl", pairs)
    support = _write(
        tmp_path / "said.jsonl", [_said(pairs[2], "new"), _said(pairs[4], "new"), _said(pairs[5], "other")]
    )
    code, out, err = run_copl("ask", run, candidates, "--support", support, "--user", "new", "-n", 9, "--json")
    assert code == 0, err
    found = {q["index"]: q["information"] for q in json.loads(out)}
    assert set(found) == {0, 1, 3, 5}
    rows = [_said(pairs[place], "new") for place in (2, 4)]
    asked = [(pair["prompt"], pair["first"], pair["second"]) for pair in pairs]
    expected = {q.index: q.information for q in Model.open(run).online("new", rows).questions(asked)}
    assert found == {place: pytest.approx(expected[place]) for place in found}

    alone = _write(tmp_path / "alone.jsonl", rows)
    assert json.loads(run_copl("ask", run, candidates, "--support", alone, "-n", 9, "--json")[1]) == json.loads(out)


def test_a_user_seen_in_training_is_asked_from_training_on(
    run_copl: RunCopl, run: Path, data: PreferenceData, tmp_path: Path
) -> None:
    rows = data.split("train").comparisons
    seen = data.users.ids[int(rows.user[0])]
    known = [
        {int(part.chosen[row]), int(part.rejected[row])}
        for part in (rows, data.split("validation").comparisons)
        for row in range(len(part))
        if part.user[row] == rows.user[0]
    ]
    own = [place for place in range(60) if {int(rows.chosen[place]), int(rows.rejected[place])} in known]
    pairs = _pairs(data, 60)
    pairs[0] = {"prompt": pairs[0]["prompt"], "first": pairs[0]["second"], "second": pairs[0]["first"]}
    candidates = _write(tmp_path / "candidates.jsonl", pairs)
    found = json.loads(run_copl("ask", run, candidates, "--user", seen, "-n", 99, "--json")[1])
    asked = [(pair["prompt"], pair["first"], pair["second"]) for pair in pairs]
    questions = Model.open(run).online(seen).questions(asked)
    assert {q.index for q in questions} >= {0}
    assert [q["index"] for q in found] == [q.index for q in questions if q.index not in own]  # trained on, not asked
    assert found[0]["information"] == pytest.approx(next(q for q in questions if q.index not in own).information)

    everything = _write(tmp_path / "own.jsonl", [pairs[place] for place in own])
    assert "has answered all" in run_copl("ask", run, everything, "--user", seen)[2]
    assert run_copl("ask", run, everything, "--user", "somebody else")[0] == 0


def test_questions_that_tell_nothing_are_called_so(run_copl: RunCopl, run: Path, tmp_path: Path) -> None:
    candidates = _write(tmp_path / "candidates.jsonl", [{"prompt": CHAT, "first": "Yes.", "second": "No."}])
    code, out, err = run_copl("ask", run, candidates)
    assert code == 0
    assert out.splitlines()[:2] == ["system: Be brief.", "user: Why?"]
    assert err.startswith("no question tells anything about this user")


def test_mistakes_are_told(run_copl: RunCopl, run: Path, data: PreferenceData, tmp_path: Path) -> None:
    pairs = _pairs(data, 2)
    candidates = _write(tmp_path / "candidates.jsonl", pairs)
    two = _write(tmp_path / "two.jsonl", [_said(pairs[0], "anna"), _said(pairs[1], "berta")])
    all_said = _write(tmp_path / "all.jsonl", [_said(pair, "anna") for pair in pairs])
    wrong = _write(
        tmp_path / "wrong.jsonl", [{"prompt": "p", "first": "a", "second": "a"}, {"prompt": "p", "frist": ""}]
    )
    nameless = _write(tmp_path / "nameless.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    for arguments, faults in (
        ([candidates, "--count", 0], ["--count 0: at least one"]),
        ([candidates, "--support", two], [f"{two}: comparisons of 2 users; name one with --user, such as anna"]),
        (
            [candidates, "--support", two, "--user", "ana"],
            [
                f"{two}: no comparisons of user 'ana' (did you mean 'anna'?); leave --support out to ask somebody who "
                "has said nothing"
            ],
        ),
        ([candidates, "--support", all_said], [f"{candidates}: the user has answered all 2 of them"]),
        (
            [wrong],
            [
                f"{wrong}: line 1: second: the same text as first; a question needs two different responses",
                f"{wrong}: line 2: first: missing (did you mean 'frist'?)",
                f"{wrong}: line 2: second: missing",
            ],
        ),
        (
            [nameless],
            [
                f"{nameless}: no column 'first'; it has prompt, chosen, rejected",
                f"{nameless}: no column 'second'; it has prompt, chosen, rejected",
            ],
        ),
        ([tmp_path / "absent.jsonl"], [f"{tmp_path / 'absent.jsonl'}: no such file"]),
    ):
        code, out, err = run_copl("ask", run, *arguments)
        assert (code, out) == (2, "")
        assert err.splitlines() == [f"copl: {fault}" for fault in faults]
