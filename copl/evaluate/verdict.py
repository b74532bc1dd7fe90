"""The verdict: whether a model is personal, for whom it is not, and what would help, in a few lines.

A model is personal for a split where it is right more often for the users it knows than two others that know none: it
itself, taking each of them for the average user, and the consensus of all users, trained on the same comparisons. It is
by the paired difference on the same comparisons, whose 95 % interval lies above zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, final

from attrs import frozen

from copl.evaluate.paired import VERSUS
from copl.evaluate.tables import points, says_nothing, split_title
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
    "no-reference",
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
        claim: it in a short sentence.
        figures: what that is known by, in a sentence or two; empty where there is no more to say.
    """

    kind: Kind
    claim: str
    figures: str = ""

    @property
    def line(self) -> str:
        """The claim and its figures."""
        return f"{self.claim} {self.figures}".rstrip()


@final
@frozen
class Verdict:
    """All that is to be said, in the order of reading.

    Attributes:
        judgements: what was found.
    """

    judgements: tuple[Judgement, ...]

    @property
    def knows_users(self) -> bool:
        """Whether the method has anything to tell users apart by, well or badly."""
        return all(judgement.kind != "no-users" for judgement in self.judgements)

    @property
    def text(self) -> str:
        """The verdict, a line for each judgement."""
        return "\n".join(judgement.line for judgement in self.judgements)


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
    said = [*_chance(accuracies), *_personal(compared), *_gaps(accuracies, compared, splits)]
    if any(judgement.kind in _DOUBTFUL for judgement in said):
        said += _shortages(facts, accuracies, personal=all(judgement.kind != "no-users" for judgement in said))
    elif facts.gate is not None and any(judgement.kind == "personal" for judgement in said):
        said.append(Judgement("cause", "Its experts have no part in that.", _sentence(facts.gate)))
    return Verdict(tuple(said))


def ahead_of(versus: str, measurements: Iterable[Measurement]) -> dict[str, Measurement]:
    """Return by split how far a model is ahead of a reference, where that was measured."""
    wanted = ("accuracy_difference", f"{VERSUS}{versus}")
    return {m.split: m for m in measurements if (m.metric, m.subset) == wanted}


def _chance(accuracies: dict[str, Measurement]) -> Iterator[Judgement]:
    below = [m for m in accuracies.values() if below_chance(m)]
    if below:
        claim = f"Worse than chance{_for(below)}: it prefers what users reject."
        yield Judgement("below-chance", claim, f"It is right {_shares(below)}.")
    silent = [m for m in accuracies.values() if says_nothing(m)]
    if silent:
        yield Judgement("no-answer", f"No answer{_for(silent)}: it gives both responses the same score.")
    level = [m for m in accuracies.values() if m.low <= CHANCE <= m.high and not says_nothing(m)]
    if level:
        claim = f"No better than chance{_for(level)}, as far as can be told."
        yield Judgement("at-chance", claim, f"It is right {_shares(level)}.")


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
    if _knows_nobody(compared):
        yield Judgement("no-users", "Not personal: it gives everybody the same scores, whoever asks.")
        return
    by_kind: dict[Kind | None, list[_Compared]] = {}
    for one in compared:
        by_kind.setdefault(one.kind, []).append(one)
    for kind, (claim, figures) in _SENTENCES.items():
        if kind in by_kind:
            splits = by_kind[kind]
            consensus = [c.consensus for c in splits if c.consensus is not None]
            yield Judgement(
                kind,
                claim.format(where=_for([c.accuracy for c in splits])),
                figures.format(
                    average=_differences([c.average for c in splits]),
                    consensus=_differences(consensus),
                    beside=_beside(consensus, named=len(splits) > 1),
                ),
            )


_SENTENCES: dict[Kind, tuple[str, str]] = {
    "personal": ("Personal{where}.", "When it knows the user, it gets {average}.{beside}"),
    "no-gain": (
        "No clear gain{where}: it tells users apart, but one answer for everybody may be as good.",
        f"Against the {CONSENSUS} it gets {{consensus}}.",
    ),
    "not-personal": ("Not personal{where}, as far as can be told.", "When it knows the user, it gets {average}."),
    "worse": ("Knowing the user does harm{where}.", "When it knows the user, it gets {average}."),
    "below-consensus": (f"Worse than the {CONSENSUS}{{where}}.", "It gets {consensus}."),
}
"""What is claimed of splits and by which figures, in the order of reading."""


def _beside(consensus: Sequence[Measurement], *, named: bool) -> str:
    gains = [
        f"{points(m.value)}{'' if place else ' of 100'}{_for([m]) if named else ''}"
        for place, m in enumerate(consensus)
    ]
    return f" It beats the {CONSENSUS} by {_and(gains)}." if gains else ""


