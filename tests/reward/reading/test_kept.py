"""Rows of numbers kept by text."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from copl.errors import RunError
from copl.plugins import load
from copl.reward.reading import kept
from copl.reward.reading.kept import READING, KeptRows, clear_away, kept_by
from copl.runs.recipe import resolve

A, B, C = (hashlib.sha256(name.encode()).hexdigest() for name in "abc")

HARMLESS = {
    "copl.errors", "copl.hookspecs", "copl.interfaces", "copl.options", "copl.plugins", "copl.records", "copl.runs",
    "copl.system", "copl.experts.targets", "copl.reward.options", "copl.reward.reading", "copl.reward.backbones",
}  # fmt: skip
"""What code that reads stands on without it deciding what a text is read as; the last two are in the digest whole."""


def imported_by(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {node.module for node in nodes if node.module and node.module.startswith("copl.")}


def test_readings_are_kept_by_all_code_that_decides_what_a_text_is_read_as() -> None:
    sources = [Path(spec.origin) for spec in map(find_spec, READING) if spec is not None and spec.origin is not None]
    assert len(sources) == len(READING)
    files = [path for source in sources[:2] for path in source.parent.glob("*.py")]
    imported = set[str]().union(*map(imported_by, files))
    others = {name for name in imported if not any(f"{name}.".startswith(f"{known}.") for known in HARMLESS)}
    assert others == set(READING[2:])  # who imports more from here adds it to one or the other


def test_readings_outlive_an_edit_elsewhere_and_no_edit_of_what_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = resolve({}, load()).stages
    before = kept_by(stages.key("backbone")["backbone"])
    monkeypatch.setattr("copl.runs.recipe.code_digest", lambda build: "edited")  # the digest of the whole package
    assert kept_by(stages.key("backbone")["backbone"]) == before
    monkeypatch.setattr("copl.reward.reading.kept.modules_digest", lambda *names: "edited")
    assert kept_by(stages.key("backbone")["backbone"]) != before


def filled(directory: Path | None) -> tuple[KeptRows, torch.Tensor]:
    """Two texts, of two rows and of one."""
    rows, values = KeptRows(directory), torch.arange(6.0).reshape(3, 2)
    rows.put([A, B], [2, 1], values)
    return rows, values


@pytest.mark.parametrize("in_files", [False, True])
def test_rows_come_back_by_text(in_files: bool, tmp_path: Path) -> None:
    rows, values = filled(tmp_path if in_files else None)
    found = rows.get([B, A, B])
    assert len(found) == 3
    assert torch.equal(found.text(1), values[:2])
    assert torch.equal(found.flat([0, 1]), values[[2, 0, 1]])
    padded = found.padded([1, 2], torch.tensor([[0, 1, 1], [1, 0, 0]]))
    assert padded.tolist() == [[[0, 0], [0, 1], [2, 3]], [[4, 5], [0, 0], [0, 0]]]
    assert (rows.lacks(A), rows.lacks(C)) == (False, True)
    rows.put([C], [1], torch.tensor([[7.0, 8.0]]))
    assert rows.get_single([C, B]).tolist() == [[7, 8], [4, 5]]


def test_others_find_what_was_put_into_files_also_once_they_are_gone(tmp_path: Path) -> None:
    _, values = filled(tmp_path)
    other = KeptRows(tmp_path)
    assert other.lacks(A)
    other.refresh()
    for path in tmp_path.iterdir():
        path.unlink()
    assert torch.equal(other.get([A]).text(0), values[:2])


@pytest.mark.parametrize("spoil", [lambda content: content[:-3], lambda content: content[:-1] + b"x"])
def test_a_damaged_file_is_taken_away(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    filled(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(spoil(path.read_bytes()))
    (tmp_path / "notes.txt").write_text("not ours")
    other = KeptRows(tmp_path)
    other.refresh()
    assert other.lacks(A)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_where_nothing_can_be_written_rows_stay_in_memory(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    rows, values = filled(blocked / "directory")
    assert torch.equal(rows.get([A]).text(0), values[:2])


def test_beyond_the_limit_the_oldest_rows_in_memory_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = filled(None)
    held = rows.get([A])
    rows.put([C], [1], torch.ones(1, 2))
    rows.forget()
    assert not rows.lacks(A)
    monkeypatch.setattr(kept, "_IN_MEMORY_BYTES", 10)
    rows.forget()
    assert (rows.lacks(A), rows.lacks(B), rows.lacks(C)) == (True, True, False)
    assert held.text(0).tolist() == [[0, 1], [2, 3]]  # who has asked already keeps what was given


def test_beyond_the_limit_files_not_in_use_are_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "former")
    (old,) = (tmp_path / "former").iterdir()
    os.utime(old, (1, 1))
    new = KeptRows(tmp_path / "new")
    new.put([C], [1], torch.ones(1, 2))
    clear_away(tmp_path, new.files)
    assert old.exists()
    monkeypatch.setattr(kept, "_ON_DISK_BYTES", 0)
    clear_away(tmp_path, new.files)
    assert not old.exists()
    assert {path.name for path in (tmp_path / "new").iterdir()} == new.files


def test_a_file_that_somebody_vouches_for_is_taken_in_or_an_error(tmp_path: Path) -> None:
    rows = KeptRows()
    rows.put([A, B], [1, 1], torch.arange(4.0).reshape(2, 2))
    rows.save([B], tmp_path / "one")
    other = KeptRows()
    other.add_file(tmp_path / "one")
    assert other.get_single([B]).tolist() == [[2, 3]]
    assert other.lacks(A)
    with pytest.raises(RunError, match="missing"):
        other.add_file(tmp_path / "none")
    (tmp_path / "one").write_bytes(b"nonsense")
    with pytest.raises(RunError, match="damaged"):
        KeptRows().add_file(tmp_path / "one")
