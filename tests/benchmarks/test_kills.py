"""What is compared after a kill: everything but times, and strays are seen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.kills_commands import COMMANDS
from benchmarks.kills_content import content, strays

if TYPE_CHECKING:
    from pathlib import Path


def test_equal_files_of_other_times_are_equal_and_others_are_not(tmp_path: Path) -> None:
    for name, seconds, loss in (("a", 1.0, 0.5), ("b", 2.0, 0.5), ("c", 1.0, 0.4)):
        place = tmp_path / name / "run"
        place.mkdir(parents=True)
        (place / "reward.json").write_text(json.dumps({"training": {"seconds": seconds, "loss": loss}}))
        (place / "run.json").write_text(json.dumps({"status": "finished", "created": seconds}))
        pq.write_table(pa.table({"cost_seconds": [seconds], "loss": [loss]}), place / "results.parquet")
    first, later, other = (content(tmp_path / name) for name in "abc")
    assert first == later
    assert {name for name in first if first[name] != other[name]} == {"run/reward.json", "run/results.parquet"}


def test_strays_are_told_from_what_belongs(tmp_path: Path) -> None:
    (tmp_path / "run" / "graph.partial").mkdir(parents=True)
    for name in (".lock", "stage.json", ".stage.json.copl-tmp", "model.safetensors"):
        (tmp_path / "run" / name).touch()
    assert strays(tmp_path) == ["run/.stage.json.copl-tmp", "run/graph.partial"]


def test_each_command_has_a_name_of_its_own() -> None:
    assert len({command.name for command in COMMANDS}) == len(COMMANDS)
