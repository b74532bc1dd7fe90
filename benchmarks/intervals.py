"""Whether intervals hold: how often they cover the truth, how often a difference is found where there is none.

    python -m benchmarks.intervals

Made-up comparisons whose truth is known. A user adds to the chance of being right, a text does, a run does, and the
rest is the chance in a single answer; each is drawn anew in every trial. `single` is the interval of one run
(`copl.evaluate.bootstrap.crossed_mean`), beside that over users alone; `seeds` is a paired difference over several
runs (`copl.ablate.statistics.pooled_difference`) whose users and texts are the same in all runs, or others in each;
`shapes` is the same for runs whose effects have another distribution than the normal one. Effects of users and texts
are uniform, so that chances stay between 0 and 1 and their mean is known exactly; differences are symmetric about zero.
Finished rows are kept beside the record (``.jsonl``) and skipped next time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
from attrs import evolve, frozen

from benchmarks.intervals_at_once import Crossed, Pooled, crossed, pooled
from benchmarks.measured import RESULTS, Cells, code_digest
from benchmarks.records import PublishedTable, new_record, write_record
from copl.ablate.statistics import SeedDifferences, pooled_difference
from copl.evaluate.bootstrap import crossed_mean, spread

_SINGLE = ("copl/evaluate/bootstrap.py",)
_SEVERAL = (*_SINGLE, "copl/ablate/statistics.py")
CODE = ("benchmarks/intervals.py", "benchmarks/intervals_at_once.py", *_SEVERAL)
_Row: TypeAlias = "tuple[tuple[str, ...], Callable[[], tuple[float, float, float]]]"
"""The first columns of a row, and what simulates the others."""
_ENTROPY = 20261129
_ANSWERS = 6
"""Comparisons of each user."""
_RESAMPLES = 200
"""Of an interval of one run; they say where it lies about the mean, not how wide it is."""
_AT_ONCE, _COMPARED = 50, 5
"""Trials that are simulated at once, and how many of the first are held against one at a time."""
_CHANGES = 0.2
"""Share of comparisons that one method gets right and the other does not, each way."""


def _uniform(rng: np.random.Generator, deviation: float, number: int) -> Any:
    return deviation * 3**0.5 * (2 * rng.random(number) - 1)


SHAPES: dict[str, Callable[[np.random.Generator, float], float]] = {
    "normal": lambda rng, deviation: deviation * rng.standard_normal(),
    "uniform": lambda rng, deviation: float(_uniform(rng, deviation, 1)[0]),
    "two values": lambda rng, deviation: deviation * rng.choice((-1.0, 1.0)),
    "Student's t, 3 degrees": lambda rng, deviation: deviation * rng.standard_t(3) / 3**0.5,
}
"""Distributions of the effects of runs."""


def _texts(rng: np.random.Generator, number: int, size: int, in_pairs: bool) -> tuple[Any, Any]:
    """Draw which prompt each comparison is about, or which two responses; and the weight of each text's effect."""
    one = rng.integers(number, size=size)
    if not in_pairs:
        return one, lambda effects: effects[one]
    other = (one + rng.integers(1, number, size=size)) % number
    return np.stack([one, other], axis=1), lambda effects: (effects[one] + effects[other]) / 2**0.5


@final
@frozen
class Sampled:
    """How many users and texts, how much each adds, and whether a comparison is about one text or two."""

    num_users: int
    num_texts: int
    user_sd: float
    text_sd: float
    in_pairs: bool

    def __str__(self) -> str:
        return f"{self.num_users} users, {self.num_texts} {'responses' if self.in_pairs else 'prompts'}"


def single(sampled: Sampled, accuracy: float, *, rng: np.random.Generator, trials: int) -> tuple[float, float, float]:
    """Return how often the interval over users and texts covers the truth, how often that over users, and its reach.

    Raises:
        ValueError: `crossed` and `crossed_mean` do not say the same.
    """
    users = np.repeat(np.arange(sampled.num_users), _ANSWERS)
    covers, alone, reach = 0, 0, 0.0
    for start in range(0, trials, _AT_ONCE):
        right, texts = _answers(sampled, accuracy, users, rng, min(_AT_ONCE, trials - start))
        found = crossed(right, users, texts, seed=0, num_resamples=_RESAMPLES)
        if not start:
            _compare_crossed(found, right, users, texts)
        covers += int(((found.low <= accuracy) & (accuracy <= found.high)).sum())
        alone += int((abs(right.mean(axis=1) - accuracy) <= found.by_users).sum())
        reach += float((found.high - found.low).sum()) / 2 / trials
    return covers / trials, alone / trials, reach


