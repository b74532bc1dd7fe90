"""Time and memory of reading, splitting and checking own files as they grow.

    python -m benchmarks.data_rows

writes synthetic comparisons (100 of each user; ten million rows have a hundred thousand users and 200,000 responses),
makes a data set of them by the steps of ``copl data make parquet``, and in a second process loads and checks it as
``copl data check`` does. ``--sizes 100000,1000000`` leaves the largest out, ``--format jsonl`` or ``csv`` takes another
format. Files lie in a scratch directory while they are needed. Finished sizes are kept beside the table (``.jsonl``)
and skipped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.measured import RESULTS, Cells, code_digest, in_own_process, markdown_table, measure, provenance
from copl.system.files import write_text

STEPS = ("read", "split", "write", "check", "load and check")
"""What is measured: the first four are the steps of ``copl data make``, the last is ``copl data check``."""

SIZES = (100_000, 1_000_000, 10_000_000)
FORMATS = ("parquet", "jsonl", "csv")

MAX_GIB, MAX_MINUTES = 8, 5
"""What ten million rows may take."""

PER_USER = 100
"""Comparisons of a user."""

RESPONSES_PER_PROMPT = 10

_BLOCK = 500_000
_WORDS = 2_000


def _texts(count: int, words: int, begins: str, rng: np.random.Generator) -> Any:
    vocabulary = np.array([f"{'bcdfghklmnprstvw'[w % 16]}{'aeiou'[w % 5]}{w:x}" for w in range(_WORDS)])
    rows = vocabulary[rng.integers(_WORDS, size=(count, words))]
    return pa.array([f"{begins} {row}: {' '.join(text)}." for row, text in enumerate(rows)], pa.large_string())


def blocks(num_rows: int, seed: int) -> Iterator[Any]:
    """Yield the rows as Arrow tables: every user compares two of the ten responses to each of many prompts.

    Users take turns, and none meets a prompt twice; the better response of a pair wins four times in five.
    """
    rng = np.random.default_rng(seed)
    num_users = max(num_rows // PER_USER, 1)
    num_prompts = max(num_rows // 500, 2 * PER_USER)
    prompts = _texts(num_prompts, 12, "Question", rng)
    responses = _texts(num_prompts * RESPONSES_PER_PROMPT, 25, "Answer", rng)
    quality = rng.normal(size=len(responses))
    first_prompt = rng.integers(num_prompts, size=num_users)
    for begin in range(0, num_rows, _BLOCK):
        row = np.arange(begin, min(begin + _BLOCK, num_rows))
        user, turn = row % num_users, row // num_users
        prompt = (first_prompt[user] + turn) % num_prompts
        one = rng.integers(RESPONSES_PER_PROMPT, size=len(row))
        other = (one + rng.integers(1, RESPONSES_PER_PROMPT, size=len(row))) % RESPONSES_PER_PROMPT
        one, other = (prompt * RESPONSES_PER_PROMPT + place for place in (one, other))
        one_wins = (quality[one] > quality[other]) == (rng.random(len(row)) < 0.8)
        names = np.char.add("user-", np.char.zfill(user.astype(str), 7))
        yield pa.table(
            {
                "user_id": pa.array(names, pa.string()),
                "prompt": prompts.take(prompt),
                "chosen": responses.take(np.where(one_wins, one, other)),
                "rejected": responses.take(np.where(one_wins, other, one)),
            }
        )


def write_rows(path: Path, num_rows: int, seed: int) -> None:
    """Write the synthetic comparisons; the file's ending tells the format."""
    schema = next(blocks(1, seed)).schema
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            for block in blocks(num_rows, seed):
                file.writelines(json.dumps(row) + "\n" for row in block.to_pylist())
        return
    opened = pq.ParquetWriter if path.suffix == ".parquet" else pyarrow.csv.CSVWriter
    with opened(path, schema) as writer:
        for block in blocks(num_rows, seed):
            writer.write_table(block)


def write_cell(path: str, num_rows: int, seed: int) -> dict[str, Any]:
    """Write the file of one size; return its size."""
    write_rows(Path(path), num_rows, seed)
    return {"mib": Path(path).stat().st_size / 2**20}


def make_cell(path: str, out: str, seed: int) -> dict[str, Any]:
    """Make a data set of a file, by the steps of ``copl data make``; return what each step took."""
    from copl.data.checking.checks import check
    from copl.data.dataset import save_dataset
    from copl.data.reading.rows import parse_rows
    from copl.data.sources.tables import READERS, TableOptions, data_of_rows

    options = TableOptions(path=Path(path))
    kind = options.path.suffix[1:]
    with measure() as reading:
        rows = parse_rows(READERS[kind](options.path))
    with measure() as splitting:
        data = data_of_rows(rows, options, source=kind, name="rows", seed=seed)
        del rows
    with measure() as writing:
        save_dataset(data, Path(out))
    with measure() as checking:
        findings = check(data)
    steps = zip(STEPS, (reading, splitting, writing, checking), strict=False)
    return {
        **{name: attrs.asdict(usage) for name, usage in steps},
        "users": len(data.users),
        "responses": len(data.responses),
        "comparisons": sum(map(len, data.splits.values())),
        "errors": sum(finding.severity == "error" for finding in findings),
    }


