"""`copl train --all`: a run for use, which knows all users of its data and says why it cannot be measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from copl.data.dataset import load_dataset

RunCopl = Callable[..., tuple[int, str, str]]
QUICK = ["--method", "graph", "--encoder", "mf", "--set", "encoder.num_steps=10", "--set", "encoder.precision=1"]


@pytest.fixture
def everyone_run(run_copl: RunCopl, small_data: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    code, out, err = run_copl("train", small_data, "--out", run, "--all", "--no-cache", *QUICK)
    assert code == 0, err
    assert "Is it personal? A first look, by validation alone; in brackets: 95 % intervals." in out.splitlines()
    assert f"next: copl score {run} ROWS" in err
    return run


def test_everybody_is_known_and_can_be_scored(
    run_copl: RunCopl, small_data: Path, everyone_run: Path, tmp_path: Path
) -> None:
    data = load_dataset(small_data)
    unseen = data.users.ids[int(data.split("heldout").comparisons.user[0])]
    row = {"user_id": unseen, "prompt": "Hello", "response": data.responses.texts[0]}
    rows, scores = tmp_path / "rows.jsonl", tmp_path / "scores.jsonl"
    rows.write_text(json.dumps(row) + "\n")
    code, _, err = run_copl("score", everyone_run, rows, "--out", scores)
    assert code == 0, err
    assert json.loads(scores.read_text())["user_known"] is True


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_measuring_it_is_refused_in_plain_words(run_copl: RunCopl, everyone_run: Path, command: str) -> None:
    code, _, err = run_copl(command, everyone_run)
    assert code == 2
    (line,) = err.splitlines()
    assert "learned from everyone and everything (--all), so its data has nothing left to measure it by" in line
    assert not (everyone_run / "metrics.json").exists()


def test_naming_the_same_data_does_not_help(run_copl: RunCopl, small_data: Path, everyone_run: Path) -> None:
    code, _, err = run_copl("evaluate", everyone_run, "--data", small_data)
    assert code == 2
    assert "nothing left to measure it by" in err


def test_a_run_is_one_or_the_other(run_copl: RunCopl, small_data: Path, everyone_run: Path) -> None:
    code, _, err = run_copl("train", small_data, "--out", everyone_run, "--no-cache", *QUICK)
    assert code == 2
    assert "learns from everyone and everything (--all) there, from the training split now" in err
    code, _, err = run_copl("train", "--out", everyone_run, "--resume", "--all")
    assert code == 2
    assert "drop --all" in err
    code, _, err = run_copl("train", "--out", everyone_run, "--resume", "--no-cache")
    assert code == 0, err
