"""A file of lines appears whole, goes on after a kill, and takes up nothing that belongs to something else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.align.journal import Journal
from copl.errors import DataError

KEY = {"run": "a"}
LINES = [f'{{"n": {number}}}' for number in range(7)]


def write(target: Path, lines: list[str], *, key: object = KEY, piece: int = 2, die: int | None = None) -> int:
    """Write lines in pieces, from where an earlier try has stopped; return how many were kept."""
    with Journal.open(target, {"key": key}, piece=piece) as journal:
        for start in range(journal.num_kept, len(lines), piece):
            if die is not None and start >= die:
                return journal.num_kept
            journal.add(lines[start : start + piece])
        journal.finish()
        return journal.num_kept


def part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def test_the_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out.jsonl"
    write(target, LINES, die=4)
    assert not target.exists()
    assert write(target, LINES) == 4
    assert target.read_text().splitlines() == LINES
    assert [path.name for path in target.parent.iterdir()] == ["out.jsonl"]


@given(cut=st.integers(0, 80), piece=st.integers(1, 4))
def test_wherever_it_was_cut_the_end_is_the_same(
    cut: int, piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.mktemp("cut") / "out.jsonl"
    write(target, LINES, piece=piece, die=6)
    part = part_of(target)
    if part.exists():
        part.write_bytes(part.read_bytes()[: -cut or None])
    assert write(target, LINES, piece=piece) % piece == 0
    assert target.read_text().splitlines() == LINES


@given(data=st.data())
def test_whatever_was_changed_by_others_the_end_is_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("changed")
    target, other = root / "out.jsonl", root / "other.jsonl"
    write(target, LINES, piece=1, die=6)
    write(other, [line.replace("n", "m") for line in LINES], key="other", piece=1, die=6)
    lines, foreign = (part_of(path).read_bytes().splitlines(keepends=True) for path in (target, other))
    changed = data.draw(st.lists(st.sampled_from([*lines, *foreign, b"5\n", b'{"n": 0}\n', b"\n"]), max_size=12))
    begin = data.draw(st.integers(0, len(lines)))
    part_of(target).write_bytes(b"".join(lines[:begin] + changed))
    write(target, LINES, piece=1)
    assert target.read_text().splitlines() == LINES


def test_nothing_of_another_key_is_taken_up(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    write(target, LINES, die=4)
    with Journal.open(target, {"key": "other"}, piece=2) as journal:
        assert (journal.num_kept, journal.num_dropped) == (0, 4)
    assert write(target, ["{}"], key="other") == 0
    assert target.read_text() == "{}\n"


def test_an_empty_file_and_an_existing_one(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("old")
    write(target, LINES, die=4)
    assert target.read_text() == "old"
    write(target, [], key="none")
    assert target.read_text() == ""


def test_two_do_not_write_the_same_file(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    part_of(target).mkdir()
    with pytest.raises(DataError, match="is a directory"):
        write(target, LINES)
    part_of(target).rmdir()
    with (
        Journal.open(target, KEY, piece=1),
        pytest.raises(DataError, match=f"out.jsonl: process {os.getpid()} is writing it"),
        Journal.open(target, KEY, piece=1),
    ):
        pass


def test_a_kill_loses_nothing_that_was_added(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    code = f"""
import os, signal
from pathlib import Path
from copl.align.journal import Journal
with Journal.open(Path({str(target)!r}), {{"key": {KEY!r}}}, piece=2) as journal:
    journal.add({LINES[:4]!r})
    journal._file.write(b'{{"torn')
    journal._file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert write(target, LINES) == 4
    assert target.read_text().splitlines() == LINES
