"""Any value in any JSON file of a run, made another: refused in a line, or the very same numbers come out."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

RunCopl = Callable[..., tuple[int, str, str]]

OTHERS: tuple[Any, ...] = (None, True, -1, 10**25, 0.5, "\x1b[31m\n", "../..", [], {}, [[{}]])
NAMES = ("run.json", "metrics.json", "reference.json", "graph/nodes.json", "graph/stage.json",
         "evaluation/stage.json", "evaluation/diagnostics.json", "evaluation/reasons.json")  # fmt: skip
OF_SCORES = NAMES[:1] + NAMES[2:5]
"""Files that rewards depend on; what a report shows depends on the others."""

NUM_CASES = 3
"""Changes of each file."""


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*above, key)
        yield from places(value[key], (*above, key))


def changed(value: Any, place: tuple[Any, ...], other: Any) -> Any:
    whole = copy.deepcopy(value)
    inner = whole
    for key in place[:-1]:
        inner = inner[key]
    if other is None and isinstance(inner, dict):
        del inner[place[-1]]
    else:
        inner[place[-1]] = other
    return whole


@pytest.mark.parametrize("name", NAMES)
def test_a_change_anywhere_is_refused_or_changes_no_number(workplace: Path, run_copl: RunCopl, name: str) -> None:
    nodes = json.loads((workplace / "run" / "graph" / "nodes.json").read_text())
    row = {"user_id": nodes["users"][0], "prompt": "How do I boil an egg?", "response": "Eight minutes."}
    (workplace / "rows.jsonl").write_text(json.dumps(row) + "\n")
    scores, page = workplace / "scores.jsonl", workplace / "run" / "report.html"
    score = ("score", str(workplace / "run"), str(workplace / "rows.jsonl"), "--out", str(scores), "--calibrated")
    commands: dict[tuple[str, ...], Path] = {score: scores} if name in OF_SCORES else {}
    if name not in OF_SCORES or name == "run.json":
        commands["report", str(workplace / "run")] = page
    right = {}
    for words, out in commands.items():
        code, _, err = run_copl(*words)
        assert code == 0, err
        right[words] = out.read_bytes()
    file = workplace / "run" / name
    before = json.loads(file.read_bytes())
    draw = random.Random(name)
    for place in draw.choices(list(places(before)), k=NUM_CASES):
        other = draw.choice(OTHERS)
        file.write_text(json.dumps(changed(before, place, other)))
        for words, out in commands.items():
            code, _, err = run_copl(*words)
            where = f"{name} {place} {other!r} {words[0]}: {err}"
            assert "Traceback" not in err, where
            assert code in (0, 2), where
            if code == 2:
                assert all(line.startswith("copl: ") and line.isprintable() for line in err.splitlines()), where
            elif name != "run.json":  # which a report quotes
                assert out.read_bytes() == right[words], where
