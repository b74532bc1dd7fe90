from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from copl.errors import RunError
from copl.interfaces import SCRATCH
from copl.runs.stages import verify_stage
from copl.runs.workspace import RunWorkspace
from copl.system.files import SCRATCH_SUFFIX, new_directory, sha256, write_text
from copl.system.progress import SilentProgress


class KilledError(BaseException):
    pass


def _never(directory: Path) -> None:
    raise AssertionError("computed again")


def _tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _workspace(root: Path, cache: Path | None = None) -> RunWorkspace:
    root.mkdir(exist_ok=True)
    return RunWorkspace(root, SilentProgress(), cache)


def test_a_stage_is_computed_once_per_key(tmp_path: Path) -> None:
    calls = []

    def compute(directory: Path) -> None:
        calls.append(directory)
        (directory / "result.txt").write_text(str(len(calls)))

    workspace = _workspace(tmp_path / "run")
    first = workspace.stage("graph", key={"a": 1, "b": 2}, compute=compute)
    again = _workspace(tmp_path / "run").stage("graph", key={"b": 2, "a": 1}, compute=compute)
    assert (first / "result.txt").read_text() == "1" == (again / "result.txt").read_text()
    changed = _workspace(tmp_path / "run").stage("graph", key={"a": 2, "b": 2}, compute=compute)
    assert (changed / "result.txt").read_text() == "2"
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["graph"]


def test_runs_share_stages_through_the_cache(tmp_path: Path) -> None:
    def compute(directory: Path) -> None:
        (directory / "sub").mkdir()
        (directory / "sub" / "result.txt").write_text("computed")

    def never(directory: Path) -> None:
        raise AssertionError("computed again")

    cache = tmp_path / "cache"
    _workspace(tmp_path / "one", cache).stage("graph", key={"seed": 0}, compute=compute)
    other = _workspace(tmp_path / "two", cache)
    place = other.stage("graph", key={"seed": 0}, compute=never)
    assert (place / "sub" / "result.txt").read_text() == "computed"
    assert place == tmp_path / "two" / "graph"
    assert other.reused == ["graph"]
    assert other.computed == []


def test_runs_that_need_a_stage_at_the_same_time_compute_it_once(tmp_path: Path) -> None:
    calls = []
    begun, may_end = Event(), Event()

    def compute(directory: Path) -> None:
        calls.append(directory)
        begun.set()
        assert may_end.wait(60)
        (directory / "result.txt").write_text("computed")

    def need(name: str) -> list[str]:
        workspace = _workspace(tmp_path / name, tmp_path / "cache")
        workspace.stage("graph", key={"seed": 0}, compute=compute)
        return workspace.computed

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(need, "one")
        assert begun.wait(60)
        second = pool.submit(need, "two")
        assert not second.done()
        may_end.set()
        assert (first.result(), second.result()) == (["graph"], [])
    assert len(calls) == 1
    assert (tmp_path / "two" / "graph" / "result.txt").read_text() == "computed"


def test_a_killed_stage_continues_where_it_stopped(tmp_path: Path) -> None:
    def killed(directory: Path) -> None:
        (directory / "checkpoint").write_text("step 7")
        raise KilledError

    def resumed(directory: Path) -> None:
        assert (directory / "checkpoint").read_text() == "step 7"
        (directory / "checkpoint").unlink()
        (directory / "result").write_text("done")

    with pytest.raises(KilledError):
        _workspace(tmp_path / "run").stage("reward", key={"k": 1}, compute=killed)
    assert not (tmp_path / "run" / "reward").exists()
    place = _workspace(tmp_path / "run").stage("reward", key={"k": 1}, compute=resumed)
    assert [p.name for p in sorted(place.iterdir())] == ["result", "stage.json"]


def test_a_partial_stage_of_another_key_is_not_continued(tmp_path: Path) -> None:
    def killed(directory: Path) -> None:
        (directory / "checkpoint").write_text("of other options")
        raise KilledError

    def compute(directory: Path) -> None:
        assert not (directory / "checkpoint").exists()
        (directory / "result").write_text("done")

    with pytest.raises(KilledError):
        _workspace(tmp_path / "run").stage("reward", key={"k": 1}, compute=killed)
    _workspace(tmp_path / "run").stage("reward", key={"k": 2}, compute=compute)


