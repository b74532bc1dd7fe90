"""The Ray engine: every cell is a task of a Ray cluster; a task whose process or machine dies is started again.

The study's directory, the data sets and the cache must be on a file system that all machines share.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from copl.ablate.cells import Cell, Outcome, record_failure, run_cell
from copl.ablate.local import Report
from copl.errors import OptionsError

MAX_RETRIES = 3
"""How often a task is started again whose process or machine has died."""


def run_on_ray(cells: Sequence[Cell], num_jobs: int | None, report: Report) -> None:
    """Run cells on the cluster named by ``RAY_ADDRESS``, or on one that is started on this machine.

    Args:
        cells: the cells.
        num_jobs: cells at a time; as many as there are cores (or accelerators) where None.
        report: told of each cell as it ends.

    Raises:
        OptionsError: Ray is not installed.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        ray.init(
            address=os.environ.get("RAY_ADDRESS"),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=False,
        )
    try:
        _run(ray, cells, num_jobs, report)
    finally:
        if ours:
            ray.shutdown()


def _run(ray: Any, cells: Sequence[Cell], num_jobs: int | None, report: Report) -> None:
    resources = ray.cluster_resources()
    gpus = 1 if resources.get("GPU", 0) >= 1 else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=MAX_RETRIES)(_run_cell)
    limit = num_jobs or max(1, int(resources.get("GPU" if gpus else "CPU", 1)))
    waiting, running = list(cells), dict[Any, Cell]()
    while waiting or running:
        while waiting and len(running) < limit:
            cell = waiting.pop(0)
            running[task.remote(cell.to_json())] = cell
        done, _ = ray.wait(list(running), num_returns=1)
        for reference in done:
            cell = running.pop(reference)
            try:
                outcome = Outcome.from_json(ray.get(reference))
            except ray.exceptions.RayError as error:
                lines = str(error).strip().splitlines() or [""]
                outcome = record_failure(cell, Outcome((f"{type(error).__name__}: {lines[0]}",), str(error)))
            report(cell, outcome)


def _run_cell(cell: str) -> str:
    return run_cell(Cell.from_json(cell)).to_json()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise OptionsError("--engine ray needs Ray: pip install 'copl[ray]'") from error
    return ray
