"""Generators: the kit passes a good toy and catches a deliberately broken one of each fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import pytest

from copl.errors import DataError
from copl.testing.alignment import EchoGenerator

Write = Callable[[Sequence[str], int, int], Any]
COUNTER = itertools.count()


@final
class Toy:
    """The echo, changed by what is given."""

    def __init__(self, write: Write | None = None, **changes: Any) -> None:
        self._write = write
        self.follows_prompts = changes.get("follows_prompts", True)
        self.fingerprint = changes.get("fingerprint", lambda: "toy")

    def candidates(self, prompts: Sequence[str], *, num: int, seed: int, progress: Any) -> Any:
        if self._write is not None:
            return self._write(prompts, num, seed)
        return EchoGenerator().candidates(prompts, num=num, seed=seed, progress=progress)


def echo(prompts: Sequence[str], num: int) -> list[list[str]]:
    return [[f"{place} {prompt}" for place in range(num)] for prompt in prompts]


def _global(prompts: Sequence[str], num: int, seed: int) -> Any:
    np.random.seed(seed)  # noqa: NPY002 - the fault
    return echo(prompts, num)


def _by_order(prompts: Sequence[str], num: int, seed: int) -> Any:
    return [[f"{row} {place} {prompt}" for place in range(num)] for row, prompt in enumerate(prompts)]


def _by_number(prompts: Sequence[str], num: int, seed: int) -> Any:
    return [[f"{place} of {num} {prompt}" for place in range(num)] for prompt in prompts]


def _refuses(prompts: Sequence[str], num: int, seed: int) -> Any:
    raise DataError("no connection")


def test_a_good_generator_passes(kit: Any) -> None:
    assert kit.not_passed(kit.check("generator", lambda options: Toy())) == set()


def test_one_that_cannot_write_here_is_skipped_not_failed(kit: Any) -> None:
    results = kit.check("generator", lambda options: Toy(_refuses))
    assert all(result.passed for result in results.values())
    assert "no connection" in kit.caught(results)


@pytest.mark.parametrize(
    ("build", "finding"),
    [
        (lambda o: Toy(lambda p, n, s: echo(p, n)[1:]), "candidates to 2 prompts; 3 were asked"),
        (lambda o: Toy(lambda p, n, s: ["yes" for _ in p]), "one text for"),
        (lambda o: Toy(lambda p, n, s: [[] for _ in p]), "0 candidates to"),
        (lambda o: Toy(lambda p, n, s: echo(p, n + 1)), "4 candidates to"),
        (lambda o: Toy(lambda p, n, s: [[" "] for _ in p]), "candidates are texts that are not empty"),
        (lambda o: Toy(_global), "the global random state of numpy was changed"),
        (lambda o: Toy(lambda p, n, s: [[f"{next(COUNTER)}"] for _ in p]), "two calls with the same seed differ"),
        (lambda o: Toy(_by_order), "prompts in another order get other candidates"),
        (lambda o: Toy(_by_number), "with fewer candidates asked for, the first ones differ"),
        (lambda o: Toy(follows_prompts="yes"), "follows_prompts is 'yes'"),
        (lambda o: Toy(fingerprint=lambda: f"{next(COUNTER)}"), "the fingerprint changes"),
        (lambda o: Toy(fingerprint=lambda: 7), "it must be a text"),
    ],
)
def test_a_broken_generator_is_caught(build: Callable[[Any], Any], finding: str, kit: Any) -> None:
    assert finding in kit.caught(kit.check("generator", build))
