"""Processor seconds of the main job, part by part, beside those of another commit.

    python -m benchmarks.main_job --beside ../a080d9a --out benchmarks/results/main_job.md

Each part runs in a process of its own on one thread, in the other checkout and here: what other work does to the clock
does little to processor time. `copl demo` begins with an empty cache. `copl evaluate` is given the runs it left, every
evaluation forgotten, in the runs and in the cache: with what else the cache holds, as who evaluates on the machine that
trained, and with no cache. Scores are those of responses of the data for users who are seen.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from benchmarks.measured import RESULTS, ROOT, markdown_table, provenance
from copl.system.files import write_text

_SCORING = """
import sys, time
from pathlib import Path
import numpy as np
from copl.data.dataset import load_dataset
from copl.model import Model
from copl.records import ScoreRequests, UserTable
model, data = Model.open(sys.argv[1]), load_dataset(Path(sys.argv[2]))
users = UserTable.ungrouped(list(model.method.seen_users())[:50])
texts, user = np.tile(np.arange(500), len(users)), np.repeat(np.arange(len(users)), 500)
started = time.process_time()
scores = model.method.scores(ScoreRequests(users, data.responses, user, texts))
assert np.isfinite(scores).all() and len(scores) == 25_000
print("seconds", time.process_time() - started)
"""


@frozen
class Part:
    """What a part took.

    Attributes:
        seconds: processor seconds.
        peak_mib: highest resident memory of its process.
    """

    seconds: float
    peak_mib: float


def run(checkout: Path, command: Sequence[str], scratch: Path) -> tuple[Part, str]:
    """Run Python on the code of a checkout; return what it took and what it printed."""
    code = os.pathsep.join(map(str, (checkout, checkout / "plugins/copl-baselines/src")))
    quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {**os.environ, **quiet, "PYTHONPATH": code, "COPL_CACHE": str(scratch / "cache")}
    with (scratch / "output").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=scratch, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} in {checkout} ended with {process.returncode}:\n{said}")
    return Part(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024), said


def _forget_evaluations(run_directory: Path, cache: Path) -> None:
    """Remove what evaluations keep, in a run and in the cache."""
    shutil.rmtree(run_directory / "evaluation")
    shutil.rmtree(cache / "stages" / "evaluation", ignore_errors=True)
    for page in ("metrics.json", "report.html"):
        (run_directory / page).unlink(missing_ok=True)


def measured(checkout: Path, scratch: Path, *, options: Sequence[str]) -> dict[str, Part]:
    """Return what each part takes in a checkout."""
    scratch.mkdir()
    demo = scratch / "demo"
    parts: dict[str, Part] = {}
    parts["copl demo"], _ = run(checkout, ["-m", "copl.cli", "demo", "--out", str(demo), *options], scratch)
    for method in ("copl", "btl"):
        for said, options_of_it in ((method, []), (f"{method}, no cache", ["--no-cache"])):
            _forget_evaluations(demo / method, scratch / "cache")
            command = ["-m", "copl.cli", "evaluate", str(demo / method), *options_of_it]
            parts[f"copl evaluate, {said}"], _ = run(checkout, command, scratch)
    whole, said = run(checkout, ["-c", _SCORING, str(demo / "copl"), str(demo / "data")], scratch)
    seconds = float(said.rpartition("seconds")[2])
    parts["500 known texts for 50 users"] = Part(seconds, whole.peak_mib)
    return parts


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--beside", type=Path, required=True, help="checkout of another commit")
    parser.add_argument("--out", type=Path, default=RESULTS / "main_job.md")
    parser.add_argument("--set", action="append", default=[], help="an option of the recipes, as of `copl demo`")
    arguments = parser.parse_args(argv)
    options = [word for assignment in arguments.set for word in ("--set", assignment)]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        other = measured(arguments.beside.resolve(), root / "beside", options=options)
        here = measured(ROOT, root / "here", options=options)
    rows = [
        [
            name,
            f"{other[name].seconds:.1f}",
            f"{part.seconds:.1f}",
            f"{part.seconds / other[name].seconds:.3f}",
            f"{part.peak_mib / other[name].peak_mib:.2f}",
        ]
        for name, part in here.items()
    ]
    commit = subprocess.run(
        ["git", "-C", str(arguments.beside), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    command = " ".join(["python -m benchmarks.main_job --beside CHECKOUT", *options])
    lines = [
        f"# The main job beside {commit}",
        "",
        *provenance(command, threads=1, facts=["processor seconds; memory is that of the whole process"]),
        "",
        *markdown_table(["part", f"{commit}, s", "here, s", "ratio", "peak memory, ratio"], rows),
    ]
    write_text(arguments.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
