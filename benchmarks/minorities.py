"""What becomes of the smaller of two groups: the default encoder beside consensus and the limit, group by group.

    python -m benchmarks.minorities

Planted graphs of 4,000 users who give 15 comparisons each about 12,000 pairs, half of them controversial; the groups
are of 9 to 1, 8 to 2 and 1 to 1. `consensus` is encoder ``none``, which knows no users; the limit is the mixture told
the number of groups. Accuracy on held-out comparisons of the same users on pairs that others have judged, apart for the
larger and the smaller group; means over seeds with 95 % intervals by Student's t. Finished cells are kept beside the
record (``.jsonl``) and skipped next time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve

from benchmarks.limits import answers, mixture
from benchmarks.measured import RESULTS, Cells, code_digest, measure
from benchmarks.planted_cases import data_of, margins_of
from benchmarks.records import PublishedTable, new_record, write_record
from copl.ablate.statistics import t_interval
from copl.evaluate.tables import number
from copl.records import BoolArray, FloatArray, PreferenceData
from copl.runs.recipe import DEFAULTS

SHARES = {"9 to 1": [9.0, 1.0], "8 to 2": [8.0, 2.0], "1 to 1": [1.0, 1.0]}
LIMIT = "limit (mixture)"
CODE = ("benchmarks/minorities.py", "copl/graph", "copl/data/sources/planted")


def fit_cell(options: dict[str, Any], seed: int, method: str) -> dict[str, Any]:
    """Fit one encoder, or the mixture, on one graph; return its accuracy by size of the user's group."""
    from copl.graph.build import build_graph
    from copl.plugins import load
    from copl.system.progress import SilentProgress

    data = data_of(options, seed)
    with measure() as usage:
        if method == LIMIT:
            right = _mixture(data, options, seed)
        else:
            encoder = load().registry("encoder").create(method, {})
            margins = margins_of(
                encoder.fit(build_graph(data), seed=seed, progress=SilentProgress()), data, _asked(data)
            )
            right = np.where(np.abs(margins) < 1e-9, 0.5, margins > 0)
    smaller = _in_smaller_group(data)
    parts = {"all": np.ones(len(right), dtype=bool), "larger": ~smaller, "smaller": smaller}
    return {name: float(right[part].mean()) for name, part in parts.items()} | {"cpu_s": usage.cpu_s}


def _asked(data: PreferenceData) -> Any:
    return data.splits["test"]


def _in_smaller_group(data: PreferenceData) -> BoolArray:
    """Return whether each comparison asked is of a user of the last group [N]."""
    last = max(group for group in data.users.groups if group is not None)
    of_user = np.array([group == last for group in data.users.groups], dtype=bool)
    found: BoolArray = of_user[_asked(data).user]
    return found


def _mixture(data: PreferenceData, options: dict[str, Any], seed: int) -> FloatArray:
    parts, num_pairs = answers(data, ("train", "validation", "test"))
    train, held, asked = (parts[name] for name in ("train", "validation", "test"))
    expected = mixture(train, held, asked, len(data.users), num_pairs, len(options["group_shares"]), seed=seed)
    right: FloatArray = np.where(expected == 0.5, 0.5, (expected > 0.5) == asked.won)
    return right


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.minorities", description=__doc__)
    parser.add_argument("--users", type=int, default=4_000, help="users; a user has three pairs")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, counted from 0")
    parser.add_argument("--threads", type=int, default=1, help="threads of each fit")
    parser.add_argument("--out", type=Path, default=RESULTS / "minorities.json", help="file of the record")
    wanted = parser.parse_args(arguments)
    command = " ".join(["python -m benchmarks.minorities", *(sys.argv[1:] if arguments is None else arguments)])
    notes = [f"Means over {wanted.seeds} seeds with 95 % intervals by Student's t; {wanted.users:,} users."]
    record = new_record("Minorities", command, code=CODE, notes=notes)
    methods = {DEFAULTS["encoder"]: "`copl`, graph alone", "none": "consensus", LIMIT: LIMIT}
    cells, code = Cells(wanted.out.with_suffix(".jsonl")), code_digest("copl/graph", "copl/data/sources/planted")
    rows = []
    for case, shares in SHARES.items():
        options = {
            "num_seen_users": wanted.users,
            "num_pairs": 3 * wanted.users,
            "num_train": 15,
            "group_shares": shares,
        }
        for method, shown in methods.items():
            results = []
            for seed in range(wanted.seeds):
                request = {"options": options, "seed": seed, "method": method}
                result = cells.compute(
                    "benchmarks.minorities:fit_cell",
                    {**request, "code": code},
                    request,
                    threads=wanted.threads,
                    timeout=None,
                )
                if "error" in result:
                    sys.exit(f"{method}, {case}, seed {seed}: {result['error']}")
                results.append(result)
            shown_values = [_interval([result[part] for result in results]) for part in ("larger", "smaller", "all")]
            rows.append((case, shown, *shown_values, f"{np.mean([result['cpu_s'] for result in results]):.0f}"))
    header = ("groups", "method", "larger group", "smaller group", "all", "seconds of processor")
    tables = {"by-group": PublishedTable("Accuracy by group", header, rows)}
    write_record(evolve(record, tables=tables), wanted.out)
    print(wanted.out)


def _interval(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{number(values[0])} (single run)"
    mean, half = t_interval(values)
    return f"{number(mean)} ± {number(half)}"


if __name__ == "__main__":
    main()
