"""What every attack must end in: exit code 2, one line a fault, no traceback, and nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

RunCopl = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


def content(root: Path) -> dict[str, bytes]:
    """Return what lies in a directory, by path, without locks, which hold nothing."""
    paths = [path for path in sorted(root.rglob("*")) if path.name != ".lock" and not path.is_symlink()]
    return {path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else b"" for path in paths}


@pytest.fixture
def refused(run_copl: RunCopl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Return a function that runs a command, which must refuse, and gives what it said."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        before = content(tmp_path)
        code, _, err = run_copl(*arguments)
        assert code == 2, (code, err)
        assert content(tmp_path) == before, "something was written"
        assert "Traceback" not in err
        lines = [line for line in err.splitlines() if line.strip()]
        assert lines, "refused without a word"
        usage = lines[0].startswith(("Usage:", "╭"))  # what the command line's own parser refuses
        assert usage or all(line.startswith("copl: ") for line in lines), err
        assert all(len(line) < 2200 for line in lines)
        assert not any(character < " " for line in lines for character in line), lines
        return err

    return run


@pytest.fixture
def workplace(tmp_path: Path, small_data: Path, small_run: Path) -> Path:
    """A directory with a copy of a data set and of an evaluated run, whose files a test may damage."""
    for source, name in ((small_data, "data"), (small_run, "run")):
        for path in sorted(source.rglob("*")):
            target = tmp_path / name / path.relative_to(source)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                os.utime(target, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
    return tmp_path
