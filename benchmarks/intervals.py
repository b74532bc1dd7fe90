"""Whether intervals hold: how often they cover the truth, how often a difference is found where there is none.

    python -m benchmarks.intervals

Made-up comparisons whose truth is known. A user adds to the chance of being right, a prompt does, a run does, and the
rest is the chance in a single answer; each is drawn anew in every trial. `single` is the interval of one run
(`copl.evaluate.bootstrap.crossed_mean`), beside that over users alone; `seeds` is a paired difference over several runs
(`copl.ablate.statistics.pooled_difference`), where users and prompts are the same in all runs, or others in each.
Effects are uniform, so that chances stay between 0 and 1 and their mean is known exactly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve

from benchmarks.measured import RESULTS
from benchmarks.records import PublishedTable, new_record, write_record
from copl.ablate.statistics import SeedDifferences, pooled_difference
from copl.evaluate.bootstrap import crossed_mean

CODE = ("benchmarks/intervals.py", "copl/evaluate/bootstrap.py", "copl/ablate/statistics.py")
_ANSWERS = 6
"""Comparisons of each user."""
_ACCURACY = 0.65
_CHANGES = 0.2
"""Share of comparisons that one method gets right and the other does not, each way."""


def _effects(rng: np.random.Generator, deviation: float, number: int) -> Any:
    return deviation * 3**0.5 * (2 * rng.random(number) - 1)


def _texts(rng: np.random.Generator, number: int, size: int, in_pairs: bool) -> tuple[Any, Any]:
    """Draw which prompt each comparison is about, or which two responses; and the weight of each text's effect."""
    one = rng.integers(number, size=size)
    if not in_pairs:
        return one, lambda effects: effects[one]
    other = (one + rng.integers(1, number, size=size)) % number
    return np.stack([one, other], axis=1), lambda effects: (effects[one] + effects[other]) / 2**0.5


def single(
    num_users: int, num_texts: int, user_sd: float, text_sd: float, *, in_pairs: bool, trials: int, resamples: int
) -> tuple[float, float, float]:
    """Return how often the interval over users and texts covers the truth, how often that over users, and its reach."""
    rng = np.random.default_rng(num_users + 7 * num_texts)
    users = np.repeat(np.arange(num_users), _ANSWERS)
    covers, alone, reach = 0, 0, 0.0
    for trial in range(trials):
        texts, of = _texts(rng, num_texts, len(users), in_pairs)
        chance = _ACCURACY + _effects(rng, user_sd, num_users)[users] + of(_effects(rng, text_sd, num_texts))
        right = (rng.random(len(users)) < chance).astype(np.float64)
        _, low, high = crossed_mean(right, [users, texts], seed=trial, num_resamples=resamples)
        covers += low <= _ACCURACY <= high
        reach += (high - low) / 2 / trials
        _, low, high = crossed_mean(right, [users], seed=trial, num_resamples=resamples)
        alone += low <= _ACCURACY <= high
    return covers / trials, alone / trials, reach


def seeds(
    num_seeds: int,
    num_users: int,
    num_texts: int,
    deviations: Sequence[float],
    *,
    anew: bool,
    trials: int,
    resamples: int,
) -> tuple[float, float]:
    """Return how often the interval of a difference that is zero covers zero, and how often p < .05.

    `deviations` are those of a run, of a user and of a prompt; `anew` draws other users and prompts for each run.
    """
    rng = np.random.default_rng(num_seeds + 11 * num_users + 13 * anew)
    run_sd, user_sd, text_sd = deviations
    size = num_users * _ANSWERS
    covers, false = 0, 0
    for trial in range(trials):
        pieces = []
        user_effects, text_effects = _effects(rng, user_sd, num_users), _effects(rng, text_sd, num_texts)
        for run in range(num_seeds):
            if anew:
                user_effects, text_effects = _effects(rng, user_sd, num_users), _effects(rng, text_sd, num_texts)
            users, texts = np.repeat(np.arange(num_users), _ANSWERS), rng.integers(num_texts, size=size)
            effect = (_effects(rng, run_sd, 1)[0] + user_effects[users] + text_effects[texts]) / 2
            drawn = rng.random(size)
            values = (drawn < _CHANGES + effect).astype(np.float64) - (drawn > 1 - (_CHANGES - effect))
            mark = f"{run} " if anew else ""
            names = ([f"{mark}{row}" for row in column.tolist()] for column in (users, texts))
            pieces.append(SeedDifferences(values, *names))
        found = pooled_difference(pieces, seed=trial, num_resamples=resamples)
        low, high = found.bounds
        covers += low <= 0 <= high
        false += found.p_value < 0.05
    return covers / trials, false / trials


