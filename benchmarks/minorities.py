"""What becomes of the smaller of two groups: the default encoder beside consensus and the limit, group by group.

    python -m benchmarks.minorities

Planted graphs of 4,000 users who give 15 comparisons each about 12,000 pairs, half of them controversial; the groups
are of 9 to 1, 8 to 2 and 1 to 1. `consensus` is encoder ``none``, which knows no users; the limit is the mixture told
the number of groups. Accuracy on held-out comparisons of the same users on pairs that others have judged, apart for the
larger and the smaller group; means over seeds with 95 % intervals by Student's t, no surer than a standard error over
users and pairs. Finished cells are kept beside the record (``.jsonl``) and skipped next time.
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
from benchmarks.planted_cases import data_of, reach_of, right_of
from benchmarks.records import PublishedTable, new_record, write_record
from copl.ablate.statistics import pooled_runs
from copl.evaluate.tables import number
from copl.records import BoolArray, FloatArray, PreferenceData
from copl.runs.recipe import DEFAULTS

SHARES = {"9 to 1": [9.0, 1.0], "8 to 2": [8.0, 2.0], "1 to 1": [1.0, 1.0]}
LIMIT = "limit (mixture)"
CODE = (
    "benchmarks/minorities.py",
    "benchmarks/limits.py",
    "benchmarks/planted_cases.py",
    "copl/graph",
    "copl/data/sources/planted",
)


def fit_cell(options: dict[str, Any], seed: int, method: str) -> dict[str, Any]:
    """Fit one encoder, or the mixture, on one graph; return accuracy and half width by size of the user's group."""
    from copl.graph.build import build_graph
    from copl.plugins import load
    from copl.system.progress import SilentProgress

    data = data_of(options, seed)
    with measure() as usage:
        if method == LIMIT:
            right = _mixture(data, options, seed)
        else:
            encoder = load().registry("encoder").create(method, {})
            right = right_of(encoder.fit(build_graph(data), seed=seed, progress=SilentProgress()), data)
    smaller, asked = _in_smaller_group(data), data.split("test")
    parts = {"all": np.ones(len(right), dtype=bool), "larger": ~smaller, "smaller": smaller}
    results = {
        name: [
            float(right[part].mean()),
            reach_of(right[part], evolve(asked, comparisons=asked.comparisons.take(part))),
        ]
        for name, part in parts.items()
    }
    return {**results, "cpu_s": usage.cpu_s}


def _in_smaller_group(data: PreferenceData) -> BoolArray:
    """Return whether each comparison asked is of a user of the last group [N]."""
    last = max(group for group in data.users.groups if group is not None)
    of_user = np.array([group == last for group in data.users.groups], dtype=bool)
    found: BoolArray = of_user[data.splits["test"].user]
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
    seeds = "A single seed" if wanted.seeds == 1 else f"Means over {wanted.seeds} seeds"
    notes = [f"{seeds} with 95 % intervals by Student's t; {wanted.users:,} users."]
    record = new_record("Minorities", command, code=CODE, notes=notes)
    methods = {DEFAULTS["encoder"]: "`copl`, graph alone", "none": "consensus", LIMIT: LIMIT}
    cells, code = Cells(wanted.out.with_suffix(".jsonl")), code_digest(*CODE)
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


def _interval(results: Sequence[tuple[float, float]]) -> str:
    pooled = pooled_runs([value for value, _ in results], [reach for _, reach in results], shared=False)
    return f"{number(pooled.value)} ± {number(pooled.interval[1] - pooled.value)}"


if __name__ == "__main__":
    main()