def test_damage_is_named_and_never_used(tmp_path: Path) -> None:
    def compute(directory: Path) -> None:
        (directory / "a").write_text("aaaa")
        (directory / "b").write_text("bbbb")

    place = _workspace(tmp_path / "run").stage("graph", key={}, compute=compute)
    (place / "a").write_text("aa")
    (place / "b").unlink()
    with pytest.raises(RunError) as caught:
        _workspace(tmp_path / "run").stage("graph", key={}, compute=compute)
    assert [fault.split(";")[0] for fault in caught.value.faults] == [
        f"{place / 'a'}: damaged (its checksum differs)",
        f"{place / 'b'}: missing",
    ]


def test_a_damaged_cache_entry_is_computed_anew(tmp_path: Path) -> None:
    def compute(directory: Path) -> None:
        (directory / "a").write_text("aaaa")

    cache = tmp_path / "cache"
    _workspace(tmp_path / "one", cache).stage("graph", key={}, compute=compute)
    (cached,) = (cache / "stages" / "graph").iterdir()
    (cached / "a").unlink()
    second = _workspace(tmp_path / "two", cache)
    second.stage("graph", key={}, compute=compute)
    assert second.computed == ["graph"]
    assert (cached / "a").read_text() == "aaaa"


def test_another_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    place = _workspace(tmp_path / "run").stage("graph", key={}, compute=lambda d: None)
    stage = json.loads((place / "stage.json").read_text())
    (place / "stage.json").write_text(json.dumps({**stage, "format": 99, "copl": "9.9"}))
    with pytest.raises(RunError, match=r"format is 99, written by copl '9\.9', this version of copl reads 2"):
        verify_stage(place)
    (place / "stage.json").write_text("{}")
    with pytest.raises(RunError, match="format is nothing"):
        verify_stage(place)


def test_what_a_stage_needs_to_continue_is_no_part_of_it(tmp_path: Path) -> None:
    def compute(directory: Path) -> None:
        (directory / SCRATCH / "deep").mkdir(parents=True)
        (directory / SCRATCH / "deep" / "checkpoint").write_text("")
        (directory / ".left.copl-tmp").mkdir()
        (directory / ".left.copl-tmp" / "half").write_text("")
        (directory / "result").write_text("done")

    place = _workspace(tmp_path / "run", tmp_path / "cache").stage("reward", key={}, compute=compute)
    assert set(verify_stage(place).files) == {"result"}
    assert sorted(path.name for path in place.iterdir()) == ["result", "stage.json"]
    (cached,) = (tmp_path / "cache" / "stages" / "reward").iterdir()
    assert _tree(cached) == _tree(place)


KILLABLE = ("mkdir", "rename", "replace", "rmdir", "unlink", "link", "open", "write")
"""Calls of the system that change files, as this process makes them."""


@contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let the process die, as by a signal, before its change of files of this number, from 1; 0 lets it live.

    Nothing that would clean up after an error does anything any more: a killed process cleans up nothing.
    """
    done: list[str] = []

    def dying(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name == "open" and not (len(arguments) > 1 and arguments[1] & (os.O_CREAT | os.O_TRUNC)):
                return real(*arguments, **options)
            done.append(name)
            if number and len(done) >= number:
                raise KilledError(name)
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in KILLABLE:
            patch.setattr(os, name, dying(name, getattr(os, name)))
        yield done


def test_a_stage_killed_at_any_change_of_a_file_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Computing, clearing away, putting in place, sharing; over a stage of an older key, with a cache and without."""

    def compute(directory: Path) -> None:
        scratch = directory / SCRATCH
        for number in range(2):
            write_text(scratch / f"checkpoint-{number}" / "state", str(number))
        write_text(directory / "deep" / "result", "done")
        write_text(directory / "more", "done")

    def run(root: Path, cache: Path | None) -> None:
        _workspace(root, cache).stage("reward", key={"k": 2}, compute=compute)

    def prepared(root: Path) -> Path:
        _workspace(root).stage("reward", key={"k": 1}, compute=lambda d: write_text(d / "older", ""))
        return root

    for cache in (None, tmp_path / "shared"):
        reference = prepared(tmp_path / f"whole-{cache is None}")
        with killed_at(0, monkeypatch) as changes:
            run(reference, cache)
        assert len(changes) > 25
        for number in range(1, len(changes) + 1):
            own = cache and tmp_path / f"cache-{number}"
            root = prepared(tmp_path / f"run-{cache is None}-{number}")
            with suppress(KilledError), killed_at(number, monkeypatch):
                run(root, own)
            run(root, own)
            assert _tree(root) == _tree(reference), f"killed before change {number} of {changes}"
            if own is not None and cache is not None:
                assert _tree(own) == _tree(cache), f"killed before change {number} of {changes}"


