import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from copl.errors import RunError
from copl.runs.workspace import RunWorkspace, verify_stage
from copl.system.files import write_text
from copl.system.progress import SilentProgress


class KilledError(Exception):
    pass


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
    with pytest.raises(RunError, match=r"stage format 99, written by copl 9\.9"):
        verify_stage(place)
    (place / "stage.json").write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        verify_stage(place)


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]
