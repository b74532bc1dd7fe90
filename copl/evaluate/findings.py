"""What an evaluation shows, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from copl.evaluate.paired import VERSUS
from copl.evaluate.tables import points, says_nothing, split_order, split_title
from copl.evaluate.verdict import AVERAGE_USER, CONSENSUS
from copl.records import Measurement


def percent(value: float) -> str:
    r"""Return a share in percent; the space does not break.

    >>> percent(0.8125)
    '81.2\xa0%'
    """
    return f"{points(value)}\N{NO-BREAK SPACE}%"


def findings(measurements: Mapping[str, Sequence[Measurement]]) -> Iterator[str]:
    """Say for each split and method, by name, which others it is ahead of, behind, or not to be told apart from."""
    differences = list(differences_to_tell(measurements))
    for split in split_order([m.split for *_, m in differences]):
        for method in dict.fromkeys(method for method, _, m in differences if m.split == split):
            verdicts = [_verdict(other, m) for name, other, m in differences if (name, m.split) == (method, split)]
            yield f"On {split_title(split)}, {method} is {', '.join(verdicts)}."


def differences_to_tell(measurements: Mapping[str, Sequence[Measurement]]) -> Iterator[tuple[str, str, Measurement]]:
    """Yield method, whom it is compared with, in words, and the difference of accuracy, where that says something.

    It says nothing where a method has no answer, nor of its average user where it answers everybody alike.
    """
    for method, listed in measurements.items():
        silent = {m.split for m in listed if m.subset == "all" and says_nothing(m)}
        for m in listed:
            if m.metric == "accuracy_difference" and m.split not in silent:
                other = m.subset.removeprefix(VERSUS)
                if other != AVERAGE_USER:
                    yield method, f"the {CONSENSUS}" if other == CONSENSUS else other, m
                elif m.low or m.high:
                    yield method, f"its own {AVERAGE_USER}", m


def _verdict(other: str, m: Measurement) -> str:
    reach = f"({points(m.low, signed=True)} to {points(m.high, signed=True)})"
    if m.low > 0:
        return f"ahead of {other} by {points(m.value)} points {reach}"
    if m.high < 0:
        return f"behind {other} by {points(-m.value)} points {reach}"
    return f"not to be told apart from {other} {reach}"
