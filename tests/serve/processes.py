"""The program in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def process(run: Path, store: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the program; give it with its address. It is killed in the end."""
    command = [sys.executable, "-c", "from copl.cli import main; main()", "serve", str(run), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    started = subprocess.Popen(
        [*command, "--store", str(store), *flags], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert started.stderr is not None
        line = started.stderr.readline()
        assert line.startswith("http://"), line + started.stderr.read()
        yield started, line.split()[0]
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait(30)
        started.stderr.close()
