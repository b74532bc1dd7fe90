"""What the finished cells measured, as one tidy table, and the paired differences to the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias, final

import pyarrow as pa
import pyarrow.parquet as pq
from attrs import frozen

from copl.ablate.cells import Cell
from copl.ablate.grid import BEST_UNPERSONALISED, Plan
from copl.ablate.statistics import PairedDifference, SeedDifferences, holm, mean_difference, pooled_difference
from copl.bradley_terry import correct
from copl.data.dataset import load_dataset
from copl.evaluate.bootstrap import sampled_from
from copl.evaluate.tables import held_out, is_no_answer, split_order
from copl.records import ComparisonSet, FloatArray, Measurement
from copl.runs.pipeline import EVALUATED
from copl.runs.results import evaluation_of, load_margins, read_metrics
from copl.system.files import write_atomically

AVERAGE = "average"
"""What the mean over data sets is called."""

SIGNIFICANT = 0.05
"""Level that corrected p-values are held against."""


@final
@frozen
class Result:
    """One measurement of one cell.

    Attributes:
        variant: name of the variant.
        data: name of the data set.
        seed: seed of the run.
        measured: the measurement.
        run: its run directory.
    """

    variant: str
    data: str
    seed: int
    measured: Measurement
    run: Path


@final
@frozen
class Estimate:
    """An accuracy with its 95 % interval.

    Attributes:
        value: mean over seeds.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


Estimates: TypeAlias = Mapping[tuple[str, str, str], Estimate]
"""Accuracies by variant, data set (or `AVERAGE`) and split."""


@final
@frozen
class Difference:
    """A variant held against the reference.

    Attributes:
        variant: name of the variant.
        data: name of the data set, or `AVERAGE`.
        split: the split.
        versus: name of the reference there; the best of several where that is another on each data set of an average.
        value: difference of accuracy, variant minus reference.
        low: lower end of its 95 % interval, not corrected.
        high: upper end.
        p_value: two-sided, for this difference alone.
        p_corrected: corrected for the number of all differences of the study.
        num_seeds: runs pooled.
    """

    variant: str
    data: str
    split: str
    versus: str
    value: float
    low: float
    high: float
    p_value: float
    p_corrected: float
    num_seeds: int

    @property
    def mark(self) -> str:
        """``ahead``, ``behind`` or empty."""
        if self.p_corrected >= SIGNIFICANT:
            return ""
        return "ahead" if self.value > 0 else "behind"


def collect(plan: Plan, cells: Sequence[Cell]) -> list[Result]:
    """Return the measurements of all finished cells, variant by variant."""
    order = {variant.name: place for place, variant in enumerate(plan.variants)}
    results = [
        Result(name, cell.data, cell.seed, measured, cell.run)
        for cell in cells
        if cell.state() == "finished"
        for measured in read_metrics(cell.run)
        for name in cell.variants
    ]
    return sorted(results, key=lambda result: order[result.variant])


def accuracies(results: Sequence[Result]) -> dict[tuple[str, str, str], dict[int, Measurement]]:
    """Return the accuracy on all comparisons by variant, data set and split, then by seed."""
    measured: dict[tuple[str, str, str], dict[int, Measurement]] = {}
    for result in results:
        if (result.measured.metric, result.measured.subset) == ("accuracy", "all"):
            place = (result.variant, result.data, result.measured.split)
            measured.setdefault(place, {})[result.seed] = result.measured
    return measured


@final
@frozen
class _Sampled:
    """What the comparisons of a split were sampled from; see `SeedDifferences`."""

    users: Sequence[str]
    texts: Sequence[str] | Sequence[tuple[str, str]]

    @classmethod
    def of(cls, pairs: ComparisonSet) -> _Sampled:
        rows, responses = pairs.comparisons, pairs.responses
        users = [pairs.users.ids[row] for row in rows.user.tolist()]
        _, texts = sampled_from(pairs)
        if texts.ndim == 1:
            return cls(users, [responses.prompts[row] for row in rows.chosen.tolist()])
        return cls(users, [(responses.keys[one], responses.keys[other]) for one, other in texts.tolist()])


@final
class Margins:
    """Margins and comparisons of finished cells, each read once."""

    def __init__(self) -> None:
        self._of = cache(lambda run: load_margins(evaluation_of(run)))
        self._sampled = cache(_sampled_by_split)

    def right(self, cell: Cell, split: str) -> FloatArray | None:
        """Return what a cell is right about on a split [N], None where it was not measured there."""
        margins = self._of(cell.run).get(split)
        return correct(margins) if margins is not None and len(margins) else None

    def seed(self, cell: Cell, split: str, values: FloatArray) -> SeedDifferences:
        """Return values with the users and texts of a cell's comparisons."""
        sampled = self._sampled(cell.data_directory)[split]
        return SeedDifferences(values, sampled.users, sampled.texts)


