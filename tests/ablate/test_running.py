"""What a study says of cells that take long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from copl.ablate import cells as cells_module
from copl.ablate.cells import Cell
from copl.ablate.conduct import Found
from copl.ablate.grid import Plan
from copl.ablate.running import telling_what_runs, what_runs
from copl.system.progress import NotedProgress


@pytest.fixture
def cells(tmp_path: Path) -> Sequence[Cell]:
    return [
        Cell((f"variant-{seed}",), "facets", seed, {}, tmp_path / "data", tmp_path / f"run-{seed}", tmp_path / "cache")
        for seed in range(5)
    ]


def test_every_running_cell_says_its_task_and_how_far_it_is(cells: Sequence[Cell]) -> None:
    assert what_runs(cells) == ""
    with NotedProgress(cells[1].note_file, interval=0.0).task("reward", total=8) as task:
        assert what_runs(cells) == "running: facets, variant-1, seed 1: reward"
        task.advance(3, loss=0.5)
        assert what_runs(cells) == "running: facets, variant-1, seed 1: reward: 3/8  loss 0.5"


def test_many_cells_are_one_line(cells: Sequence[Cell]) -> None:
    for cell in cells:
        cell.note_file.write_text("reading")
    assert what_runs(cells).endswith("facets, variant-2, seed 2: reading; and 2 more")


def test_it_is_said_from_time_to_time_until_the_cells_have_ended(cells: Sequence[Cell]) -> None:
    cells[0].note_file.write_text("reading")
    said, heard = [], threading.Event()

    def say(line: str) -> None:
        said.append(line)
        heard.set()

    with telling_what_runs(cells, say, every=0.01):
        assert heard.wait(60)
    assert set(said) == {"running: facets, variant-0, seed 0: reading"}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("what runs")]


def test_a_cell_notes_what_it_does_while_it_runs_and_leaves_nothing(
    make_plan: Callable[..., Plan],
    run_plan: Callable[..., tuple[Found, list[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    train = cells_module.train

    def watched(*arguments: Any, **named: Any) -> Any:
        trained = train(*arguments, **named)
        seen.extend(path.read_text() for path in tmp_path.rglob(".*.now"))
        return trained

    monkeypatch.setattr(cells_module, "train", watched)
    run_plan(make_plan(vary=["encoder=mf"]), tmp_path / "out")
    assert any(note.startswith("graph encoder") for note in seen)
    assert not list((tmp_path / "out").rglob(".*.now"))