@pytest.mark.parametrize("state", ["file", "locked", "below a file"])
def test_a_cache_that_cannot_be_written_is_told_once_and_done_without(
    state: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    if state == "locked":
        (cache / "stages").mkdir(parents=True)
        (cache / "stages" / "graph").write_text("in the way")
    else:
        cache.write_text("a file")
    workspace = _workspace(tmp_path / "run", cache / "below" if state == "below a file" else cache)
    for name in ("graph", "reward"):
        place = workspace.stage(name, key={}, compute=lambda d: write_text(d / "result", "done"))
        assert (place / "result").read_text() == "done"
    (record,) = caplog.records
    assert f"the cache {cache}" in record.getMessage()
    assert "cannot be used" in record.getMessage()


def test_a_run_clears_away_what_a_killed_one_was_putting_into_the_cache(tmp_path: Path) -> None:
    """Of any stage, also one that the run does not need; what a living one is putting there stays."""
    cache = tmp_path / "cache"
    _workspace(tmp_path / "one", cache).stage("graph", key={"seed": 0}, compute=lambda directory: None)
    (kept,) = (cache / "stages" / "graph").iterdir()
    dead = [
        cache / "stages" / "reward" / "a",
        kept,
        cache / "texts" / "b" / "features" / "c",
        cache / "backbones" / "d",
    ]
    for place in dead:
        (place.parent / f".{place.name}{SCRATCH_SUFFIX}" / "old").mkdir(parents=True)
    with new_directory(kept.with_name("living")) as filling:
        _workspace(tmp_path / "two", cache)
        assert list(cache.rglob(f"*{SCRATCH_SUFFIX}")) == [filling]
    assert kept.is_dir()


def test_an_error_of_a_stage_is_not_taken_for_one_of_the_cache(tmp_path: Path) -> None:
    def compute(directory: Path) -> None:
        raise FileNotFoundError(2, "no such file", "the stage's own")

    with pytest.raises(FileNotFoundError, match="the stage's own"):
        _workspace(tmp_path / "run", tmp_path / "cache").stage("graph", key={}, compute=compute)


def test_who_changes_a_stage_is_told_before(tmp_path: Path) -> None:
    told: list[bool] = []
    root, cache = tmp_path / "run", tmp_path / "cache"
    root.mkdir()

    def workspace() -> RunWorkspace:
        return RunWorkspace(root, SilentProgress(), cache, lambda: told.append((root / "graph").exists()))

    workspace().stage("graph", key={"k": 1}, compute=lambda d: None)
    workspace().stage("graph", key={"k": 1}, compute=_never)
    assert told == [False]
    workspace().stage("graph", key={"k": 2}, compute=lambda d: None)
    workspace().stage("graph", key={"k": 1}, compute=_never)  # from the cache
    assert told == [False, True, True]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ({"files": {"a": 1}}, "files['a']: expected text, got 1"),
        ({"files": None}, "files: expected a table of values, got nothing"),
        ({"key": ["k"]}, "key: expected text, got ['k']"),
        ({"inputs": "x"}, "inputs: expected a table of values, got 'x'"),
    ],
)
def test_a_marker_of_another_shape_is_told(damage: dict[str, Any], fault: str, tmp_path: Path) -> None:
    place = _workspace(tmp_path / "run").stage("graph", key={}, compute=lambda d: None)
    marker = place / "stage.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), **damage}))
    with pytest.raises(RunError) as caught:
        _workspace(tmp_path / "run").stage("graph", key={}, compute=_never)
    assert caught.value.faults == (f"{marker}: {fault}; delete {place} and train again",)


def test_a_file_is_read_once_as_long_as_it_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = _workspace(tmp_path / "run").stage("graph", key={}, compute=lambda d: write_text(d / "a", "aaaa"))
    read: list[Path] = []
    monkeypatch.setattr("copl.system.files.sha256", lambda path: read.append(path) or sha256(path))
    verify_stage(place)
    assert read == []  # its checksum was taken when the stage was finished
    (place / "a").write_text("bbbb")
    with pytest.raises(RunError, match="damaged"):
        verify_stage(place)
    assert read == [place / "a"]
