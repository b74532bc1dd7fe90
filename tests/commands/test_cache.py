"""`copl cache`: what runs share, counted and cleared by stage and by age."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

RunCopl = Callable[..., tuple[int, str, str]]
DAY = 24 * 60 * 60


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two stages of method ``graph``, ten days and no day old, an evaluation and the readings of some texts."""
    for name, size, days in (
        ("stages/graph/aa/nodes.json", 1000, 10),
        ("stages/graph/bb/deep/nodes.json", 24, 0),
        ("stages/evaluation/cc/margins", 3000, 3),
        ("texts/dd/0.safetensors", 2**20, 5),
        ("locks/graph-aa", 0, 0),
    ):
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        when = time.time() - days * DAY
        os.utime(path, (when, when))
    monkeypatch.setenv("COPL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def left(cache: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for part in ("stages/*/*", "texts/*") for path in cache.glob(part)}


def test_it_is_counted_by_kind(cache: Path, run_copl: RunCopl) -> None:
    code, out, _ = run_copl("cache", "show", "--json")
    assert code == 0
    found = {kind["what"]: (kind["entries"], kind["bytes"]) for kind in json.loads(out)["kinds"]}
    assert found == {"evaluation": (1, 3000), "graph": (2, 1024), "texts": (1, 2**20)}
    code, out, _ = run_copl("cache", "show")
    assert code == 0
    assert f"Cache in {cache}: 1 MiB" in out
    assert "10 days" in out


def test_it_is_cleared_by_age_by_stage_and_whole(cache: Path, run_copl: RunCopl) -> None:
    code, _, err = run_copl("cache", "clear", "--older-than", "4", "--dry-run")
    assert (code, err) == (0, f"would clear 2 entries, 1 MiB, of {cache}\n")
    assert left(cache) == {"graph/aa", "graph/bb", "evaluation/cc", "texts/dd"}
    assert run_copl("cache", "clear", "--older-than", "4")[0] == 0
    assert left(cache) == {"graph/bb", "evaluation/cc"}
    assert run_copl("cache", "clear", "--stage", "graph")[0] == 0
    assert left(cache) == {"evaluation/cc"}
    assert run_copl("cache", "clear", "--all")[0] == 0
    assert left(cache) == set()
    assert "cleared 0 entries" in run_copl("cache", "clear", "--all")[2]


def test_nothing_is_cleared_unasked(cache: Path, run_copl: RunCopl) -> None:
    for wrong, said in (
        ([], "say what to clear"),
        (["--stage", "grap"], "did you mean 'graph'?"),
        (["--older-than", "-1"], "a number of days from 0"),
        (["--older-than", "nan"], "a number of days from 0"),
    ):
        code, _, err = run_copl("cache", "clear", *wrong)
        assert code == 2
        assert said in err
    assert len(left(cache)) == 4


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path, run_copl: RunCopl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPL_CACHE", str(tmp_path / "nowhere"))
    code, out, _ = run_copl("cache", "show", "--json")
    assert (code, json.loads(out)["kinds"]) == (0, [])
    assert run_copl("cache", "clear", "--all")[0] == 0
    assert not (tmp_path / "nowhere").exists()


def test_a_run_whose_stage_was_cleared_keeps_it_and_computes_it_anew_elsewhere(
    small_data: Path, tmp_path: Path, run_copl: RunCopl, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "cache"
    monkeypatch.setenv("COPL_CACHE", str(shared))
    monkeypatch.setattr("copl.commands.train.shared_cache", lambda no_cache: shared)
    command = ["train", small_data, "--method", "graph", "--encoder", "none", "--out"]
    assert run_copl(*command, tmp_path / "one")[0] == 0
    assert len(list(shared.glob("stages/graph/*"))) == 1
    assert run_copl("cache", "clear", "--all")[0] == 0
    assert not list(shared.glob("stages/graph/*"))
    assert run_copl("evaluate", tmp_path / "one", "--no-cache")[0] == 0
    assert run_copl(*command, tmp_path / "two")[0] == 0
    assert json.loads((tmp_path / "two" / "run.json").read_text())["stages"] == {"graph": "computed"}
