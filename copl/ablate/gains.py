"""What users gain by the runs of a study, beside the accuracy of the rewards that chose for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, final

import pyarrow as pa
import pyarrow.parquet as pq
from attrs import evolve, frozen

from copl.ablate.cells import Cell
from copl.ablate.grid import Plan
from copl.ablate.results import Estimates
from copl.ablate.shown import read_shown
from copl.ablate.statistics import pooled_runs
from copl.ablate.tables import Entry
from copl.align.judging import REFERENCES, UNPERSONALISED
from copl.evaluate.policy import BETTER_OFF, CONTROLLED, GAIN, UNREAD, WORST
from copl.evaluate.tables import Table, cell, split_order, split_title
from copl.records import Measurement
from copl.system.files import write_atomically

_METRICS: Mapping[str, str] = {
    GAIN: "gain",
    CONTROLLED: "length-controlled",
    WORST: "worst group",
    BETTER_OFF: "better off",
}

_SHARES = frozenset({"accuracy", BETTER_OFF, UNREAD})
"""What lies between 0 and 1."""

_Place: TypeAlias = tuple[str, str, str]
"""Variant, aligner and generator."""


@final
@frozen
class Gain:
    """One measurement of what one cell shows its users.

    Attributes:
        variant: name of the variant.
        aligner: who decides.
        generator: who writes.
        data: name of the data set.
        seed: seed of the run.
        measured: the measurement.
    """

    variant: str
    aligner: str
    generator: str
    data: str
    seed: int
    measured: Measurement

    @property
    def place(self) -> _Place:
        return self.variant, self.aligner, self.generator


@final
@frozen
class Gains:
    """What users gain in a study.

    Attributes:
        rows: all measurements of the finished cells.
        faults: what could not be measured, and why, a line each.
        same: names of the data sets that are the same whatever the seed.
    """

    rows: tuple[Gain, ...] = ()
    faults: tuple[str, ...] = ()
    same: frozenset[str] = frozenset()


def collect_gains(plan: Plan, cells: Sequence[Cell]) -> Gains:
    """Return what the finished cells have measured of answers, variant by variant."""
    order = {variant.name: place for place, variant in enumerate(plan.variants)}
    gains: list[Gain] = []
    faults: dict[str, None] = {}
    for one in cells:
        if one.answers is None or one.state() != "finished":
            continue
        rows = read_shown(one.run, one.answers).rows
        if not rows:
            faults[f"What users are shown can be measured where they are simulated (facets): not on {one.data}."] = None
        for variant in one.variants:
            for row in rows:
                if row.fault:
                    faults[f"{row.aligner} shows nothing by {variant} on {one.data}: {row.fault}."] = None
                gains += [Gain(variant, row.aligner, row.generator, one.data, one.seed, m) for m in row.measurements]
    seeds: dict[tuple[str, Path], set[int]] = {}
    for one in cells:
        seeds.setdefault((one.data, one.data_directory), set()).add(one.seed)
    same = frozenset(data for (data, _), those in seeds.items() if len(those) > 1)
    return Gains(tuple(sorted(gains, key=lambda gain: order[gain.variant])), tuple(faults), same)


def over_seeds(measurements: Sequence[Measurement], *, shared: bool) -> Measurement:
    """Return the mean over runs with its interval (`pooled_runs`); of one run its measurement with its own interval.

    Args:
        measurements: of each run.
        shared: whether all runs have the same data set, and so the same users and prompts.
    """
    if len(measurements) == 1:
        return measurements[0]
    pooled = pooled_runs([m.value for m in measurements], [(m.high - m.low) / 2 for m in measurements], shared=shared)
    low, high = pooled.interval
    least, most = (0.0, 1.0) if measurements[0].metric in _SHARES else (-math.inf, math.inf)
    return evolve(measurements[0], value=pooled.value, low=max(low, least), high=min(high, most))


def gains_tables(plan: Plan, gains: Gains, accuracy: Estimates) -> list[Table]:
    """Return a table for each split: who chooses as rows; accuracy of the reward, and what users gain, as columns.

    What no reward decides, the first candidate and the oracle, stands there once.

    Args:
        plan: the study.
        gains: what was measured of answers.
        accuracy: the accuracies that the other tables show.
    """
    by_place: dict[tuple[_Place, str, str, str], dict[int, Measurement]] = {}
    for gain in gains.rows:
        if gain.measured.subset == "all":
            key = (gain.place, gain.data, gain.measured.split, gain.measured.metric)
            by_place.setdefault(key, {})[gain.seed] = gain.measured
    names = [spec.name for spec in plan.study.data if any(gain.data == spec.name for gain in gains.rows)]
    several = plan.answers is not None and len(plan.answers.generators) > 1
    tables = []
    for split in split_order([split for _, _, split, _ in by_place]):
        columns = [(name, metric) for name in names for metric in ("accuracy", *_METRICS)]
        rows = []
        for place in _places(gains):
            entries = []
            for name, metric in columns:
                if metric == "accuracy":
                    right = None if place[1] in REFERENCES else accuracy.get((place[0], name, split))
                    entries.append(
                        "" if right is None else str(Entry(right.value, right.low, right.high, over_seeds=False))
                    )
                    continue
                runs = by_place.get((place, name, split, metric), {})
                whole = len(runs) == len(plan.study.seeds)
                entries.append(cell(over_seeds([*runs.values()], shared=name in gains.same)) if whole else "")
            rows.append((_called(place, several=several), *entries))
        title = f"What is shown and what chose it, {split_title(split)}"
        prefix = len(names) > 1
        header = [
            f"{name}: {_METRICS.get(metric, metric)}" if prefix else _METRICS.get(metric, metric)
            for name, metric in columns
        ]
        tables.append(Table(title, ("what is shown", *header), rows))
    return tables


def _places(gains: Gains) -> list[_Place]:
    """Return the rows: what no reward decides once, first the first candidate, last the oracle."""
    places = list(dict.fromkeys(gain.place for gain in gains.rows))
    once = {(aligner, generator): (variant, aligner, generator) for variant, aligner, generator in reversed(places)}
    first, last = REFERENCES
    own = [place for place in places if place[1] not in REFERENCES]
    begin, end = ([place for (name, _), place in once.items() if name == wanted] for wanted in (first, last))
    return [*begin[::-1], *own, *end[::-1]]


def _called(place: _Place, *, several: bool) -> str:
    variant, aligner, generator = place
    shown = "the average user's choice" if aligner == UNPERSONALISED else aligner
    by = f" of {generator}" if several else ""
    return f"{shown}{by}" if aligner in REFERENCES else f"{variant}: {shown}{by}"


def gains_notes(plan: Plan, gains: Gains) -> list[str]:
    """Return in sentences how the tables are to be read."""
    if plan.answers is None:
        return []
    size = plan.answers.size
    asked = f"{size.prompts or 'all'} prompts that nothing was trained on, {size.users or 'all'} users of each kind"
    over = (
        "mean over seeds, by Student's t over seeds, and over the users and prompts of data that are the same in all"
        if len(plan.study.seeds) > 1
        else "of the run, over users and prompts"
    )
    return [
        f"What is shown: of {size.num} candidates, {asked}; true utility from 0, a random candidate, to 1, the best, "
        f"and the share of users better off than by the average user's choice; 95 % interval {over}. Accuracy is that "
        "of the reward on comparisons of the same users.",
        *gains.faults,
    ]


def write_gains(gains: Gains, path: Path) -> None:
    """Write one row a measurement of what a cell shows."""
    texts = ("variant", "aligner", "generator", "data")
    measured = ("split", "subset", "metric", "value", "low", "high", "count")
    columns = {name: pa.array([getattr(gain, name) for gain in gains.rows], pa.string()) for name in texts}
    columns["seed"] = pa.array([gain.seed for gain in gains.rows], pa.int64())
    kinds = (
        dict.fromkeys(measured[:3], pa.string()) | dict.fromkeys(measured[3:6], pa.float64()) | {"count": pa.int64()}
    )
    columns |= {name: pa.array([getattr(gain.measured, name) for gain in gains.rows], kinds[name]) for name in measured}
    write_atomically(path, lambda temporary: pq.write_table(pa.table(columns), temporary))