def _sampled_by_split(directory: Path) -> dict[str, _Sampled]:
    data = load_dataset(directory)
    return {split: _Sampled.of(data.split(split)) for split in EVALUATED}


def estimates(plan: Plan, results: Sequence[Result], cells: Sequence[Cell], margins: Margins) -> Estimates:
    """Return the accuracy by variant, data set (or `AVERAGE`) and held-out split, where no run is missing."""
    runs, measured, measured_on = _runs(cells), accuracies(results), _data_by_split(results)
    estimated: dict[tuple[str, str, str], Estimate] = {}
    for split in _splits(results):
        names = [spec.name for spec in plan.study.data if spec.name in measured_on[split]]
        for variant in plan.variants:
            parts: dict[str, PairedDifference] = {}
            for name in names:
                finished = [runs.get((variant.name, name, seed)) for seed in plan.study.seeds]
                by_seed = [
                    margins.seed(cell, split, right)
                    for cell in finished
                    if cell is not None and (right := margins.right(cell, split)) is not None
                ]
                if len(by_seed) == len(plan.study.seeds):
                    parts[name] = pooled_difference(by_seed)
                    estimated[variant.name, name, split] = Estimate(parts[name].value, *parts[name].interval)
                    if len(by_seed) == 1:  # the very interval that an evaluation of the run has shown
                        (alone,) = measured[variant.name, name, split].values()
                        estimated[variant.name, name, split] = Estimate(alone.value, alone.low, alone.high)
            if len(names) > 1 and len(parts) == len(names):
                mean = mean_difference(parts)
                estimated[variant.name, AVERAGE, split] = Estimate(mean.value, *mean.interval)
    return estimated


def _runs(cells: Sequence[Cell]) -> dict[tuple[str, str, int], Cell]:
    return {
        (name, cell.data, cell.seed): cell for cell in cells if cell.state() == "finished" for name in cell.variants
    }


def _splits(results: Sequence[Result]) -> list[str]:
    return split_order([m.split for m in held_out({"": [r.measured for r in results]})[""]])


def references(plan: Plan, estimated: Estimates) -> dict[tuple[str, str], str]:
    """Return by data set and split who the others are compared with.

    That is the reference of the study, or of the variants that know no users the one of the highest accuracy there;
    among equals the first.
    """
    places = dict.fromkeys((data, split) for _, data, split in estimated)
    if plan.reference != BEST_UNPERSONALISED:
        return dict.fromkeys(places, plan.reference)
    best = {}
    for data, split in places:
        names = [name for name in plan.unpersonalised if (name, data, split) in estimated]
        if names:
            best[data, split] = max(names, key=lambda name: estimated[name, data, split].value)
    return best


def differences(
    plan: Plan, results: Sequence[Result], cells: Sequence[Cell], estimated: Estimates, margins: Margins
) -> list[Difference]:
    """Return the difference of every variant to the reference on every held-out split of every data set.

    Runs of both with the same seed are paired comparison by comparison, and pooled. P-values are corrected by Holm's
    procedure for all differences returned, the averages over data sets among them. Where the reference is the best of
    several that know no users, these are not compared with each other, and an average is over the gains on each data
    set, each over the best there. A variant that has no answer on a split is not compared there.
    """
    runs, versus, measured_on = _runs(cells), references(plan, estimated), _data_by_split(results)
    apart = plan.unpersonalised if plan.reference == BEST_UNPERSONALISED else (plan.reference,)
    rows: list[tuple[str, str, str, str, PairedDifference, int]] = []
    for split in _splits(results):
        for variant in (v.name for v in plan.variants if v.name not in apart):
            parts: dict[str, PairedDifference] = {}
            for spec in plan.study.data:
                own = estimated.get((variant, spec.name, split))
                if own is not None and is_no_answer(own.value, own.low, own.high):
                    continue
                reference = versus.get((spec.name, split), "")
                by_seed = list(_paired(runs, margins, (variant, reference), spec.name, split, plan.study.seeds))
                if by_seed:
                    parts[spec.name] = pooled_difference(by_seed)
                    rows.append((variant, spec.name, split, reference, parts[spec.name], len(by_seed)))
            if len(parts) > 1 and len(parts) == len(measured_on[split]):
                against = {versus[name, split] for name in parts}
                name = against.pop() if len(against) == 1 else BEST_UNPERSONALISED
                rows.append((variant, AVERAGE, split, name, mean_difference(parts), len(plan.study.seeds)))
    corrected = holm([paired.p_value for *_, paired, _ in rows])
    return [
        Difference(variant, data, split, reference, paired.value, *paired.bounds, paired.p_value, p, num_seeds)
        for (variant, data, split, reference, paired, num_seeds), p in zip(rows, corrected, strict=True)
    ]


