"""One policy for everybody beside one shared policy: parts share no users and prompts, and users are paired."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from benchmarks.policy import opened
from benchmarks.policy_seeds import ahead, main
from benchmarks.records import read_record
from copl import Model
from copl.evaluate.policy import ShownAnswers


def test_no_two_parts_of_a_run_have_a_user_or_a_new_prompt_in_common(personal_run: Path) -> None:
    args = argparse.Namespace(training=2, prompts=2, users=4, newcomers=2)
    model = Model.open(personal_run)
    benches = [opened(model, args, part) for part in range(3)]
    for named in ([bench.new for bench in benches], *([b.users[kind] for b in benches] for kind in benches[0].users)):
        assert len(set().union(*named)) == sum(map(len, named))
        assert all(named)


def test_a_difference_is_that_of_the_same_users() -> None:
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(6, 4, 5))
    best, mean = candidates.max(axis=2), candidates.mean(axis=2)
    shown = ShownAnswers(best, best, candidates, np.ones((6, 4)), np.ones((4, 5)), (None,) * 6)
    found = ahead(shown, evolve(shown, shown=mean))
    assert found["ahead"].value == pytest.approx(1.0)
    assert found["ahead"].high - found["ahead"].low == pytest.approx(0.0, abs=1e-9)  # each user gains all there is
    assert found["better off"].value == 1.0
    same = ahead(shown, shown)
    assert (same["ahead"].value, same["better off"].value) == (0.0, 0.0)


def test_a_small_run_becomes_a_record(personal_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPL_CACHE", str(tmp_path / "cache"))
    sizes = {"teach": 1, "steps": 2, "training": 4, "prompts": 2, "rated": 4, "users": 3, "newcomers": 2, "writing": 1}
    told = [f"--{name}={value}" for name, value in sizes.items()]
    main([str(personal_run), "--parts", "0", "1", *told, "--written-prompts=1", f"--out={tmp_path / 'policy.json'}"])
    record = read_record(tmp_path / "policy.json")
    by_name = {
        title: {row[0]: dict(zip(table.header[1:], row[1:], strict=True)) for row in table.rows}
        for title, table in record.tables.items()
    }
    assert [len(rows) for rows in by_name.values()] == [5, 4]
    for row in by_name["choice"].values():
        assert row["seen users: choice"]
        assert row["newcomers: choice"]
    assert by_name["choice"]["one shared policy"]["newcomers: the mixture is ahead by"]
    for row in by_name["written"].values():
        assert row["seen users: unread"].startswith("1.000 (")  # a step teaches nobody to write
