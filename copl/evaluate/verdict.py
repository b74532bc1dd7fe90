"""The verdict: whether a model is personal, for whom it is not, and what would help, in one paragraph.

A model is personal for a split where it is right more often for the users it knows than it would be if it took each of
them for the average user: by the paired difference on the same comparisons, whose 95 % interval lies above zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, final

from attrs import frozen

from copl.evaluate.paired import VERSUS
from copl.evaluate.tables import says_nothing, split_title
from copl.records import Measurement

REFERENCE = "average user"
"""What a model is compared with: itself, asked about somebody it knows nothing of."""

CHANCE = 0.5

Kind = Literal[
    "personal",
    "not-personal",
    "worse",
    "at-chance",
    "below-chance",
    "no-answer",
    "no-users",
    "unmeasured",
    "cause",
    "remedy",
]

_MEASURED = ("test", "cold", "heldout")
_FEW_USERS = 100
_FEW_COMPARISONS = 8
_FEW_MEASURED = 200
_MANY_OUTSIDE = 0.1


@final
@frozen
class TrainingFacts:
    """What a model had to learn from, as far as it bears on whether it can be personal.

    Attributes:
        num_users: users with training comparisons.
        num_comparisons: training comparisons.
        median_comparisons: training comparisons of the median user.
        outside: share of these users outside the largest island of the preference graph.
        reads_texts: whether the model reads texts, which lead from one island to another.
        gate: what is wrong with the gate, None where nothing is.
    """

    num_users: int
    num_comparisons: int
    median_comparisons: float
    outside: float = 0.0
    reads_texts: bool = True
    gate: str | None = None


@final
@frozen
class Judgement:
    """One thing that the verdict says.

    Attributes:
        kind: what it is about.
        sentence: it in words.
    """

    kind: Kind
    sentence: str


@final
@frozen
class Verdict:
    """All that is to be said, in the order of reading.

    Attributes:
        judgements: what was found.
    """

    judgements: tuple[Judgement, ...]

    @property
    def is_personal(self) -> bool:
        """Whether the model is personal on every split that was measured."""
        kinds = {judgement.kind for judgement in self.judgements}
        return "personal" in kinds and not kinds & {"not-personal", "worse", "at-chance", "below-chance"}

    @property
    def paragraph(self) -> str:
        """The verdict as one paragraph."""
        return " ".join(judgement.sentence for judgement in self.judgements)


def above_chance(accuracy: Measurement) -> bool:
    """Return whether an accuracy lies above chance with its whole interval."""
    return accuracy.low > CHANCE


def below_chance(accuracy: Measurement) -> bool:
    """Return whether an accuracy lies below chance with its whole interval."""
    return accuracy.high < CHANCE


def judge(measurements: Iterable[Measurement], facts: TrainingFacts, splits: Sequence[str] = _MEASURED) -> Verdict:
    """Return the verdict on one model.

    Args:
        measurements: of an evaluation, with the differences from `REFERENCE`.
        facts: what it had to learn from.
        splits: the splits that are looked at.
    """
    listed = list(measurements)
    accuracies = {m.split: m for m in listed if (m.metric, m.subset) == ("accuracy", "all") and m.split in splits}
    ahead = {
        m.split: m
        for m in listed
        if (m.metric, m.subset) == ("accuracy_difference", f"{VERSUS}{REFERENCE}") and m.split in accuracies
    }
    said = [*_chance(accuracies), *_personal(accuracies, ahead), *_unmeasured(accuracies, splits)]
    doubtful = any(judgement.kind in ("not-personal", "worse", "at-chance", "below-chance") for judgement in said)
    if doubtful:
        said += [*_causes(facts, accuracies), Judgement("remedy", _remedy(facts))]
    elif facts.gate is not None and any(judgement.kind == "personal" for judgement in said):
        said.append(Judgement("cause", f"Its experts do not do it: {facts.gate}."))
    return Verdict(tuple(said))


def _chance(accuracies: dict[str, Measurement]) -> Iterator[Judgement]:
    below = [m for m in accuracies.values() if below_chance(m)]
    if below:
        yield Judgement(
            "below-chance", f"Worse than chance on {_listed(below)}: it prefers the response that users rejected."
        )
    silent = [split_title(m.split) for m in accuracies.values() if says_nothing(m)]
    if silent:
        yield Judgement("no-answer", f"No answer for {_and(silent)}: every pair gets the same score.")
    level = [m for m in accuracies.values() if m.low <= CHANCE <= m.high and not says_nothing(m)]
    if level:
        yield Judgement("at-chance", f"Not to be told apart from chance on {_listed(level)}.")


def _personal(accuracies: dict[str, Measurement], ahead: dict[str, Measurement]) -> Iterator[Judgement]:
    if not ahead:
        return
    if all(m.low == m.value == m.high == 0.0 for m in ahead.values()):
        yield Judgement("no-users", "Not personal: it answers everybody as it answers the average user.")
        return
    personal = [m for m in ahead.values() if m.low > 0 and above_chance(accuracies[m.split])]
    worse = [m for m in ahead.values() if m.high < 0]
    if personal:
        yield Judgement("personal", f"Personal for {_points(personal)} ahead of its own average user.")
    level = [m for m in ahead.values() if m.low <= 0 <= m.high and not says_nothing(accuracies[m.split])]
    if level:
        yield Judgement(
            "not-personal", f"Not personal, as far as can be told, for {_points(level)} from the average user."
        )
    if worse:
        yield Judgement("worse", f"Users are better served as the average user for {_points(worse)}.")


def _unmeasured(accuracies: dict[str, Measurement], splits: Sequence[str]) -> Iterator[Judgement]:
    missing = [split_title(split) for split in splits if split not in accuracies]
    if missing:
        yield Judgement(
            "unmeasured", f"Nothing was measured for {_and(missing)}: the data set has no such comparisons."
        )


def _causes(facts: TrainingFacts, accuracies: dict[str, Measurement]) -> Iterator[Judgement]:
    if facts.num_users < _FEW_USERS:
        yield Judgement("cause", f"There are few users to learn from: {facts.num_users:,}.")
    if facts.median_comparisons < _FEW_COMPARISONS:
        yield Judgement(
            "cause",
            f"Users have said little: half have {facts.median_comparisons:,.0f} training comparisons or fewer.",
        )
    if facts.outside > _MANY_OUTSIDE:
        bridge = "; what they have in common is in the texts alone" if facts.reads_texts else ""
        yield Judgement(
            "cause",
            f"The preference graph is in islands: {facts.outside:.0%} of the users lie outside the largest{bridge}.",
        )
    if facts.gate is not None:
        yield Judgement("cause", f"{facts.gate[0].upper()}{facts.gate[1:]}.")
    few = [m for m in accuracies.values() if m.count < _FEW_MEASURED]
    if few:
        counts = _and([f"{m.count:,} comparisons of {split_title(m.split)}" for m in few])
        yield Judgement("cause", f"It was judged by few comparisons: {counts}.")


def _remedy(facts: TrainingFacts) -> str:
    helps = []
    if facts.num_users < _FEW_USERS:
        helps.append("more users")
    if facts.median_comparisons < _FEW_COMPARISONS:
        helps.append("more comparisons of each")
    if facts.outside > _MANY_OUTSIDE:
        helps.append("questions that users have in common")
    if facts.gate is not None:
        helps.append("another gate, or fewer experts")
    if not helps:
        return "There is data enough: these users may want the same, or their comparisons may not tell what they want."
    return f"What would help: {_and(helps)}."


def _listed(accuracies: Sequence[Measurement]) -> str:
    return _and([f"{split_title(m.split)} ({100 * m.value:.1f} %)" for m in accuracies])


def _points(differences: Sequence[Measurement]) -> str:
    return _and(
        [
            f"{split_title(m.split)}, {100 * m.value:+.1f} points ({100 * m.low:+.1f} to {100 * m.high:+.1f})"
            for m in differences
        ]
    )


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
