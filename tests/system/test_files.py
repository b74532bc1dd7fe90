"""Files and directories written whole or not at all; what a killed process leaves is cleared away."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from copl.system.files import (
    SCRATCH_SUFFIX,
    cache_directory,
    is_scratch,
    new_directory,
    sweep,
    write_atomically,
    write_text,
)


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_is_followed_by_whatever_makes_the_file(umask: int, tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2]))
from copl.system.files import new_directory, write_atomically, write_text
root = Path(sys.argv[1])
write_text(root / "sub" / "text", "")
write_atomically(root / "private", lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)))
with new_directory(root / "directory"):
    pass
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(umask)], check=True)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("sub", "sub/text", "private", "directory")}
    private, open_to = 0o666 & ~umask, 0o777 & ~umask
    assert modes == {"sub": open_to, "sub/text": private, "private": private, "directory": open_to}


def test_a_new_directory_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "a" / "d"
    with pytest.raises(UnicodeEncodeError), new_directory(place) as filling:
        (filling / "half").write_text("\ud800")
    assert list((tmp_path / "a").iterdir()) == []
    place.mkdir()  # an empty one is in nobody's way
    with new_directory(place) as filling:
        (filling / "whole").write_text("")
        assert list(place.iterdir()) == []
    assert [p.name for p in place.iterdir()] == ["whole"]
    with pytest.raises(OSError, match="not empty") as caught, new_directory(place):
        pass
    assert caught.value.filename == str(place)
    assert [p.name for p in place.iterdir()] == ["whole"]


def _stop_in_the_middle(path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text("half")
        (temporary.parent / ".left-by-a-library").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    write_atomically(path, write)


def _killed(path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_stop_in_the_middle, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_a_killed_process_left_is_cleared_away_by_the_next_one(tmp_path: Path) -> None:
    _killed(tmp_path / "f.txt")
    (left,) = tmp_path.iterdir()
    assert is_scratch(left / "f.txt")
    write_text(tmp_path / "f.txt", "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]
    _killed(tmp_path / "sub" / "g.txt")
    sweep(tmp_path)
    assert list((tmp_path / "sub").iterdir()) == []
    assert (tmp_path / "f.txt").read_text() == "whole"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_whoever_writes_into_a_directory_clears_away_what_others_that_are_dead_have_left_there(tmp_path: Path) -> None:
    _killed(tmp_path / "f.txt")
    _killed(tmp_path / "sub" / "g.txt")
    (foreign := tmp_path / ".other.tmp").mkdir()
    with new_directory(tmp_path / "slow") as filling:
        (filling / "half").write_text("")
        write_text(tmp_path / "other", "whole")
        assert (filling / "half").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [foreign.name, "other", "slow", "sub"]
    (left,) = (tmp_path / "sub").iterdir()  # nobody has written there since
    assert is_scratch(left)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_where_locks_are_unknown_nothing_is_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _killed(tmp_path / "f.txt")

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    sweep(tmp_path)
    (left,) = tmp_path.iterdir()
    assert is_scratch(left)


def _make_until_tidying(path: Path) -> None:
    def hook(event: str, _: object) -> None:
        if event in ("shutil.rmtree", "os.rmdir"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    with new_directory(path) as filling:
        (filling / "whole").write_text("")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_nothing_lies_beside_a_new_directory_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    """There is nothing to tidy away once the directory is in its place."""
    process = multiprocessing.get_context("fork").Process(target=_make_until_tidying, args=(tmp_path / "d",))
    process.start()
    process.join()
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["d", "d/whole"]


def test_what_a_living_process_writes_is_not_swept_away_and_the_next_writer_waits(tmp_path: Path) -> None:
    begun, may_end = Event(), Event()

    def slowly(temporary: Path) -> None:
        temporary.write_text("first")
        begun.set()
        assert may_end.wait(60)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(write_atomically, tmp_path / "f", slowly)
        assert begun.wait(60)
        second = pool.submit(write_text, tmp_path / "f", "second")
        sweep(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == [f".f{SCRATCH_SUFFIX}"]
        assert not second.done()
        may_end.set()
        first.result()
        second.result()
    assert (tmp_path / "f").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError) as caught:
        write_text(tmp_path / "file" / "below", "")
    assert str(caught.value.filename).startswith(str(tmp_path / "file"))
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError) as caught_too:
        write_text(tmp_path / "directory", "")
    assert caught_too.value.filename == str(tmp_path / "directory")
    with pytest.raises(FileNotFoundError) as other:  # not ours: it keeps its own name
        write_atomically(tmp_path / "f", lambda path: (tmp_path / "absent").read_text())
    assert other.value.filename == str(tmp_path / "absent")


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_cache_variable_is_none(empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COPL_CACHE", empty)
    monkeypatch.setenv("XDG_CACHE_HOME", empty)
    assert cache_directory() == tmp_path / ".cache" / "copl"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "copl"
    monkeypatch.setenv("COPL_CACHE", "~/mine")
    assert cache_directory() == tmp_path / "mine"
