"""What is there before a data set is written: replaced when asked, as a whole, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pyarrow.parquet as pq
import pytest

from copl.data.dataset import dataset_fingerprint, load_dataset, save_dataset
from copl.errors import DataError
from copl.records.judgements import Judgements
from tests.data.example import assert_same, edited, example

OWN = {"dataset.json", "responses.parquet", "users.parquet", "comparisons.parquet", "judgements.parquet"}


def test_a_data_set_is_replaced_only_when_asked(saved: Path) -> None:
    with pytest.raises(DataError, match="holds a data set already"):
        save_dataset(example(("x", "y", "z")), saved)
    assert load_dataset(saved).responses.texts == ("a", "b", "c")
    save_dataset(example(("x", "y", "z")), saved, overwrite=True)
    assert load_dataset(saved).responses.texts == ("x", "y", "z")
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_anything_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dataset.json").write_text("{}")
    (tmp_path / "file").write_text("text")
    for name, message in (("mine", "something else"), ("file", "is a file")):
        with pytest.raises(DataError, match=message):
            save_dataset(example(), tmp_path / name, overwrite=True)
    assert (tmp_path / "mine" / "dataset.json").read_text() == "{}"
    (tmp_path / "empty").mkdir()
    save_dataset(example(), tmp_path / "empty")
    assert_same(load_dataset(tmp_path / "empty"), example())


def test_files_that_are_no_part_of_the_data_set_stay(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    (saved / "plots").mkdir()
    save_dataset(example(("x", "y", "z")), saved, overwrite=True)
    assert load_dataset(saved).responses.texts == ("x", "y", "z")
    assert (saved / "notes.txt").read_text() == "mine"
    assert {path.name for path in saved.iterdir()} == OWN | {"notes.txt", "plots"}


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moves", range(8))
def test_whenever_it_is_killed_the_old_or_the_new_data_set_is_there(
    saved: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    left = [moves]

    def killed_after(what: Callable[..., Any]) -> Callable[..., Any]:
        def move(*arguments: Any) -> Any:
            if not left[0]:
                raise KilledError
            left[0] -= 1
            return what(*arguments)

        return move

    monkeypatch.setattr(Path, "replace", killed_after(Path.replace))
    monkeypatch.setattr(Path, "rmdir", killed_after(Path.rmdir))
    with suppress(KilledError):
        save_dataset(example(("x", "y", "z")), saved, overwrite=True)
    monkeypatch.undo()
    texts = load_dataset(saved).responses.texts
    assert texts == (("a", "b", "c") if moves < 2 else ("x", "y", "z"))
    assert dataset_fingerprint(saved)
    with pytest.raises(DataError, match="holds a data set already"):
        save_dataset(example(), saved)
    save_dataset(example(("1", "2", "3")), saved, overwrite=True)
    assert load_dataset(saved).responses.texts == ("1", "2", "3")
    assert {path.name for path in saved.iterdir()} == OWN


def test_of_several_who_write_at_once_each_waits_for_the_one_before(tmp_path: Path) -> None:
    """One set has judgements and the other one has none, so that a mixture of both would be seen."""
    texts = [("a", "b", "c"), ("x", "y", "z")]
    sets = [
        example(texts[0]),
        attrs.evolve(example(texts[1]), judgements={"train": Judgements([2], [0], [0], [-1], [1])}),
    ]
    save_dataset(sets[0], tmp_path / "one")
    with ThreadPoolExecutor(4) as pool:
        for place in ("one", "new", "newer"):
            writing = [pool.submit(save_dataset, sets[n % 2], tmp_path / place, overwrite=True) for n in range(6)]
            while not all(one.done() for one in writing):
                if (tmp_path / place).exists():
                    read = load_dataset(tmp_path / place)
                    assert_same(read, sets[texts.index(read.responses.texts)])
            for one in writing:
                one.result()
            assert {path.name for path in (tmp_path / place).iterdir()} == OWN
    assert {path.name for path in tmp_path.iterdir()} == {"one", "new", "newer"}


def test_what_has_changed_since_it_was_read_is_not_replaced(saved: Path) -> None:
    before = dataset_fingerprint(saved)
    save_dataset(example(("x", "y", "z")), saved, overwrite=True, instead_of=before)
    with pytest.raises(DataError, match="has changed the data set since it was read; try again"):
        save_dataset(example(("1", "2", "3")), saved, overwrite=True, instead_of=before)
    assert load_dataset(saved).responses.texts == ("x", "y", "z")


def test_a_data_set_of_another_version_can_be_replaced(saved: Path) -> None:
    edited("version", 0)(saved)
    save_dataset(example(), saved, overwrite=True)
    assert_same(load_dataset(saved), example())


def test_a_link_to_a_data_set_stays_a_link(saved: Path) -> None:
    link = saved.parent / "link"
    link.symlink_to(saved)
    save_dataset(example(("x", "y", "z")), link, overwrite=True)
    assert link.is_symlink()
    assert load_dataset(saved).responses.texts == ("x", "y", "z")
    assert {path.name for path in saved.parent.iterdir()} == {"set", "link"}


def test_a_failure_leaves_nothing_behind(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    for directory in (saved, saved.parent / "new"):
        with pytest.raises(OSError, match="disk full"):
            save_dataset(example(("x", "y", "z")), directory, overwrite=True)
    monkeypatch.undo()
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert load_dataset(saved).responses.texts == ("a", "b", "c")
