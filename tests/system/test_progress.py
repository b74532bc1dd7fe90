"""The log that progress keeps."""

from __future__ import annotations

from pathlib import Path

from copl.system.progress import RunLog, read_log


def test_what_a_killed_run_wrote_and_wrote_again_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first = RunLog(path)
    first.write("graph", {"epoch": 1, "loss": 0.5, "seconds": 1.0})
    first.write("graph", {"epoch": 2, "loss": 0.5, "seconds": 1.0})
    with path.open("ab") as file:
        file.write(b'{"time": 1, "stage": "graph", "ep')  # as a kill cuts it off
    again = RunLog(path)
    for epoch in (1, 2, 3):
        again.write("graph", {"epoch": epoch, "loss": 0.5, "seconds": 2.0})
    again.write("reward", {"epoch": 1, "loss": 0.5})
    read = [(record["stage"], record["epoch"]) for record in read_log(path)]
    assert read == [("graph", 1), ("graph", 2), ("graph", 3), ("reward", 1)]
    assert read_log(tmp_path / "none") == []
