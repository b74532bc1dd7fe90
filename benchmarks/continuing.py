"""What `copl train --from` takes beside training from scratch when a thousand rows come to a hundred thousand.

    python -m benchmarks.continuing

Three commands, each in a process of its own on one thread: `copl train` on the old rows, `copl train` on all rows, and
`copl train --from` the first on all rows. Processor seconds are those of the whole command, the start of Python and the
verdict in the end included. Texts are read beforehand and found in the cache by all of them. Of the new rows half are
of users nobody knew before, whose comparisons are all new; the others are spread over everybody.

Method `graph` learns from a planted graph, `copl` with frozen features from the embedded corpus. Accuracy is that on
held-out comparisons of all seen users, of those on prompts never trained on where there are such, of unseen users after
adapting, and of the users whose comparisons are all new.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, frozen

from benchmarks.main_job import Part, run
from benchmarks.measured import RESULTS, ROOT
from benchmarks.records import PublishedTable, Record, new_record, write_record
from copl.data.dataset import save_dataset
from copl.data.pairs import compact_all
from copl.records import PreferenceData

CODE = ("benchmarks/continuing.py", "copl/graph", "copl/methods", "copl/reward/training", "copl/runs")
MAX_SHARE, MAX_LOSS = 0.1, 0.005
"""What going on may take of the time from scratch, and lose of its accuracy."""

_SCORES = """
import json, sys
from pathlib import Path
import numpy as np
from copl.plugins import load
from copl.runs.directory import open_run
from copl.runs.pipeline import load_data
run = open_run(Path(sys.argv[1]), load())
data, _ = load_data(run)
method = run.load_method()
adapted = method.adapt(data.split("support"))
late = {data.users.rows[user] for user in json.loads(sys.argv[2])}
right = {}
for split in ("test", "cold", "heldout"):
    pairs = data.split(split)
    if len(pairs):
        margins = method.margins(pairs, adapted if split == "heldout" else None)
        right[split] = (margins > 0) + 0.5 * (margins == 0)
