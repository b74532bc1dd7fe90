"""What a command leaves, as checksums that two equal commands have in common whenever they run."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from copl.runs.stages import UNFINISHED
from copl.system.files import is_scratch

TIMES = {"seconds", "created"}
"""Keys of JSON whose values are times."""
SEALS = {"seal", "sha256", "files"}
"""Keys whose values are checksums of files that hold times; the files themselves are compared."""
LEFT_OUT = {".lock", "log.jsonl"}
"""Hold times and process numbers."""
CACHE = "cache"
"""Below the place; it may hold more after a kill, and is searched for strays only."""


def content(root: Path) -> dict[str, str]:
    """Return the checksum of each file below a directory, and each directory; a finished run must say so."""
    left = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.relative_to(root).parts[0] == CACHE:
            continue
        if path.name == "run.json":
            left[name] = str(json.loads(path.read_bytes()).get("status"))
        elif path.name not in LEFT_OUT:
            left[name] = hashlib.sha256(untimed(path)).hexdigest() if path.is_file() else "directory"
    return left


def strays(root: Path) -> list[str]:
    """Return what a write that was killed has left: what was being written, and stages half computed."""
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if is_scratch(path.relative_to(root)) or path.suffix == UNFINISHED
    )


def untimed(path: Path) -> bytes:
    """Return a file without its times."""
    if path.suffix == ".json":
        return json.dumps(_untimed(json.loads(path.read_bytes())), sort_keys=True).encode()
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.ParquetFile(path, pre_buffer=False).read(use_threads=False)  # whoever forks has no threads
        kept = [name for name in table.column_names if not TIMES.intersection(re.split(r"[_.]", name))]
        return repr(table.select(kept).to_pylist()).encode()
    return path.read_bytes()


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(item) for key, item in value.items() if key not in TIMES | SEALS}
    return [_untimed(item) for item in value] if isinstance(value, list) else value
