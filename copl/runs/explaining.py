"""Why a response scores as it does for a user, with the texts of the answers that make the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs

from copl.errors import OptionsError, quoted, suggest
from copl.evaluate.examples import examples
from copl.records import ResponseTable
from copl.records.evidence import LEVEL_KEYS
from copl.records.explanation import ANSWERS, Explanation, Part
from copl.runs.reference import data_of
from copl.system.documents import read_document, write_document

if TYPE_CHECKING:
    from copl.interfaces import PreferenceModel
    from copl.records import ComparisonSet, FloatArray, PreferenceData
    from copl.runs.directory import Run

WORDS: Mapping[str, str] = {
    "everybody": "what everybody thinks of it",
    "own answer": "the user's own answers",
    "like-minded user": "seen users who explain these answers best, each with the answer that speaks most",
    "other users": "all other seen users, by how like-minded they are",
    "reward model": "what the reward model reads in the texts for this user",
    "rest": "what the encoder has learnt beyond both",
}
"""What each source of a part is."""

_OWN = "own answer"
_LEVELS = frozenset(LEVEL_KEYS)

_FILE = "reasons.json"
_GONE = "a text that is not in the data any more"


@final
@attrs.frozen
class Line:
    """One line of an explanation: what it adds, in words; one below another one is a part of that."""

    amount: float
    words: str
    is_detail: bool = False


@final
@attrs.frozen
class Reasons:
    """An explanation with its texts.

    Attributes:
        user: the user's id.
        prompt: what the responses answer.
        response: the response.
        against: the other one; None for the average response.
        score: by how much the user prefers it.
        parts: what makes the score, with texts in place of keys; the amounts add up to it.
        deviation: standard deviation of the score by what is not known of the user.
        probability: chance that the user chooses the first, that being taken into account.
        num_answers: how many answers of the user's own there are; a newcomer's ratings are compared with one another,
            and each such comparison is an answer.
    """

    user: str
    prompt: str
    response: str
    against: str | None
    score: float
    parts: tuple[Part, ...]
    deviation: float
    probability: float
    num_answers: int

    @property
    def words(self) -> Mapping[str, str]:
        """What each source of a part is."""
        return WORDS

    def lines(self, *, num_shown: int = 8, length: int = 60) -> list[Line]:
        """Return the parts, to be read from top to bottom: each source, and below it its answers.

        Args:
            num_shown: answers shown of a source; what the others add up to is one line.
            length: characters of a text that are shown.
        """
        lines = []
        for source, words in self.words.items():
            own = [part for part in self.parts if part.source == source]
            if not own:
                continue
            lines.append(Line(sum(part.amount for part in own), words))
            if source in (_OWN, "like-minded user"):
                lines += [Line(part.amount, _answer(part, length), is_detail=True) for part in own[:num_shown]]
                if more := own[num_shown:]:
                    lines.append(Line(sum(part.amount for part in more), f"{len(more)} more", is_detail=True))
        return lines

    def title(self, length: int = 60) -> str:
        """Return what is explained, in words."""
        other = "the average response" if self.against is None else _short(self.against, length)
        return f"{_short(self.response, length)} rather than {other}"

    def to_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return attrs.asdict(self)

    @classmethod
    def of(cls, explained: Explanation, responses: ResponseTable, texts: Mapping[str, str]) -> Reasons:
        """Put texts in place of the keys of an explanation."""

        def told(key: str) -> str:
            return texts.get(key, _GONE) if key else ""

        said = as_said(explained.parts)
        parts = tuple(attrs.evolve(p, chosen=told(p.chosen), rejected=told(p.rejected)) for p in said)
        num_answers = sum(part.source == _OWN for part in parts)
        against = responses.texts[1] if len(responses) > 1 else None
        return cls(
            explained.user, responses.prompts[0], responses.texts[0], against, explained.score, parts,
            explained.deviation, explained.probability, num_answers,
        )  # fmt: skip


@final
@attrs.frozen
class _Kept:
    reasons: tuple[Reasons, ...]


def as_said(parts: Sequence[Part]) -> list[Part]:
    """Return the parts with one for each answer of the user's own, in the place of those that it was learnt from.

    A tie is learnt from as a comparison either way, a thumb or a rating as comparisons with levels of the user's scale.
    Of an answer on a response that the encoder does not know nothing is put together.

    Args:
        parts: parts as an encoder gives them, with keys.
    """
    own: dict[frozenset[str], list[Part]] = {}
    for part in parts:
        if part.source == _OWN:
            own.setdefault(frozenset((part.chosen, part.rejected)) - _LEVELS, []).append(part)
    merged = [answer for ends, group in own.items() for answer in _merged(ends, group)]
    merged.sort(key=lambda part: -abs(part.amount))
    others = [_of_one(part) for part in parts if part.source != _OWN]
    before = next((place for place, part in enumerate(parts) if part.source == _OWN), 0)
    return [*others[:before], *merged, *others[before:]]


def _merged(ends: frozenset[str], group: Sequence[Part]) -> Sequence[Part]:
    """Return what was said of the same responses as one answer, where it was one."""
    amount = sum(part.amount for part in group)
    kinds = {_of_one(part).kind for part in group}
    if "" in ends or (len(ends) > 1 and len({part.chosen for part in group}) == 1):
        return [_of_one(part) for part in group]
    if len(ends) == 1:
        kind = kinds.pop() if len(kinds) == 1 else "between"
        return [attrs.evolve(_of_one(group[0]), amount=amount, kind=kind)]
    return [attrs.evolve(group[0], amount=amount, kind="tie")]


def _of_one(part: Part) -> Part:
    """Return a comparison with a level of the user's scale as what it says of the response alone."""
    if part.rejected in _LEVELS:
        return attrs.evolve(part, rejected="", kind="good")
    return attrs.evolve(part, chosen=part.rejected, rejected="", kind="bad") if part.chosen in _LEVELS else part


