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
    notes = [note for note in described["notes"] if " rows were left out: " in note]
    counts = [int(note.split()[0]) for note in notes]
    assert max(counts) == 6
    lines = [" ".join(line.split()) for line in out.splitlines()]
    start = lines.index(f"rows left out {sum(counts)}")
    reasons = [note.replace(" rows were left out", "").rstrip(".") for note in notes]
    assert sorted(lines[start + 1 : start + 1 + len(notes)]) == sorted(reasons)
    assert not any("were left out" in line for line in lines)