def _answers(sampled: Sampled, accuracy: float, users: Any, rng: np.random.Generator, trials: int) -> tuple[Any, Any]:
    """Draw which comparisons are right [T, N], and the texts they are about, [T, N] or [T, N, 2]."""
    right, texts = [], []
    for _ in range(trials):
        drawn, of = _texts(rng, sampled.num_texts, len(users), sampled.in_pairs)
        by_user = _uniform(rng, sampled.user_sd, sampled.num_users)
        by_text = _uniform(rng, sampled.text_sd, sampled.num_texts)
        right.append((rng.random(len(users)) < accuracy + by_user[users] + of(by_text)).astype(np.float64))
        texts.append(drawn)
    return np.stack(right), np.stack(texts)


def _compare_crossed(found: Crossed, right: Any, users: Any, texts: Any) -> None:
    for trial in range(min(_COMPARED, len(right))):
        mean, low, high = crossed_mean(right[trial], [users, texts[trial]], seed=0, num_resamples=_RESAMPLES)
        by_users = spread((right[trial] - mean) / len(users), [users]).reach
        ours = found.low[trial], found.high[trial], found.by_users[trial]
        if not np.allclose(ours, (low, high, by_users), rtol=1e-9, atol=1e-12):
            raise ValueError(f"trial {trial}: {ours} at once, {(low, high, by_users)} by crossed_mean")


@final
@frozen
class Runs:
    """Several runs of a study: how many, how much each differs, and whether each has other users and texts."""

    num_seeds: int
    run_sd: float
    anew: bool
    shape: str = "normal"

    def __str__(self) -> str:
        return f"{self.num_seeds} seeds, users and texts {'drawn for each' if self.anew else 'the same'}"


def seeds(runs: Runs, sampled: Sampled, *, rng: np.random.Generator, trials: int) -> tuple[float, float, float]:
    """Return how often the interval of a difference that is zero covers zero, how often p < .05, and its reach.

    Raises:
        ValueError: `pooled` and `pooled_difference` do not say the same.
    """
    covers, false, reach = 0, 0, 0.0
    users = np.repeat(np.arange(sampled.num_users), _ANSWERS)
    for start in range(0, trials, _AT_ONCE):
        values, texts = _differences(runs, sampled, users, rng, min(_AT_ONCE, trials - start))
        found = pooled(values, users, texts, shared=not runs.anew)
        if not start:
            _compare(found, values, users, texts, runs)
        covers += int((abs(found.value) <= found.reach).sum())
        false += int((found.p_value < 0.05).sum())
        reach += float(found.reach.sum()) / trials
    return covers / trials, false / trials, reach


def _differences(runs: Runs, sampled: Sampled, users: Any, rng: np.random.Generator, trials: int) -> tuple[Any, ...]:
    """Draw differences of no mean difference [S, T, N] and the texts they are about, [S, T, N] or [S, T, N, 2]."""
    values, texts = [], []
    for _ in range(trials):
        by_user, by_text = np.zeros(0), np.zeros(0)
        for run in range(runs.num_seeds):
            if runs.anew or not run:
                by_user = _uniform(rng, sampled.user_sd, sampled.num_users)
                by_text = _uniform(rng, sampled.text_sd, sampled.num_texts)
            drawn, of = _texts(rng, sampled.num_texts, len(users), sampled.in_pairs)
            effect = (SHAPES[runs.shape](rng, runs.run_sd) + by_user[users] + of(by_text)) / 2
            chance = rng.random(len(users))
            values.append((chance < _CHANGES + effect).astype(np.float64) - (chance > 1 - (_CHANGES - effect)))
            texts.append(drawn)
    shape = (trials, runs.num_seeds)
    return tuple(np.stack(part).reshape(*shape, *part[0].shape).swapaxes(0, 1) for part in (values, texts))


def _compare(found: Pooled, values: Any, users: Any, texts: Any, runs: Runs) -> None:
    for trial in range(min(_COMPARED, values.shape[1])):
        parts = []
        for run in range(runs.num_seeds):
            names = _names(run if runs.anew else 0, int(max(users.max(), texts.max())) + 1)
            named = names[texts[run, trial]].tolist()
            about = [*map(tuple, named)] if texts.ndim == 4 else named
            parts.append(SeedDifferences(values[run, trial], names[users].tolist(), about))
        single = pooled_difference(parts)
        low, high = single.interval
        ours = found.value[trial] - found.reach[trial], found.value[trial] + found.reach[trial], found.p_value[trial]
        if not np.allclose(ours, (low, high, single.p_value), rtol=1e-9, atol=1e-12):
            raise ValueError(f"trial {trial}: {ours} at once, {(low, high, single.p_value)} by pooled_difference")


@cache
def _names(run: int, number: int) -> Any:
    return np.array([f"{run} {row}" for row in range(number)], dtype=object)


def _generators() -> Iterator[np.random.Generator]:
    """Yield a generator for each row, none of which draws what another does."""
    for row in np.random.SeedSequence(_ENTROPY).spawn(1000):
        yield np.random.default_rng(row)