def _answer(part: Part, length: int) -> str:
    who = f"{part.user}: " if part.user else ""
    return who + ANSWERS[part.kind].format(*(_short(text, length) for text in (part.chosen, part.rejected)))


def _short(text: str, length: int) -> str:
    line = " ".join(text.split())
    return f"“{line}”" if len(line) <= length else f"“{line[:length]}…”"


def texts_of(*tables: ResponseTable) -> dict[str, str]:
    """Return the text of each response of some tables, by key."""
    return {key: text for table in tables for key, text in zip(table.keys, table.texts, strict=True)}


@final
class RunTexts:
    """The texts of the data set that a run was trained on, where it is there still."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def reasons(self, explained: Explanation, responses: ResponseTable, said: ComparisonSet | None) -> Reasons:
        """Put texts in place of the keys of an explanation, those of what the user has said since among them."""
        texts = self._texts if said is None else {**texts_of(said.responses), **self._texts}
        return Reasons.of(explained, responses, texts)

    def own_answer(self, user: str, said: ComparisonSet | None) -> tuple[str, str, str | None]:
        """Return prompt and responses of the first answer of a user in what was said since, else in the run's data.

        Raises:
            OptionsError: the data is gone, or has no such user; or the user has said nothing.
        """
        if said is not None and (first := _first_answer(said.of_user(user))):
            return first
        data = self._data
        known = [*(said.users.ids if said is not None else ()), *(data.users.ids if data is not None else ())]
        if data is not None and user in data.users.rows:
            for name in data.evidence():
                if first := _first_answer(data.split(name).of_user(user)):
                    return first
        elif user not in known:
            if data is None:
                raise OptionsError("the data of the run is not there any more; give --prompt and --response")
            raise OptionsError(f"no user {quoted(user)} in the data{suggest(user, known)}")
        raise OptionsError(f"user {quoted(user)} has said nothing; give --prompt and --response")

    @cached_property
    def _data(self) -> PreferenceData | None:
        return data_of(self._run)

    @cached_property
    def _texts(self) -> Mapping[str, str]:
        """By key."""
        return texts_of(*([] if self._data is None else [self._data.responses]))


def explain_some(method: PreferenceModel, data: PreferenceData, margins: Mapping[str, FloatArray]) -> list[Reasons]:
    """Return why two users want what they want, as a report shows: a pair of the test split that they judged otherwise.

    Where no pair of that split was, as the model says, take one of another; of nobody where scores cannot be taken
    apart.

    Args:
        method: the fitted method.
        data: the data set it is measured on.
        margins: by split, the margin of each comparison.
    """
    test = {split: values for split, values in margins.items() if split == "test"}
    shown = [*examples(test, data, count=1), *examples(margins, data, count=1)][:1]
    if not shown:
        return []
    texts, reasons = texts_of(data.responses), []
    for (user, own), (_, other) in ((shown[0].first, shown[0].second), (shown[0].second, shown[0].first)):
        pair = ResponseTable([shown[0].prompt] * 2, [own, other])
        try:
            explained = method.explain(user, pair, data.split("support") if shown[0].split == "heldout" else None)
        except OptionsError:  # the method cannot
            return []
        reasons.append(Reasons.of(explained, pair, texts))
    return reasons


def save_reasons(reasons: Sequence[Reasons], directory: Path) -> None:
    """Write explanations into a directory."""
    write_document(directory / _FILE, _Kept(tuple(reasons)))


def load_reasons(directory: Path) -> tuple[Reasons, ...]:
    """Read explanations; none where an earlier version has written none.

    Raises:
        RunError: they are damaged.
    """
    path = directory / _FILE
    return read_document(path, _Kept, advice="evaluate the run again").reasons if path.exists() else ()


def _first_answer(said: ComparisonSet) -> tuple[str, str, str | None] | None:
    """Return prompt and responses of the first comparison, else of the first judgement; None where there is neither.

    Of a thumb or a rating the second response is None. Comparisons of responses to different prompts, which such imply,
    are nobody's answer.
    """
    rows, judged, table = said.comparisons.take(said.told_apart), said.judgements, said.responses
    if len(rows):
        first, second = int(rows.chosen[0]), int(rows.rejected[0])
    elif len(judged):
        first, second = int(judged.response[0]), int(judged.other[0])
    else:
        return None
    return table.prompts[first], table.texts[first], table.texts[second] if second >= 0 else None