def check_cell(directory: str) -> dict[str, Any]:
    """Load and check a data set, as ``copl data check`` does; return what that took."""
    from copl.data.checking.checks import check
    from copl.data.dataset import load_dataset

    with measure() as checking:
        check(load_dataset(Path(directory)))
    return {STEPS[-1]: attrs.asdict(checking)}


def size_cell(num_rows: int, kind: str, seed: int, scratch: str | None, threads: int) -> dict[str, Any]:
    """Write, make and check one size, each in a process of its own; return all figures."""
    with tempfile.TemporaryDirectory(prefix="data-rows-", dir=scratch) as directory:
        path, out = str(Path(directory, f"rows.{kind}")), str(Path(directory, "data"))
        result: dict[str, Any] = {}
        for target, arguments in (
            ("write_cell", {"path": path, "num_rows": num_rows, "seed": seed}),
            ("make_cell", {"path": path, "out": out, "seed": seed}),
            ("check_cell", {"directory": out}),
        ):
            result |= in_own_process(f"benchmarks.data_rows:{target}", arguments, threads=threads)
            if "error" in result:
                break
        return result


def report(found: Mapping[int, Mapping[str, Any]], kind: str, command: str, *, threads: int, seed: int) -> str:
    """Return the table."""
    facts = [
        f"seed {seed}; single runs; pyarrow {pa.__version__}",
        f"format {kind}; users 1 for every {PER_USER} rows, {RESPONSES_PER_PROMPT} responses to a prompt",
        "read, split, write, check: the steps of `copl data make`; load and check: `copl data check`, a second process",
        "CPU s: seconds of the processor, which the load of the machine changes little; s: seconds by the clock",
        "peak: highest resident memory of a process, with all libraries (torch, too, which these steps do not need)",
    ]
    lines = ["# Reading, splitting and checking rows", "", *provenance(command, threads=threads, facts=facts), ""]
    lines += [f"Ten million rows are to take a few minutes (at most {MAX_MINUTES}) within {MAX_GIB} GiB.", ""]
    header = ["rows", "file MiB", "users", "responses", *(f"{step}, CPU s" for step in STEPS)]
    header += ["make, CPU s", "make, s", "check, s", "peak GiB"]
    rows = []
    for size, cell in found.items():
        if "error" in cell:
            rows.append([f"{size:,}", str(cell["error"]), *[""] * (len(header) - 2)])
            continue
        cpu, wall = ([cell[step][field] for step in STEPS] for field in ("cpu_s", "wall_s"))
        peak = max(cell[step]["peak_mib"] for step in STEPS) / 1024
        counts = [f"{size:,}", f"{cell['mib']:,.0f}", f"{cell['users']:,}", f"{cell['responses']:,}"]
        totals = [f"{value:.1f}" for value in (sum(cpu[:-1]), sum(wall[:-1]), wall[-1])]
        rows.append([*counts, *(f"{value:.1f}" for value in cpu), *totals, f"{peak:.2f}"])
    return "\n".join([*lines, *markdown_table(header, rows)]) + "\n"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_rows", description=summary)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of rows")
    parser.add_argument("--format", choices=FORMATS, default="parquet", help="format of the file")
    parser.add_argument("--seed", type=int, default=0, help="seed of the rows and of the splits")
    parser.add_argument("--threads", type=int, default=1, help="threads of BLAS")
    parser.add_argument("--scratch", type=Path, help="directory for the files, 4 GB at ten million rows of Parquet")
    parser.add_argument("--out", type=Path, help="file of the table")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    wanted = _parse(arguments)
    if wanted.scratch:
        wanted.scratch.mkdir(parents=True, exist_ok=True)
    kind = wanted.format
    out = wanted.out or RESULTS / ("data_rows.md" if kind == "parquet" else f"data_rows_{kind}.md")
    cells = Cells(out.with_suffix(".jsonl"))
    code = code_digest("benchmarks/data_rows.py", "copl/data", "copl/records.py")
    found = {}
    for size in map(int, wanted.sizes.split(",")):
        work = {"num_rows": size, "kind": kind, "seed": wanted.seed, "threads": wanted.threads}
        found[size] = cells.compute(
            "benchmarks.data_rows:size_cell",
            {"what": "size", **work, "code": code},
            {**work, "scratch": str(wanted.scratch) if wanted.scratch else None},
            threads=wanted.threads,
            timeout=None,
        )
        print(f"{size:,} rows: {found[size]}", file=sys.stderr, flush=True)
    command = " ".join(["python -m benchmarks.data_rows", *(sys.argv[1:] if arguments is None else arguments)])
    write_text(out, report(found, kind, command, threads=wanted.threads, seed=wanted.seed))
    print(out)


if __name__ == "__main__":
    main()