def _knows_nobody(compared: Sequence[_Compared]) -> bool:
    return all(c.average.low == c.average.value == c.average.high == 0.0 for c in compared)


def _gaps(
    accuracies: dict[str, Measurement], compared: Sequence[_Compared], splits: Sequence[str]
) -> Iterator[Judgement]:
    """Say what was not measured, and what it was not measured against."""
    measured = {c.accuracy.split for c in compared}
    alone = [m for split, m in accuracies.items() if split not in measured]
    if alone:
        yield Judgement(
            "no-reference", f"Whether it is personal{_for(alone)} is not known: it was not measured without the user."
        )
    without = [c.accuracy for c in compared if c.consensus is None]
    if without and not _knows_nobody(compared):
        where = _for(without) if len(without) < len(compared) else ""
        yield Judgement("no-reference", f"It was not compared with the {CONSENSUS}{where}.")
    missing = [split for split in splits if split not in accuracies]
    if missing:
        yield Judgement(
            "unmeasured", f"Nothing was measured{_where(missing)}: the data set has no such comparisons held out."
        )


_ENOUGH = "There is data enough: these users may want the same, or their comparisons may not show what they want."


def _shortages(facts: TrainingFacts, accuracies: dict[str, Measurement], *, personal: bool) -> Iterator[Judgement]:
    """Say what there is too little of, then what would help."""
    helps = []
    for cause, remedy in _causes(facts, personal=personal):
        yield Judgement("cause", cause)
        helps.append(remedy)
    few = [m for m in accuracies.values() if m.count < _FEW_MEASURED]
    if few:
        counts = _and([f"{m.count:,}{_for([m])}" for m in few])
        yield Judgement("cause", f"Few comparisons were held out to judge it by: {counts}.")
        helps.append("more comparisons to judge it by")
    if not personal:
        helps.append("a method that knows users, such as copl")
    yield Judgement("remedy", f"What would help: {_and(helps)}." if helps else _ENOUGH)


def _causes(facts: TrainingFacts, *, personal: bool) -> Iterator[tuple[str, str]]:
    """Yield what is wrong, and what would help; only a model that tells users apart suffers from islands or a gate."""
    if facts.num_users < _FEW_USERS:
        yield f"There are few users to learn from: {facts.num_users:,}.", "more users"
    if facts.median_comparisons < _FEW_COMPARISONS:
        median = f"{facts.median_comparisons:,.0f}"
        yield (
            f"Users have said little: half of them have {median} training comparisons or fewer.",
            "more comparisons of each user",
        )
    if personal and facts.outside > _MANY_OUTSIDE:
        alone = f"{facts.outside:.0%} of the users judged no response that the largest island of users judged"
        bridge = ", so only texts connect them" if facts.reads_texts else ", so nothing connects them"
        yield f"Users are in islands: {alone}{bridge}.", "questions that users have in common"
    if personal and facts.gate is not None:
        yield _sentence(facts.gate), "another gate, or fewer experts"


def _sentence(finding: str) -> str:
    return f"{finding[0].upper()}{finding[1:]}."


def _for(measurements: Sequence[Measurement]) -> str:
    return _where([m.split for m in measurements])


def _where(splits: Sequence[str]) -> str:
    """Return the splits in words; nothing for validation, which is only judged alone."""
    return "" if list(splits) == ["validation"] else f" for {_and([split_title(split) for split in splits])}"


def _shares(accuracies: Sequence[Measurement]) -> str:
    """Return how often something is right, in words."""
    first, *others = [
        (
            points(m.value),
            f"{_for([m]) if len(accuracies) > 1 else ''} ({points(m.low)} to {points(m.high)})",
        )
        for m in accuracies
    ]
    return _and([f"{first[0]} times in 100{first[1]}", *map("".join, others)])


def _differences(differences: Sequence[Measurement]) -> str:
    """Return how many comparisons of a hundred more or fewer are right, in words."""
    parts = []
    for place, m in enumerate(differences):
        unit = "" if place else " of 100 comparisons right"
        where = _for([m]) if len(differences) > 1 else ""
        parts.append(f"{_more(m.value)}{unit}{where} ({_reach(m)})")
    return _and(parts)


def _more(difference: float) -> str:
    return f"{points(abs(difference))} {'more' if difference >= 0 else 'fewer'}"


def _reach(m: Measurement) -> str:
    """Return an interval in words; that of a loss is turned round, as what is fewer is counted."""
    if m.low < 0 < m.high:
        return f"{_more(m.low)} to {_more(m.high)}"
    low, high = sorted((abs(m.low), abs(m.high)))
    return f"{points(low)} to {points(high)}"


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
