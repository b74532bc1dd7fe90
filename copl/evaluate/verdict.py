"""The verdict: whether a model is personal, for whom it is not, and what would help, in one paragraph.

A model is personal for a split where it is right more often for the users it knows than two others that know none: it
itself, taking each of them for the average user, and the consensus of all users, trained on the same comparisons. It is
by the paired difference on the same comparisons, whose 95 % interval lies above zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, final

from attrs import frozen

from copl.evaluate.paired import VERSUS
from copl.evaluate.tables import says_nothing, split_title
from copl.records import Measurement

AVERAGE_USER = "average user"
"""What a model is compared with: itself, asked about somebody it knows nothing of."""

CONSENSUS = "consensus of all users"
"""What a model is compared with: the best that knows no users, method ``consensus``."""

CHANCE = 0.5

Kind = Literal[
    "personal",
    "no-gain",
    "not-personal",
    "worse",
    "below-consensus",
    "at-chance",
    "below-chance",
    "no-answer",
    "no-users",
    "unmeasured",
    "cause",
    "remedy",
]

_MEASURED = ("test", "cold", "heldout")
_DOUBTFUL: frozenset[Kind] = frozenset(
    {"no-gain", "not-personal", "worse", "below-consensus", "at-chance", "below-chance"}
)
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
        measurements: of an evaluation, with the differences from `AVERAGE_USER` and `CONSENSUS`.
        facts: what it had to learn from.
        splits: the splits that are looked at.
    """
    listed = list(measurements)
    accuracies = {m.split: m for m in listed if (m.metric, m.subset) == ("accuracy", "all") and m.split in splits}
    average, consensus = (ahead_of(versus, listed) for versus in (AVERAGE_USER, CONSENSUS))
    compared = [
        _Compared(m, average[m.split], consensus.get(m.split)) for m in accuracies.values() if m.split in average
    ]
    said = [*_chance(accuracies), *_personal(compared), *_unmeasured(accuracies, splits)]
    if any(judgement.kind in _DOUBTFUL for judgement in said):
        knows_nobody = any(judgement.kind == "no-users" for judgement in said)
        said += _shortages(facts, accuracies, _ENOUGH_FOR_OTHERS if knows_nobody else _ENOUGH)
    elif facts.gate is not None and any(judgement.kind == "personal" for judgement in said):
        said.append(Judgement("cause", f"Its experts do not do it: {facts.gate}."))
    return Verdict(tuple(said))


def ahead_of(versus: str, measurements: Iterable[Measurement]) -> dict[str, Measurement]:
    """Return by split how far a model is ahead of a reference, where that was measured."""
    wanted = ("accuracy_difference", f"{VERSUS}{versus}")
    return {m.split: m for m in measurements if (m.metric, m.subset) == wanted}


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


@final
@frozen
class _Compared:
    """The accuracy on a split, and how far that is ahead of those who know no users."""

    accuracy: Measurement
    average: Measurement
    consensus: Measurement | None

    @property
    def kind(self) -> Kind | None:
        """What is to be said of the split; None where chance says it all."""
        if self.consensus is not None and self.consensus.high < 0:
            return "below-consensus"
        if self.average.high < 0:
            return "worse"
        if self.average.low <= 0:
            return None if says_nothing(self.accuracy) else "not-personal"
        if not above_chance(self.accuracy):
            return None
        return "no-gain" if self.consensus is not None and self.consensus.low <= 0 else "personal"


def _personal(compared: Sequence[_Compared]) -> Iterator[Judgement]:
    if not compared:
        return
    if all(c.average.low == c.average.value == c.average.high == 0.0 for c in compared):
        yield Judgement("no-users", "Not personal: it answers everybody as it answers its own average user.")
        return
    by_kind: dict[Kind | None, list[_Compared]] = {}
    for one in compared:
        by_kind.setdefault(one.kind, []).append(one)
    for kind, sentence in _SENTENCES.items():
        if kind in by_kind:
            here = by_kind[kind]
            consensus = [c.consensus for c in here if c.consensus is not None]
            versus_average = _points([c.average for c in here])
            yield Judgement(
                kind, sentence.format(average=versus_average, consensus=_points(consensus), gains=_gains(here))
            )


_SENTENCES: dict[Kind, str] = {
    "personal": "Personal for {average} ahead of its own average user{gains}.",
    "no-gain": f"It tells users apart, but is not seen to be better than the {CONSENSUS} for {{consensus}}.",
    "not-personal": "Not personal, as far as can be told, for {average} against its own average user.",
    "worse": "Users are better served when taken for its own average user, for {average}.",
    "below-consensus": f"Worse than the {CONSENSUS}, which knows nobody, for {{consensus}}.",
}
"""What is said of splits, in the order of reading."""


def _gains(compared: Sequence[_Compared]) -> str:
    gains = [f"{100 * c.consensus.value:+.1f}" for c in compared if c.consensus is not None]
    return f", and {_and(gains)} ahead of the {CONSENSUS}" if gains else ""


def _unmeasured(accuracies: dict[str, Measurement], splits: Sequence[str]) -> Iterator[Judgement]:
    missing = [split_title(split) for split in splits if split not in accuracies]
    if missing:
        yield Judgement(
            "unmeasured", f"Nothing was measured for {_and(missing)}: the data set has no such comparisons."
        )


_ENOUGH = "There is data enough: these users may want the same, or their comparisons may not tell what they want."
_ENOUGH_FOR_OTHERS = "There is data enough for a method that knows users, such as copl."


def _shortages(facts: TrainingFacts, accuracies: dict[str, Measurement], enough: str) -> Iterator[Judgement]:
    """Say what there is too little of, then what would help; `enough` is said where there is nothing."""
    helps = []
    for cause, remedy in _causes(facts):
        yield Judgement("cause", cause)
        helps.append(remedy)
    few = [m for m in accuracies.values() if m.count < _FEW_MEASURED]
    if few:
        counts = _and([f"{m.count:,} comparisons of {split_title(m.split)}" for m in few])
        yield Judgement("cause", f"It was judged by few comparisons: {counts}.")
    yield Judgement("remedy", f"What would help: {_and(helps)}." if helps else enough)


def _causes(facts: TrainingFacts) -> Iterator[tuple[str, str]]:
    """Yield what is wrong, and what would help against it."""
    if facts.num_users < _FEW_USERS:
        yield f"There are few users to learn from: {facts.num_users:,}.", "more users"
    if facts.median_comparisons < _FEW_COMPARISONS:
        said = f"half have {facts.median_comparisons:,.0f} training comparisons or fewer"
        yield f"Users have said little: {said}.", "more comparisons of each"
    if facts.outside > _MANY_OUTSIDE:
        bridge = "; what they have in common is in the texts alone" if facts.reads_texts else ""
        outside = f"{facts.outside:.0%} of the users lie outside the largest{bridge}"
        yield f"The preference graph is in islands: {outside}.", "questions that users have in common"
    if facts.gate is not None:
        yield f"{facts.gate[0].upper()}{facts.gate[1:]}.", "another gate, or fewer experts"


def _listed(accuracies: Sequence[Measurement]) -> str:
    return _and([f"{split_title(m.split)} ({100 * m.value:.1f} %)" for m in accuracies])


def _points(differences: Sequence[Measurement]) -> str:
    return _and(
        [
            f"{split_title(m.split)} ({100 * m.value:+.1f} points, {100 * m.low:+.1f} to {100 * m.high:+.1f})"
            for m in differences
        ]
    )


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
