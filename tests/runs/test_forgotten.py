"""A run trained after a user was forgotten: no byte of them, and everybody else as if they had never been there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from copl.data.dataset import load_dataset
from copl.model import Model

RunCopl = Callable[..., tuple[int, str, str]]
GONE = "zoe-4711"


def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(4)
    said = []
    for _ in range(400):
        user, prompt = rng.integers(12), rng.integers(15)
        one, other = rng.permutation(4)[:2]
        row = {"user_id": f"user-{user:02d}", "prompt": f"question {prompt}", "weight": 1.0}
        said.append({**row, "chosen": f"answer {prompt}.{one}", "rejected": f"answer {prompt}.{other}"})
    # last, so that nobody's split or number is another one without them; some texts are theirs alone
    own = [(f"question {prompt}", f"answer {prompt}.0", f"secret-{prompt}-answer") for prompt in range(15)]
    own.append(("secret-question", "secret-yes", "secret-no"))
    names = ("prompt", "chosen", "rejected")
    return [*said, *({"user_id": GONE, "weight": 1.0, **dict(zip(names, texts, strict=True))} for texts in own)]


def trained(run_copl: RunCopl, data: Path, out: Path) -> Model:
    code, _, err = run_copl("train", str(data), "--out", str(out), "--method", "graph", "--encoder", "mf")
    assert code == 0, err
    return Model.open(out)


def test_no_byte_is_left_and_nobody_else_has_changed(tmp_path: Path, run_copl: RunCopl) -> None:
    kinds = {"with": rows(), "without": [row for row in rows() if row["user_id"] != GONE]}
    options = ("--set", "duplicates=drop", "--set", "contradictions=keep")
    for name, said in kinds.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
        code, _, err = run_copl(
            "data", "make", "jsonl", "--set", f"path={tmp_path / name}.jsonl", *options, "--out", str(tmp_path / name)
        )
        assert code == 0, err
    code, _, err = run_copl("data", "forget", str(tmp_path / "with"), "--user", GONE, "--out", str(tmp_path / "after"))
    assert code == 0, err
    forgotten = trained(run_copl, tmp_path / "after", tmp_path / "run-after")
    never = trained(run_copl, tmp_path / "without", tmp_path / "run-never")
    for root in ("after", "run-after"):
        for file in (tmp_path / root).rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                assert GONE.encode() not in content, file
                assert b"secret" not in content, file
    left = load_dataset(tmp_path / "after")  # tables are compressed
    assert GONE not in left.users.ids
    assert not [text for text in (*left.responses.texts, *left.responses.prompts) if "secret" in text]
    data = load_dataset(tmp_path / "without")
    prompts = list(dict.fromkeys(data.responses.prompts))
    answers = [
        [t for p, t in zip(data.responses.prompts, data.responses.texts, strict=True) if p == q] for q in prompts
    ]
    for one, other in zip(
        forgotten.score_table(data.users.ids, prompts, answers),
        never.score_table(data.users.ids, prompts, answers),
        strict=True,
    ):
        assert np.array_equal(one, other)
