"""What users are shown, by its true utility: best of n on prompts that nothing was trained on, in finished runs.

    copl data make facets --out data-0 --seed 0 && copl train data-0 --out copl-0 --seed 0
    python -m benchmarks.answers copl-0 copl-1 copl-2

Writes ``benchmarks/results/align.json``: of one run its figures with their own intervals; of several the mean with an
interval over the runs (``copl.ablate.gains``), which should differ by seed alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from benchmarks.measured import RESULTS
from benchmarks.records import PublishedTable, new_record, write_record
from copl.ablate.gains import over_seeds
from copl.align.judging import NEWCOMERS, REFERENCES, UNPERSONALISED, PolicySize
from copl.commands.parts.components import choose_components
from copl.commands.parts.display import open_progress
from copl.evaluate.policy import ANSWERS, BETTER_OFF, CONTROLLED, GAIN, WORST
from copl.evaluate.tables import cell
from copl.plugins import load
from copl.records import Measurement
from copl.runs.directory import open_run
from copl.runs.pipeline import load_data
from copl.runs.policy import evaluate_policy

CODE = (
    "copl/align",
    "copl/evaluate/policy.py",
    "copl/graph",
    "copl/reward",
    "copl/experts",
    "copl/adapt",
    "copl/methods",
    "copl/data/sources/facets",
)
SPLITS = {"cold": "seen users", "heldout": "unseen users"}
NAMES = {"none": "the first candidate", UNPERSONALISED: "best of n for the average user", "oracle": "oracle"}
METRICS = {GAIN: "gain", CONTROLLED: "length-controlled", WORST: "worst group", BETTER_OFF: "better off"}

Found = Mapping[str, Sequence[Measurement]]


def measured(directory: Path, aligners: Sequence[str], size: PolicySize) -> Found:
    """Return the measurements of one run, by what chooses."""
    run = open_run(directory, load())
    faults: list[str] = []
    choices = [choose_components({"aligner": name}, (), faults)["aligner"] for name in (*aligners, *REFERENCES)]
    writer = choose_components({"generator": "facets"}, (), faults)["generator"]
    found = evaluate_policy(run, load_data(run)[0], choices, writer, size=size, open_progress=open_progress, cache=None)
    return found.measurements


def tables(runs: Sequence[Found], *, shared: bool) -> dict[str, PublishedTable]:
    """Return who chooses by measure and users, and newcomers by how many answers they have given.

    Args:
        runs: what was found of each run.
        shared: whether runs have the same data set.
    """
    by_key: dict[tuple[str, str, str, str], list[Measurement]] = {}
    for found in runs:
        for name, ms in found.items():
            for m in ms:
                by_key.setdefault((name, m.split, m.subset, m.metric), []).append(m)
    cells = {key: cell(over_seeds(ms, shared=shared)) for key, ms in by_key.items()}
    names = sorted(runs[0], key=lambda name: (name != "none", name != UNPERSONALISED, name == "oracle"))
    columns = [(split, metric) for split in SPLITS for metric in METRICS]
    header = ("what is shown", *(f"{SPLITS[split]}: {METRICS[metric]}" for split, metric in columns))
    gains = [(NAMES.get(n, f"`{n}`"), *(cells.get((n, s, "all", metric), "") for s, metric in columns)) for n in names]
    own = [name for name in names if (name, "heldout", f"{ANSWERS}{NEWCOMERS[0]}", GAIN) in cells]
    given = [(f"`{n}`", *(cells.get((n, "heldout", f"{ANSWERS}{k}", GAIN), "") for k in NEWCOMERS)) for n in own]
    return {
        "gains": PublishedTable("Utility of what is shown", header, gains),
        "newcomers": PublishedTable("Gain by answers given", ("answers given", *map(str, NEWCOMERS)), given),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser: Any = argparse.ArgumentParser(prog="python -m benchmarks.answers", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs on the source facets, a seed each")
    parser.add_argument("--aligner", nargs="+", default=["best-of-n"], help="who decides")
    parser.add_argument("--num", type=int, default=8, help="candidates to a prompt")
    parser.add_argument("--prompts", type=int, help="at most so many prompts")
    parser.add_argument("--users", type=int, help="at most so many seen and so many unseen users")
    parser.add_argument("--out", type=Path, default=RESULTS / "align.json", help="file of the record")
    wanted = parser.parse_args(arguments)
    size = PolicySize(wanted.num, wanted.prompts, wanted.users)
    found = [measured(run, wanted.aligner, size) for run in wanted.runs]
    runs = [open_run(run, load()) for run in wanted.runs]
    seeds = ", ".join(str(run.recipe.seed) for run in runs)
    shared = len({run.facts.data.fingerprint for run in runs}) < len(runs)
    notes = [f"{wanted.num} candidates to each prompt; seeds of the runs: {seeds}."]
    command = "python -m benchmarks.answers " + " ".join(run.name for run in wanted.runs)
    record = new_record("Aligning on the embedded corpus", command, code=CODE, notes=notes)
    write_record(evolve(record, tables=tables(found, shared=shared)), wanted.out)
    print(wanted.out)


if __name__ == "__main__":
    main()
