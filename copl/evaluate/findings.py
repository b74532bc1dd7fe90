"""What an evaluation shows, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from copl.evaluate.paired import VERSUS
from copl.evaluate.tables import says_nothing, split_order, split_title
from copl.evaluate.verdict import AVERAGE_USER, CONSENSUS, above_chance, below_chance
from copl.records import Measurement


def findings(measurements: Mapping[str, Sequence[Measurement]]) -> list[str]:
    """Return the findings of an evaluation, most important first; `measurements` are by name of the method."""
    return [*_best(measurements), *_differences(measurements)]


def percent(value: float) -> str:
    r"""Return a share in percent; the space does not break.

    >>> percent(0.8125)
    '81.2\xa0%'
    """
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _best(measurements: Mapping[str, Sequence[Measurement]]) -> Iterator[str]:
    """Say for each split which method is right most often."""
    overall = [
        (method, m)
        for method, ms in measurements.items()
        for m in ms
        if (m.metric, m.subset) == ("accuracy", "all") and not says_nothing(m)
    ]
    for split in split_order([m.split for _, m in overall]):
        here = sorted(((m, method) for method, m in overall if m.split == split), key=lambda pair: -pair[0].value)
        (best, name), others = here[0], here[1:]
        sentence = (
            f"On {split_title(split)}, {name} is right about {percent(best.value)} of {best.count:,} comparisons "
            f"({100 * best.low:.1f} to {percent(best.high)})"
        )
        if below_chance(best):
            sentence += ", which is below chance"
        elif not above_chance(best):
            sentence += ", not to be told apart from chance"
        if others:
            sentence += "; " + ", ".join(f"{other} {percent(m.value)}" for m, other in others)
        yield sentence + "."


def _differences(measurements: Mapping[str, Sequence[Measurement]]) -> Iterator[str]:
    """Say for each split and method which others it is ahead of, behind, or not to be told apart from."""
    found = list(differences_to_tell(measurements))
    for split in split_order([m.split for *_, m in found]):
        for method in dict.fromkeys(method for method, _, m in found if m.split == split):
            verdicts = [_verdict(other, m) for name, other, m in found if (name, m.split) == (method, split)]
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
    reach = f"({100 * m.low:+.1f} to {100 * m.high:+.1f})"
    if m.low > 0:
        return f"ahead of {other} by {100 * m.value:.1f} points {reach}"
    if m.high < 0:
        return f"behind {other} by {-100 * m.value:.1f} points {reach}"
    return f"not to be told apart from {other} {reach}"