def _data_by_split(results: Sequence[Result]) -> dict[str, set[str]]:
    """Return the names of the data sets that were measured on each split."""
    names: dict[str, set[str]] = {}
    for result in results:
        names.setdefault(result.measured.split, set()).add(result.data)
    return names


def _paired(
    runs: Mapping[tuple[str, str, int], Cell],
    margins: Margins,
    names: tuple[str, str],
    data: str,
    split: str,
    seeds: Sequence[int],
) -> Iterator[SeedDifferences]:
    for seed in seeds:
        cell, reference = (runs.get((name, data, seed)) for name in names)
        if cell is not None and reference is not None:
            ours, theirs = margins.right(cell, split), margins.right(reference, split)
            if ours is not None and theirs is not None:
                yield margins.seed(cell, split, ours - theirs)


def best_by_validation(plan: Plan, results: Sequence[Result]) -> dict[str, tuple[str, float]]:
    """Return the best variant of each data set, and of the average, with its mean accuracy on ``validation``.

    The splits that a result is reported on play no part. A data set without validation comparisons is left out; so is a
    variant with a run missing.
    """
    measured = accuracies(results)
    means: dict[str, dict[str, float]] = {}
    for (variant, data, split), by_seed in measured.items():
        if split == "validation" and len(by_seed) == len(plan.study.seeds):
            means.setdefault(data, {})[variant] = sum(m.value for m in by_seed.values()) / len(by_seed)
    if len(means) > 1:
        everywhere = [v.name for v in plan.variants if all(v.name in table for table in means.values())]
        averages = {v: sum(table[v] for table in means.values()) / len(means) for v in everywhere}
        if averages:
            means[AVERAGE] = averages
    return {data: max(table.items(), key=lambda item: item[1]) for data, table in means.items()}


def write_results(plan: Plan, results: Sequence[Result], path: Path) -> None:
    """Write one row a measurement of a cell, with a column for each axis of the study."""
    settings: Mapping[str, Mapping[str, str]] = {variant.name: variant.settings for variant in plan.variants}
    columns: dict[str, list[object]] = {
        "variant": [r.variant for r in results],
        "data": [r.data for r in results],
        "seed": [r.seed for r in results],
    }
    for axis in plan.study.axes:
        columns[axis.label] = [settings[r.variant].get(axis.label) for r in results]
    for name in ("split", "subset", "metric", "value", "low", "high", "count"):
        columns[name] = [getattr(r.measured, name) for r in results]
    columns["run"] = [r.run.relative_to(path.parent).as_posix() for r in results]
    texts = {axis.label: pa.array(columns[axis.label], pa.string()) for axis in plan.study.axes}
    write_atomically(path, lambda temporary: pq.write_table(pa.table({**columns, **texts}), temporary))


def write_estimates(estimated: Estimates, reference: Mapping[tuple[str, str], str], path: Path) -> None:
    """Write one row an accuracy over seeds, and whether the others are compared with it."""
    columns = {
        "variant": pa.array([variant for variant, _, _ in estimated], pa.string()),
        "data": pa.array([data for _, data, _ in estimated], pa.string()),
        "split": pa.array([split for _, _, split in estimated], pa.string()),
        **{
            name: pa.array([getattr(estimate, name) for estimate in estimated.values()], pa.float64())
            for name in ("value", "low", "high")
        },
        "is_reference": pa.array(
            [reference.get((data, split)) == variant for variant, data, split in estimated], pa.bool_()
        ),
    }
    write_atomically(path, lambda temporary: pq.write_table(pa.table(columns), temporary))


def write_differences(measured: Sequence[Difference], path: Path) -> None:
    """Write one row a difference."""
    names = ("variant", "data", "split", "versus", "value", "low", "high", "p_value", "p_corrected", "num_seeds")
    types = dict.fromkeys(names[:4], pa.string()) | dict.fromkeys(names[4:9], pa.float64()) | {"num_seeds": pa.int64()}
    columns = {name: pa.array([getattr(d, name) for d in measured], types[name]) for name in names}
    write_atomically(path, lambda temporary: pq.write_table(pa.table(columns), temporary))