def single_rows(trials: int) -> Iterator[_Row]:
    rngs = _generators()
    sizes = ((30, 15, False), (100, 15, False), (100, 15, True), (100, 60, False), (100, 60, True), (400, 60, False))
    deviations = ((0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.1, 0.1), (0.05, 0.15))
    cases = [(Sampled(users, texts, *sds, pair), 0.65) for (users, texts, pair), sds in product(sizes, deviations)]
    cases += [(Sampled(100, texts, sd, sd, False), 0.9) for texts, sd in product((15, 60), (0.0, 0.025))]
    fewest = ((50, 10, False), (50, 15, True))
    cases += [(Sampled(users, texts, *sds, pair), 0.65) for (users, texts, pair), sds in product(fewest, deviations)]
    for sampled, accuracy in cases:
        case = (str(sampled), f"{accuracy:g}", f"{sampled.user_sd:g}", f"{sampled.text_sd:g}")
        yield case, partial(single, sampled, accuracy, rng=next(rngs), trials=trials)


def seed_rows(trials: int) -> Iterator[_Row]:
    rngs = iter([*_generators()][600:])
    deviations = [(0.0, 0.0), (0.08, 0.0), (0.0, 0.08), (0.08, 0.08)]
    for num_seeds, anew, effects, run_sd in product((3, 5), (True, False), deviations, (0.0, 0.02, 0.05)):
        if anew and effects[0] != effects[1]:
            continue  # all of it is in the seeds' means
        runs, numbers = Runs(num_seeds, run_sd, anew), (f"{run_sd:g}", *(f"{effect:g}" for effect in effects))
        for in_pairs in (False, True) if num_seeds == 3 and not anew and all(effects) else (False,):
            case = (str(runs), "responses" if in_pairs else "prompts", *numbers)
            yield case, partial(seeds, runs, Sampled(100, 40, *effects, in_pairs), rng=next(rngs), trials=trials)


def shape_rows(trials: int) -> Iterator[_Row]:
    rngs = iter([*_generators()][900:])
    for shape in SHAPES:
        runs = Runs(3, 0.05, True, shape)
        simulate = partial(seeds, runs, Sampled(100, 40, 0.0, 0.0, False), rng=next(rngs), trials=trials)
        yield (shape,), simulate


@final
@frozen(eq=False)
class Kept:
    """Rows that are finished, by what they are, their trials and the code they measure."""

    cells: Cells
    trials: int
    code: str

    def of(self, rows: Iterator[_Row]) -> Iterator[tuple[str, ...]]:
        """Yield each row: its first columns, two shares in percent and a reach; those of an earlier start are kept."""
        for case, simulate in rows:
            cell = {"case": case, "trials": self.trials, "code": self.code}
            result = self.cells.get(cell)
            if result is None:
                one, other, reach = simulate()
                result = {"cells": [f"{100 * one:.1f}", f"{100 * other:.1f}", f"{reach:.3f}"]}
                self.cells.keep(cell, result)
            print(*case, *result["cells"], sep=" | ", file=sys.stderr, flush=True)
            yield *case, *result["cells"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intervals", description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="trials of each row of one run")
    parser.add_argument("--trials-over-seeds", type=int, default=10_000, help="trials of each row of several runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "intervals.json", help="file of the record")
    wanted = parser.parse_args(arguments)
    several = wanted.trials_over_seeds
    one_error, error = (100 * (0.95 * 0.05 / trials) ** 0.5 for trials in (wanted.trials, several))
    notes = [
        f"{wanted.trials:,} trials a row of one run: the standard error of 95 % is {one_error:.1f}.",
        f"{several:,} trials a row of several runs: the standard error of 95 % is {error:.1f}.",
        f"Every user judges {_ANSWERS} comparisons.",
    ]
    command = " ".join(["python -m benchmarks.intervals", *(sys.argv[1:] if arguments is None else arguments)])
    record = new_record("Whether intervals hold", command, code=CODE, notes=notes)
    cells = Cells(wanted.out.with_suffix(".jsonl"))
    single_kept = Kept(cells, wanted.trials, code_digest(*_SINGLE))
    kept = Kept(cells, several, code_digest(*_SEVERAL))
    held, found = ("covered, %", "p < .05, %", "half width"), ("users and texts, %", "users alone, %", "half width")
    tables = {
        "single": PublishedTable(
            "One run: how often a 95 % interval covers the truth",
            ("what was sampled", "accuracy", "user sd", "text sd", *found),
            [*single_kept.of(single_rows(wanted.trials))],
        ),
        "seeds": PublishedTable(
            "Several runs: a paired difference where there is none, 100 users and 40 texts",
            ("runs", "texts", "run sd", "user sd", "text sd", *held),
            [*kept.of(seed_rows(several))],
        ),
        "shapes": PublishedTable(
            "Three runs whose effects (sd .05) have other distributions, users and texts drawn for each",
            ("effects of runs", *held),
            [*kept.of(shape_rows(several))],
        ),
    }
    write_record(evolve(record, tables=tables), wanted.out)
    print(wanted.out)


if __name__ == "__main__":
    main()