right["late"] = right["test"][np.isin(data.split("test").comparisons.user, list(late))]
print("accuracies", json.dumps({name: [float(part.mean()), len(part)] for name, part in right.items()}))
"""


@frozen
class Case:
    """What is trained on.

    Attributes:
        source: source of the data.
        options: its options; for a tenth of the size, numbers of users are divided.
        recipe: options of `copl train`.
    """

    source: str
    options: Mapping[str, Any]
    recipe: tuple[str, ...]


CASES: Mapping[str, Case] = {
    "graph": Case(
        "planted",
        {
            "num_seen_users": 12_625,
            "num_unseen_users": 1_000,
            "num_pairs": 6_000,
            "num_groups": 4,
            "num_train": 8,
            "num_test": 4,
        },
        ("--method", "graph"),
    ),
    "frozen": Case(
        "facets",
        {"num_seen_users": 5_050, "num_unseen_users": 500, "num_train": 20},
        ("--set", "reward.mode=frozen"),
    ),
}


def grown(case: Case, scale: float, seed: int) -> tuple[PreferenceData, PreferenceData, list[str]]:
    """Return a data set before and after the new rows came, and the users whose comparisons are all new."""
    from copl.plugins import load

    sizes = {n: round(scale * v) if n.endswith("_users") or n == "num_pairs" else v for n, v in case.options.items()}
    data: PreferenceData = load().registry("source").create(case.source, sizes).load(seed=seed)
    rng, train = np.random.default_rng(seed), data.splits["train"]
    num_new = round(0.01 * len(train) / 1.01)
    users = rng.permutation(np.unique(train.user))
    counts = np.bincount(train.user, minlength=len(data.users))[users]
    late = users[: int(np.searchsorted(np.cumsum(counts), num_new / 2))]
    is_new = np.isin(train.user, late)
    is_new[rng.choice(np.flatnonzero(~is_new), num_new - int(is_new.sum()), replace=False)] = True
    splits = {name: part.take(~np.isin(part.user, late)) for name, part in data.splits.items()}
    splits["train"] = train.take(~is_new)
    table, responses, splits, judgements = compact_all(data.users, data.responses, splits, {})
    before = evolve(data, users=table, responses=responses, splits=splits, judgements=judgements)
    return before, data, [data.users.ids[row] for row in late.tolist()]


def measured(case: Case, scale: float, seed: int, scratch: Path) -> dict[str, Any]:
    """Return what each command takes and how good the runs are."""
    before, after, late = grown(case, scale, seed)
    for name, data in (("old", before), ("new", after)):
        save_dataset(data, scratch / name)
    common = ["-m", "copl.cli", "train"]
    recipe = [*case.recipe, "--seed", str(seed)]
    parts: dict[str, Part] = {}
    if "--method" not in case.recipe:  # the texts are read, by the method that does least with them
        run(ROOT, [*common, str(scratch / "new"), "--out", "texts", "--method", "consensus"], scratch)
    commands = {
        "old": [*common, str(scratch / "old"), "--out", "old-run", *recipe],
        "scratch": [*common, str(scratch / "new"), "--out", "scratch-run", *recipe],
        "from": [*common, str(scratch / "new"), "--out", "from-run", "--from", "old-run"],
        "again": [*common, str(scratch / "old"), "--out", "again-run", "--from", "old-run"],
    }
    for name, command in commands.items():
        parts[name], _ = run(ROOT, command, scratch)
        print(f"{name}: {parts[name].seconds:.1f} s", flush=True)
    accuracies = {}
    for name in ("old", "scratch", "from"):
        import json

        _, said = run(ROOT, ["-c", _SCORES, f"{name}-run", json.dumps([] if name == "old" else late)], scratch)
        accuracies[name] = json.loads(said.rpartition("accuracies ")[2])
        print(name, accuracies[name], flush=True)
    return {
        "num_old": len(before.splits["train"]),
        "num_new": len(after.splits["train"]) - len(before.splits["train"]),
        "parts": parts,
        "accuracies": accuracies,
    }


_SPLITS = {
    "test": "seen users",
    "cold": "prompts never trained on",
    "heldout": "unseen users",
    "late": "users whose comparisons are all new",
}


def record_of(found: Mapping[str, Mapping[str, Any]], command: str, seed: int) -> Record:
    """Return the record of what was measured."""
    times = [
        [
            f"`{name}`",
            f"{one['num_old']:,}",
            f"{one['num_new']:,}",
            *(f"{one['parts'][part].seconds:.1f}" for part in ("scratch", "from", "again")),
            f"{one['parts']['from'].seconds / one['parts']['scratch'].seconds:.3f}",
        ]
        for name, one in found.items()
    ]
    accuracies = []
    for name, one in found.items():
        scratch, grown_from = one["accuracies"]["scratch"], one["accuracies"]["from"]
        for split, words in _SPLITS.items():
            if split in scratch:
                (there, count), (here, _) = scratch[split], grown_from[split]
                row = [f"`{name}`", words, f"{count:,}", f"{there:.4f}", f"{here:.4f}", f"{here - there:+.4f}"]
                accuracies.append(row)
    notes = [
        f"Single runs, seed {seed}; processor seconds of whole commands on one thread.",
        f"Going on may take {MAX_SHARE:.2f} of the time from scratch and lose {MAX_LOSS} of its accuracy.",
        "`--from` of the old rows themselves is the column “nothing new”.",
    ]
    record = new_record("Going on from a former run", command, code=CODE, notes=notes)
    header = (
        "method",
        "old comparisons",
        "new",
        "from scratch, s",
        "`--from`, s",
        "nothing new, s",
        "share of the time",
    )
    tables = {
        "time": PublishedTable("Processor seconds", header, tuple(map(tuple, times))),
        "accuracy": PublishedTable(
            "Accuracy",
            ("method", "held-out comparisons of", "number", "from scratch", "`--from`", "difference"),
            tuple(map(tuple, accuracies)),
        ),
    }
    return evolve(record, tables=tables)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default=",".join(CASES), help="cases to measure")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of users")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "continuing.json")
    arguments = parser.parse_args(argv)
    found = {}
    for name in arguments.cases.split(","):
        with tempfile.TemporaryDirectory() as directory:
            print(f"{name}:", flush=True)
            found[name] = measured(CASES[name], arguments.scale, arguments.seed, Path(directory))
    command = " ".join(["python -m benchmarks.continuing", *argv])
    write_record(record_of(found, command, arguments.seed), arguments.out)


if __name__ == "__main__":
    main(sys.argv[1:])
