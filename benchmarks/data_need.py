"""How much data a personal model needs: accuracy by number of users, comparisons of each, and how much they share.

    python -m benchmarks.data_need

Simulated users of the embedded corpus. One data set is drawn; each cell of the grid takes some of its users and the
first comparisons of each, an eighth of which validate. Where users share everything, others have judged the same
responses; where they share nothing, every comparison has a prompt in words of its own, so that all that users have in
common is in the texts. Newcomers say as much as a seen user does. `copl` and `btl` have heads on the frozen default
backbone, no adapters; beside them stands `consensus`. Writes ``benchmarks/results/data_need.json`` and
``docs/pictures/data-need.svg``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
from attrs import evolve, frozen

from benchmarks.data_need_picture import heat_maps
from benchmarks.measured import RESULTS, ROOT, Cells, code_digest
from benchmarks.records import PublishedTable, new_record, write_record
from copl.data.dataset import save_dataset
from copl.data.pairs import compact
from copl.data.sources.facets.source import FacetsOptions, generate
from copl.evaluate.tables import number, split_title
from copl.interfaces import Progress
from copl.plugins import load
from copl.records import Comparisons, FloatArray, IntArray, PreferenceData
from copl.runs.pipeline import differences, evaluate, train
from copl.runs.recipe import resolve
from copl.system.files import write_text
from copl.system.progress import SilentProgress

CODE = ("copl/graph", "copl/reward", "copl/experts", "copl/adapt", "copl/methods", "copl/data/sources/facets")
USERS = (10, 30, 100, 300, 1000)
EACH = (1, 2, 4, 8, 16, 32)
SHARING = (1.0, 0.5, 0.0)
REFERENCES = ("consensus", "btl")
SPLITS = ("test", "cold", "heldout")
SHARED_WORDS = {1.0: "share all", 0.5: "share half", 0.0: "share nothing"}

_DRAWS = {10: 3, 30: 2}
"""So often a cell is drawn, with other users each time, where users are few."""
_ASKED = {10: 10, 30: 10, 100: 6, 300: 3, 1000: 1}
"""Comparisons that each user is asked about, on known and again on new prompts."""
_MOST = 1_200
"""Comparisons of a cell at most where texts are not shared: each is two texts to read."""
_NOTABLE = 0.01

Result: TypeAlias = "dict[str, Any]"


@final
@frozen
class Point:
    """One cell: so many users, who say so much, and share so much."""

    sharing: float
    num_users: int
    num_each: int
    draw: int


def points(users: Sequence[int], each: Sequence[int], sharing: Sequence[float]) -> Iterator[Point]:
    """Yield the cells, the cheap ones first."""
    for share in sharing:
        for num_users in users:
            for num_each in each:
                if share == 1.0 or num_users * num_each <= _MOST:
                    for draw in range(_DRAWS.get(num_users, 1) if share == 1.0 else 1):
                        yield Point(share, num_users, num_each, draw)


def whole(sharing: float, seed: int) -> PreferenceData:
    """Return the data set that all cells of one sharing are taken from."""
    options = FacetsOptions(
        num_seen_users=max(USERS),
        num_unseen_users=60,
        num_train=max(EACH),
        num_validation=0,
        num_test=max(_ASKED.values()),
        num_cold=max(_ASKED.values()),
        num_support=max(EACH),
        num_heldout=10,
        spread=0.0,
        own_wording=1.0 - sharing,
    )
    return generate(options, seed)[0]


def part_of(data: PreferenceData, point: Point, seed: int) -> PreferenceData:
    """Return the data of a cell."""
    rng = np.random.default_rng([seed, 77])
    seen = rng.permutation(max(USERS))[point.draw * point.num_users :][: point.num_users]
    asked = _ASKED[point.num_users]
    said = _first(data.splits["train"], seen, point.num_each)
    held = rng.permutation(len(said)) < max(1, len(said) // 8)
    splits = {
        "train": said.take(~held),
        "validation": said.take(held),
        "test": _first(data.splits["test"], seen, asked),
        "cold": _first(data.splits["cold"], seen, asked),
        "support": _first(data.splits["support"], None, point.num_each),
        "heldout": data.splits["heldout"],
    }
    users, responses, splits = compact(data.users, data.responses, splits)
    return PreferenceData(data.name, users, responses, splits, data.provenance)


def _first(rows: Comparisons, users: IntArray | None, count: int) -> Comparisons:
    """Return the first comparisons of each of some users, or of all."""
    order = np.argsort(rows.user, kind="stable")
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows)) - np.searchsorted(rows.user[order], rows.user[order])
    return rows.take((place < count) & (True if users is None else np.isin(rows.user, users)))


def run_cell(data: PreferenceData, work: Path, seed: int) -> Result:
    """Train and measure every method on the data of a cell."""
    shutil.rmtree(work / "cell", ignore_errors=True)
    save_dataset(data, work / "cell" / "data")
    margins: dict[str, Mapping[str, FloatArray]] = {}
    found: Result = {}
    for name in ("copl", *REFERENCES):
        frozen_reward = {} if name == "consensus" else {"reward": {"mode": "frozen"}}
        recipe = resolve({"method": {"name": name}, **frozen_reward}, load(), seed=seed)
        started = time.process_time()
        place = work / "cell" / name
        run, method = train(recipe, work / "cell" / "data", place, open_progress=_silent, cache=work / "cache")
        measured = evaluate(run, data, plugins=load(), open_progress=_silent, cache=None, method=method)
        margins[name] = measured.margins
        kept = [m for m in measured.measurements if (m.metric, m.subset) == ("accuracy", "all") and m.split in SPLITS]
        found[name] = {m.split: [m.value, m.low, m.high] for m in kept}
        found[name]["seconds"] = time.process_time() - started
    for other in REFERENCES:
        ahead = differences(margins["copl"], margins[other], data, versus=other, seed=seed)
        found[f"ahead of {other}"] = {m.split: [m.value, m.low, m.high] for m in ahead if m.split in SPLITS}
    shutil.rmtree(work / "cache" / "stages", ignore_errors=True)  # what texts read as stays, models do not
    return found


@contextmanager
def _silent(log: Path | None) -> Iterator[Progress]:
    yield SilentProgress()


def best_reference(result: Result, split: str) -> str:
    """Return which of the methods that know no users is right most often."""
    return max(REFERENCES, key=lambda name: result[name][split][0])


def mean(results: Sequence[Result]) -> Result:
    """Return the mean over draws; intervals keep the mean width, as draws share newcomers and prompts."""
    return {
        name: {
            split: np.mean([result[name][split] for result in results], axis=0).tolist()
            for split in SPLITS
            if split in results[0][name]
        }
        for name in results[0]
        if name in ("copl", *REFERENCES) or name.startswith("ahead")
    }


Grid: TypeAlias = "Mapping[tuple[float, int, int], Result]"


def table_of(grid: Grid, sharing: float, split: str) -> PublishedTable:
    """Return one table: users down, comparisons across; `copl`, then the best that knows no users."""
    users = sorted({place[1] for place in grid if place[0] == sharing})
    each = sorted({place[2] for place in grid if place[0] == sharing})
    rows = []
    for num_users in users:
        cells = []
        for num_each in each:
            result = grid.get((sharing, num_users, num_each))
            if result is None:
                cells.append("")
                continue
            other = best_reference(result, split)
            own, reference = number(result["copl"][split][0]), number(result[other][split][0])
            ahead = result[f"ahead of {other}"][split][1] > 0
            cells.append(f"{f'**{own}**' if ahead else own} / {reference}")
        rows.append((f"{num_users:,} users", *cells))
    title = f"{split_title(split)}, users {SHARED_WORDS[sharing]}"
    return PublishedTable(title, ("", *(f"{count} each" for count in each)), rows)


def behind(grid: Grid) -> list[str]:
    """Return a sentence for each cell where `copl` is notably below the best that knows no users."""
    found = []
    for (sharing, num_users, num_each), result in grid.items():
        for split in SPLITS:
            other = best_reference(result, split)
            value, low, high = result[f"ahead of {other}"][split]
            if value < -_NOTABLE:
                where = f"{num_users:,} users with {num_each} each who {SHARED_WORDS[sharing]}, {split_title(split)}"
                reach = f"{number(low, signed=True)} to {number(high, signed=True)}"
                found.append(f"{where}: {number(value, signed=True)} ({reach}) from `{other}`.")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_need", description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=list(USERS), choices=USERS, help="numbers of users")
    parser.add_argument("--each", type=int, nargs="+", default=list(EACH), choices=EACH, help="comparisons of each")
    parser.add_argument("--sharing", type=float, nargs="+", default=list(SHARING), choices=SHARING, help="shares")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set and of every fit")
    parser.add_argument("--out", type=Path, default=RESULTS / "data_need.json", help="file of the record")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "data-need", help="folder for runs and readings")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "pictures" / "data-need.svg", help="its file")
    wanted = parser.parse_args(arguments)
    command = " ".join(["python -m benchmarks.data_need", *(sys.argv[1:] if arguments is None else arguments)])
    record = new_record("How much data a personal model needs", command, code=CODE)
    cells, code = Cells(wanted.out.with_suffix(".jsonl")), code_digest(*CODE, "benchmarks/data_need.py")
    results: dict[tuple[float, int, int], list[Result]] = {}
    data: dict[float, PreferenceData] = {}
    for point in points(wanted.users, wanted.each, wanted.sharing):
        key = {"point": [point.sharing, point.num_users, point.num_each, point.draw], "seed": wanted.seed, "code": code}
        result = cells.get(key)
        if result is None:
            if point.sharing not in data:
                data = {point.sharing: whole(point.sharing, wanted.seed)}
            result = run_cell(part_of(data[point.sharing], point, wanted.seed), wanted.work, wanted.seed)
            cells.keep(key, result)
            print(point, {name: part.get("seconds") for name, part in result.items()}, flush=True)
        results.setdefault((point.sharing, point.num_users, point.num_each), []).append(result)
    grid = {place: mean(drawn) for place, drawn in results.items()}
    shares = [share for share in SHARING if any(place[0] == share for place in grid)]
    tables = {f"{split}-{100 * share:.0f}": table_of(grid, share, split) for share in shares for split in SPLITS}
    notes = [f"Seed {wanted.seed}; draws of users: {_DRAWS}, else 1.", *behind(grid)]
    write_record(evolve(record, tables=tables, notes=notes), wanted.out)
    gains = {
        (SHARED_WORDS[share], split_title(split)): {
            (place[1], place[2]): grid[place][f"ahead of {best_reference(grid[place], split)}"][split][0]
            for place in grid
            if place[0] == share
        }
        for share in shares
        for split in SPLITS
    }
    write_text(wanted.picture, heat_maps(gains))
    print(wanted.out, wanted.picture)


if __name__ == "__main__":
    main()
