"""What `copl train --from` takes beside training from scratch when a thousand rows come to a hundred thousand.

    python -m benchmarks.continuing

Each run is trained in a process of its own on one thread: on the old rows, on all rows, and on all rows from the first
run on (`copl.runs.pipeline.train`, with `former` as `copl train --from` calls it). Processor seconds are those of
training, from reading the data set to the finished run; the start of Python and of its libraries, and the verdict of
the command, take the same time whatever is trained. The whole commands are measured besides. Both find the texts in the
cache, where they were read beforehand, and nothing else. Modules are compiled first, as those of an installation are:
else each command would compile all of them anew, where Python is told to keep none. Of the new rows half are of users
nobody knew before, whose comparisons are all new; the others are spread over everybody.

Method `graph` learns from a planted graph, `copl` with frozen features from the embedded corpus. Accuracy is that on
held-out comparisons of all seen users, of those on prompts never trained on where there are such, of unseen users after
adapting, and of the users whose comparisons are all new.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, frozen

from benchmarks.main_job import run
from benchmarks.measured import RESULTS, ROOT
from benchmarks.records import PublishedTable, Record, new_record, write_record
from copl.data.dataset import save_dataset
from copl.data.pairs import compact_all
from copl.records import PreferenceData

CODE = ("benchmarks/continuing.py", "copl/graph", "copl/methods", "copl/reward/training", "copl/runs")
MAX_SHARE, MAX_LOSS = 0.1, 0.005
"""What going on may take of the time from scratch, and lose of its accuracy."""

_TRAIN = """
import sys, time
from contextlib import nullcontext
from pathlib import Path
import torch._dynamo, scipy.stats, transformers, peft
import copl.methods.copl, copl.methods.graph
from copl.plugins import load
from copl.runs.directory import open_run
from copl.runs.pipeline import train
from copl.runs.recipe import parse_assignments, resolve
from copl.system.files import cache_directory
from copl.system.progress import SilentProgress
data, out, former, seed, *options = sys.argv[1:]
silent = nullcontext(SilentProgress())
before = open_run(Path(former), load()) if former else None
recipe = before.recipe if before else resolve(parse_assignments(options), load(), seed=int(seed))
started = time.process_time()
run, _ = train(
    recipe, Path(data), Path(out), open_progress=lambda log: silent, cache=cache_directory(), former=before
)
seconds = time.process_time() - started
print("parts", dict(run.facts.former.parts) if run.facts.former else None)
print("seconds", seconds)
"""

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
        recipe: options of the recipe.
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
        ("method.name=graph",),
    ),
    "frozen": Case(
        "facets",
        {"num_seen_users": 5_050, "num_unseen_users": 500, "num_train": 20},
        ("reward.mode=frozen",),
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
    run(ROOT, ["-m", "compileall", "-q", str(ROOT / "copl"), str(ROOT / "plugins")], scratch)
    for name, data in (("old", before), ("new", after)):
        save_dataset(data, scratch / name)
    if "method.name=graph" not in case.recipe:  # the texts are read, by the method that does least with them
        words = ["-m", "copl.cli", "train", str(scratch / "new"), "--out", "texts", "--method", "consensus"]
        run(ROOT, words, scratch)
    (scratch / "cache").mkdir(exist_ok=True)
    shutil.copytree(scratch / "cache", scratch / "texts-read")
    seconds: dict[str, float] = {}
    for name, place, former in (
        ("old", "old", ""),
        ("scratch", "new", ""),
        ("from", "new", "old-run"),
        ("again", "old", "old-run"),
    ):
        words = ["-c", _TRAIN, str(scratch / place), f"{name}-run", former, str(seed), *case.recipe]
        _, said = run(ROOT, words, scratch)
        seconds[name] = float(said.rpartition("seconds")[2])
        print(f"{name}: {seconds[name]:.1f} s {said.rpartition('parts ')[2].splitlines()[0]}", flush=True)
    commands = _commands(case, scratch, seed)
    accuracies = {}
    for name in ("old", "scratch", "from"):
        _, said = run(ROOT, ["-c", _SCORES, f"{name}-run", json.dumps([] if name == "old" else late)], scratch)
        accuracies[name] = json.loads(said.rpartition("accuracies ")[2])
        print(name, accuracies[name], flush=True)
    return {
        "num_old": len(before.splits["train"]),
        "num_new": len(after.splits["train"]) - len(before.splits["train"]),
        "seconds": seconds,
        "commands": commands,
        "accuracies": accuracies,
    }


def _commands(case: Case, scratch: Path, seed: int) -> dict[str, float]:
    """Return the processor seconds of whole commands, which find in the cache what was read of the texts."""
    options = [word for option in case.recipe for word in ("--set", option)]
    took = {}
    for name, words in (
        ("scratch", [*options, "--seed", str(seed)]),
        ("from", ["--from", "old-run"]),
        ("torch", []),
    ):
        train = ["-m", "copl.cli", "train", str(scratch / "new"), "--out", f"{name}-command", *words]
        shutil.rmtree(scratch / "cache")
        shutil.copytree(scratch / "texts-read", scratch / "cache")
        part, _ = run(ROOT, ["-c", "import torch"] if name == "torch" else train, scratch)
        took[name] = part.seconds
        print(f"command {name}: {part.seconds:.1f} s", flush=True)
    return took


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
            *(f"{one['seconds'][part]:.1f}" for part in ("scratch", "from", "again")),
            f"{one['seconds']['from'] / one['seconds']['scratch']:.3f}",
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
        f"Single runs, seed {seed}; processor seconds of training on one thread.",
        f"Going on may take {MAX_SHARE:.2f} of the time from scratch and lose {MAX_LOSS} of its accuracy.",
        "`--from` of the old rows themselves is the column “nothing new”.",
    ]
    for name, one in found.items():
        whole, going_on, torch = (one["commands"][part] for part in ("scratch", "from", "torch"))
        notes.append(
            f"The whole command for `{name}`: {whole:.1f} s from scratch and {going_on:.1f} s with `--from`, a share "
            f"of {going_on / whole:.3f}; loading torch alone takes {torch:.1f} s."
        )
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
