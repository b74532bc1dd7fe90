"""What benchmarks share: work measured in a process of its own, results that survive a kill, where a run was made."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import attrs

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

_MARK = "result: "


@final
@attrs.define
class Usage:
    """What a piece of work took.

    Attributes:
        wall_s: seconds by the clock.
        cpu_s: seconds of all threads of the process.
        peak_mib: highest resident memory while it ran, in MiB, all that the process held before included.
        start_mib: resident memory when it began.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mib: float = 0.0
    start_mib: float = 0.0


def _status_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


@contextmanager
def measure() -> Iterator[Usage]:
    """Measure the work in the block; the usage is filled in when it ends."""
    usage = Usage()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
        usage.start_mib = _status_mib("VmRSS:")
    except OSError:  # not Linux: the peak is that of the whole process
        usage.start_mib = float("nan")
    wall, cpu = time.perf_counter(), time.process_time()
    yield usage
    usage.wall_s, usage.cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    try:
        usage.peak_mib = _status_mib("VmHWM:")
    except OSError:
        usage.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "linux" else 1024)
        usage.peak_mib /= 1024


def in_own_process(
    target: str, arguments: Mapping[str, Any], *, threads: int, timeout: float | None = None
) -> dict[str, Any]:
    """Call a function in a fresh process, so that its time and memory are its own.

    Args:
        target: ``module:function``; the function takes keywords and returns plain JSON values in a dict.
        arguments: plain JSON values.
        threads: number of threads of torch and of BLAS.
        timeout: seconds after which it is ended.

    Returns:
        what the function returned, or ``{"error": ...}``.
    """
    command = [sys.executable, "-m", "benchmarks.measured", target, json.dumps(arguments), str(threads)]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **limits}, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not finished after {timeout:g} s"}
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            return dict(json.loads(line.removeprefix(_MARK)))
    last = done.stderr.strip().splitlines()
    return {"error": last[-1] if last else f"ended with code {done.returncode}"}


def _work(target: str, arguments: str, threads: str) -> None:
    import torch

    torch.set_num_threads(int(threads))
    module, _, name = target.partition(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    print(_MARK + json.dumps(result), flush=True)


@final
class Cells:
    """Results by what they depend on, one line each in a file; a finished one is never computed again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:  # cut short by a kill
                    continue
                self._found[_key(record["cell"])] = record["result"]

    def get(self, cell: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the result of a finished cell; a failed one counts as not finished."""
        result = self._found.get(_key(cell))
        return None if result is None or "error" in result else result

    def compute(
        self, target: str, cell: Mapping[str, Any], arguments: Mapping[str, Any], *, threads: int, timeout: float | None
    ) -> dict[str, Any]:
        """Return the result of a cell, from the file or by `in_own_process`."""
        result = self.get(cell)
        if result is None:
            result = in_own_process(target, arguments, threads=threads, timeout=timeout)
            self.keep(cell, result)
        return result

    def keep(self, cell: Mapping[str, Any], result: dict[str, Any]) -> None:
        """Write down the result of a cell."""
        self._found[_key(cell)] = result
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"cell": cell, "result": result}) + "\n")


def _key(cell: Mapping[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)


def code_digest(*places: str) -> str:
    """Return a digest of the Python files at places in the project, so that results of other code are not reused."""
    digest = hashlib.sha256()
    for place in places:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(file.relative_to(ROOT).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def commit() -> str:
    """Return the commit that is checked out, and whether something has been changed on top of it."""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return (_git("rev-parse", "--short=10", "HEAD") or "unknown") + (" with local changes" if changed else "")


def machine() -> str:
    """Return what measures, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB of memory"


def provenance(command: str, *, threads: int, facts: Iterable[str] = ()) -> list[str]:
    """Return the first lines of a table of results: command, commit, versions, machine and `facts`."""
    packages = ("torch", "numpy", "scipy")
    return [
        f"- command: `{command}`",
        f"- commit: {commit()}; Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in packages),
        f"- machine: {machine()}, no accelerator used, {threads} threads; "
        f"load average of the last 15 minutes at the end {os.getloadavg()[2]:.1f}",
        *(f"- {fact}" for fact in facts),
    ]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table; the first column is text, the others are numbers."""
    marks = ["---"] + ["---:"] * (len(header) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in (header, marks, *rows)]


if __name__ == "__main__":
    _work(*sys.argv[1:])