def single_rows(trials: int, resamples: int) -> Iterator[tuple[str, ...]]:
    sizes, deviations = (
        product((30, 100, 400), (15, 60)),
        ((0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.1, 0.1), (0.05, 0.15)),
    )
    for (num_users, num_texts), (user_sd, text_sd), in_pairs in product(sizes, deviations, (False, True)):
        if in_pairs and num_users == 30:
            continue
        both, alone, reach = single(
            num_users, num_texts, user_sd, text_sd, in_pairs=in_pairs, trials=trials, resamples=resamples
        )
        texts = f"{num_texts} {'responses' if in_pairs else 'prompts'}"
        yield (
            f"{num_users} users, {texts}",
            f"{user_sd:g}",
            f"{text_sd:g}",
            f"{100 * both:.1f}",
            f"{100 * alone:.1f}",
            f"{reach:.3f}",
        )


def seed_rows(trials: int, resamples: int) -> Iterator[tuple[str, ...]]:
    deviations = [(0.0, 0.0), (0.08, 0.08)]
    for num_seeds, anew, effects, run_sd in product((3, 5), (True, False), deviations, (0.0, 0.02, 0.05)):
        size = {"num_seeds": num_seeds, "num_users": 100, "num_texts": 40}
        covers, false = seeds(**size, deviations=(run_sd, *effects), anew=anew, trials=trials, resamples=resamples)
        yield (
            f"{num_seeds} seeds, users and prompts {'drawn for each' if anew else 'the same'}",
            f"{run_sd:g}",
            f"{effects[0]:g}",
            f"{effects[1]:g}",
            f"{100 * covers:.1f}",
            f"{100 * false:.1f}",
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intervals", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="trials of each row")
    parser.add_argument("--resamples", type=int, default=400, help="bootstrap resamples of each interval")
    parser.add_argument("--out", type=Path, default=RESULTS / "intervals.json", help="file of the record")
    wanted = parser.parse_args(arguments)
    error = 100 * (0.95 * 0.05 / wanted.trials) ** 0.5
    notes = [
        f"{wanted.trials:,} trials a row: the standard error of 95 % is {error:.1f}.",
        f"Every user judges {_ANSWERS} comparisons.",
    ]
    command = " ".join(["python -m benchmarks.intervals", *(sys.argv[1:] if arguments is None else arguments)])
    record = new_record("Whether intervals hold", command, code=CODE, notes=notes)
    tables = {
        "single": PublishedTable(
            "One run: how often a 95 % interval covers the truth",
            ("what was sampled", "user sd", "text sd", "users and texts, %", "users alone, %", "half width"),
            [*single_rows(wanted.trials, wanted.resamples)],
        ),
        "seeds": PublishedTable(
            "Several runs: a paired difference where there is none, 100 users and 40 prompts",
            ("runs", "run sd", "user sd", "prompt sd", "covered, %", "p < .05, %"),
            [*seed_rows(wanted.trials, wanted.resamples)],
        ),
    }
    write_record(evolve(record, tables=tables), wanted.out)
    print(wanted.out)


if __name__ == "__main__":
    main()
