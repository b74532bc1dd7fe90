"""What `copl data make` says it left out: once for each kind, by reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

RunCopl = Callable[..., tuple[int, str, str]]


def test_what_was_left_out_is_summed_and_listed_by_reason(run_copl: RunCopl, tmp_path: Path) -> None:
    rows = [
        {"user_id": user, "prompt": f"p{n}", "response": text, "thumb": "up"}
        for user in ("ann", "ben")
        for n in range(3)
        for text in ("a", "a", "b")
    ]
    rows += [{"user_id": "ann", "prompt": f"q{n}", "chosen": "a", "rejected": "b"} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = run_copl(
        "data", "make", "jsonl", "--set", f"path={tmp_path / 'rows.jsonl'}", "--out", tmp_path / "d"
    )
    assert code == 0, err
    described = json.loads(run_copl("data", "describe", tmp_path / "d", "--json")[1])
    assert {one["what"] for one in described["left_out"]} == {"rows"}
    counts = [one["count"] for one in described["left_out"]]
    assert max(counts) == 6
    lines = [" ".join(line.split()) for line in out.splitlines()]
    start = lines.index(f"rows left out {sum(counts)}")
    reasons = [f"{one['count']}: {one['reason']}" for one in described["left_out"]]
    assert sorted(lines[start + 1 : start + 1 + len(reasons)]) == sorted(reasons)
    assert lines[start + 1].startswith("6: ")
    assert not any("were left out" in line for line in lines)


def test_a_check_counts_what_was_left_out_and_shows_notes_apart(run_copl: RunCopl, tmp_path: Path) -> None:
    rows = [{"user_id": "ann", "prompt": "p", "response": "a", "thumb": mark, "mood": "good"} for mark in (1, 0, 1)]
    rows += [{"user_id": "ann", "prompt": "p", "chosen": "b", "rejected": "c"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = ("data", "make", "jsonl", "--set", f"path={tmp_path / 'rows.jsonl'}", "--set", "unseen_fraction=0")
    code, _, err = run_copl(*made, "--out", tmp_path / "d")
    assert code == 0, err
    found = json.loads(run_copl("data", "check", tmp_path / "d", "--json")[1])
    (left,) = (one for one in found if one["what"] == "rows left out")
    assert (left["count"], left["advice"]) == (2, "said again later by the same user of the same")
    note = "Column 'mood' is not part of the row schema and was not read."
    assert note not in [one["what"] for one in found]
    shown = run_copl("data", "check", tmp_path / "d")[1]
    assert shown.index("Findings in") < shown.index("Noted when it was made") < shown.index(note)
