"""Cells in processes of their own and on a Ray cluster: side by side, with one that dies on the way, interrupted.

Encoders are those without steps of training, so that a process that starts for a cell need not load what takes steps.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copl.ablate.cells import Cell, Outcome
from copl.ablate.grid import Plan
from copl.ablate.local import _Queue, run_side_by_side
from copl.errors import OptionsError

MakePlan = Callable[..., Plan]
MORTAL = '''
"""An encoder whose process dies: once where a file says so, always where another does."""
import os
from pathlib import Path

import attrs
from copl.interfaces import GraphEncoder
from copl.options import option
from copl.plugins import Component, load


@attrs.frozen
class Options:
    once: str = option("", help="dies while this file is there, and takes it along")
    always: bool = option(False, help="dies")


class Mortal(GraphEncoder):
    def __init__(self, options):
        self.options = options

    def fit(self, graph, *, seed, progress):
        print("a component prints what it likes")
        once = Path(self.options.once or "/nowhere")
        if self.options.always or once.exists():
            once.unlink(missing_ok=True)
            os.kill(os.getpid(), 9)
        return load().registry("encoder").create("spectral", {}).fit(graph, seed=seed, progress=progress)


def copl_graph_encoders():
    return [Component("mortal", Options, Mortal, "dies")]
'''


def cell(data: str, seed: int, **changes: Any) -> Cell:
    values: dict[str, Any] = {"recipe": {}, "data_directory": "d", "run": f"r/{data}{seed}", "cache": "c", **changes}
    return Cell(["v"], data, seed, **values)


def test_a_cell_and_an_outcome_cross_processes() -> None:
    sent = cell("one", 3, recipe={"encoder": {"name": "mf", "sizes": [1, 2]}})
    received = Cell.from_json(sent.to_json())
    assert str(received) == "one, v, seed 3"
    assert (received.run, received.recipe) == (Path("r/one3"), {"encoder": {"name": "mf", "sizes": [1, 2]}})
    assert Outcome.from_json(Outcome(("a", "b"), "trace").to_json()) == Outcome(("a", "b"), "trace")


def test_cells_that_may_share_a_stage_are_kept_apart_while_there_are_others() -> None:
    first, same, other = cell("one", 0), cell("one", 0), cell("one", 1)
    queue = _Queue([first, same, other])
    assert [queue.take(), queue.take(), queue.take(), queue.take()] == [first, other, same, None]
    queue = _Queue([first, same, other])
    assert queue.take() is first
    queue.done(first)
    assert queue.take() is same


@pytest.fixture
def mortals(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """Cells of the encoder `mortal`, which processes find as an installed package: fine, dying once, dying always."""
    site = tmp_path / "site"
    (site / "mortal-1.dist-info").mkdir(parents=True)
    (site / "mortal.py").write_text(MORTAL)
    (site / "mortal-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mortal\nVersion: 1\n")
    (site / "mortal-1.dist-info" / "entry_points.txt").write_text("[copl]\nmortal = mortal\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    (tmp_path / "once").touch()
    options: list[dict[str, Any]] = [{}, {"once": str(tmp_path / "once")}, {"always": True}]
    return [
        cell(
            "one",
            seed,
            recipe={"method": {"name": "graph"}, "encoder": {"name": "mortal", **chosen}},
            data_directory=planted / "one",
            run=tmp_path / "cells" / f"run{seed}",
            cache=tmp_path / "cache",
        )
        for seed, chosen in enumerate(options)
    ]


@pytest.mark.slow
def test_a_process_that_dies_is_replaced_and_its_cell_tried_once_more(mortals: list[Cell]) -> None:
    outcomes: dict[int, Outcome] = {}
    run_side_by_side(mortals, 2, lambda ended, outcome: outcomes.update({ended.seed: outcome}))
    assert [outcomes[seed].failed for seed in (0, 1, 2)] == [False, False, True]
    assert outcomes[2].faults == ("its process was killed by signal 9 (out of memory?), 2 times",)
    assert [ended.state() for ended in mortals] == ["finished", "finished", "failed"]


@pytest.mark.slow
def test_an_interrupted_study_keeps_its_finished_cells(planted: Path, tmp_path: Path) -> None:
    words = ["ablate", "--vary", "encoder=spectral,none", "--set", "method.name=graph"]
    words += ["--data", str(planted / "one"), "--seeds", "20", "--jobs", "2", "--out", "out", "--no-cache"]
    process = subprocess.Popen(
        [sys.executable, "-m", "copl.cli", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs, such as this test run may be, with interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:  # of a slow machine it says first what is running
            if line.startswith("[1/40]"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.wait() == 130, rest
    assert rest.splitlines()[-1].startswith("copl: interrupted; finished cells are kept")
    finished = list((tmp_path / "out" / "cells").rglob("metrics.json"))
    assert 1 <= len(finished) < 40
    assert not list((tmp_path / "out").rglob("*.failed.json"))


def test_ray_that_is_not_installed_is_a_mistake_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, run_copl: Callable[..., tuple[int, str, str]], planted: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ("--set", "method.name=graph", "--data", planted / "one", "--out", tmp_path / "out")
    code, _, err = run_copl("ablate", *words, "--engine", "ray")
    assert code == 2
    assert err.splitlines()[-1] == "copl: --engine ray needs Ray: pip install 'copl[ray]'"
    from copl.ablate.cluster import run_on_ray

    with pytest.raises(OptionsError, match="needs Ray"):
        run_on_ray([], None, lambda ended, outcome: None)


ON_RAY = """
import json
import sys

import ray
from ray.cluster_utils import Cluster

from copl.ablate import cluster as engine
from copl.ablate.cells import Cell

engine.MAX_RETRIES = 1
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
assert ray.cluster_resources()["CPU"] == 2
outcomes = {}
cells = [Cell.from_json(line) for line in json.load(open(sys.argv[1]))]
engine.run_on_ray(cells, None, lambda cell, outcome: outcomes.update({cell.seed: outcome.faults}))
json.dump(outcomes, open(sys.argv[2], "w"))  # Ray writes what it likes to the standard output
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install 'copl[ray]')")
def test_a_cluster_of_two_workers_finishes_though_one_is_killed(mortals: list[Cell], tmp_path: Path) -> None:
    """In a process of its own: Ray leaves threads and sockets behind, and warns as it likes."""
    (tmp_path / "cells.json").write_text(json.dumps([mortal.to_json() for mortal in mortals]))
    (tmp_path / "on_ray.py").write_text(textwrap.dedent(ON_RAY))
    done = subprocess.run(
        [sys.executable, *(str(tmp_path / name) for name in ("on_ray.py", "cells.json", "outcomes.json"))],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads((tmp_path / "outcomes.json").read_text())
    assert outcomes["0"] == outcomes["1"] == []
    assert outcomes["2"][0].startswith("WorkerCrashedError")
    assert [mortal.state() for mortal in mortals] == ["finished", "finished", "failed"]
    assert not (tmp_path / "once").exists()
