"""Reads off a text what the grammar of `facets` put into it; what the grammar cannot have written is not guessed at.

A text is read against the material of its prompt: it must be sentences of the grammar from the first to the last, all
of one style. So of the texts that a language model writes, those are read whose truth is certain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Literal, TypeAlias, final

from attrs import evolve, frozen

from copl.data.canonical import canonical_text
from copl.data.sources.facets import phrasing
from copl.data.sources.facets.corpus import Subject, Topic, topics

Facets: TypeAlias = tuple[int, ...]
"""The style facets of a text, 0 or 1, in the order of `copl.data.sources.facets.corpus.FACETS`."""

_MARK = re.compile("|".join(re.escape(mark).replace(r"\{\}", r"\d+") for mark in phrasing.LIST_MARKS))


@final
@frozen
class _Sentence:
    """What one sentence of the grammar says of the style; None where it says nothing.

    Attributes:
        part: what it is in a response.
        points: how many pieces of advice it gives.
        technical: whether its words are those of the field.
        direct: whether it is firm.
    """

    part: Literal["advice", "reason", "close", "example", "remark"]
    points: tuple[int, ...] = ()
    technical: bool | None = None
    direct: bool | None = None


@cache
def _asks() -> Mapping[str, tuple[Topic, Subject]]:
    return {_plain(subject.ask): (topic, subject) for topic in topics() for subject in topic.subjects}


def _plain(ask: str) -> str:
    return ask.lower().rstrip("?")


def find_subject(prompt: str) -> tuple[Topic, Subject] | None:
    """Return what a prompt of the corpus asks, in whatever words (`wording`), or None where it is none of it."""
    plain = _plain(prompt)
    exact = _asks().get(plain)
    if exact is not None:
        return exact
    within = [ask for ask in _asks() if ask in plain]
    return _asks()[max(within, key=len)] if within else None


def read_facets(prompt: str, text: str) -> Facets | None:
    """Return the style facets of an answer to a prompt of the corpus, or None where the text is not of the grammar.

    >>> read_facets("How do I boil an egg?", "It depends.") is None
    True
    """
    grammar, lines = _grammar_of(prompt), _lines(canonical_text(text))
    if grammar is None or lines is None:
        return None
    as_list, parts = lines
    sentences: list[_Sentence] = []
    for part in parts:
        read = grammar.read(part)
        if read is None:
            return None
        sentences += read
    style = _style(sentences)
    return None if style is None else (*style[:3], int(as_list), style[3])


def _lines(text: str) -> tuple[bool, list[str]] | None:
    """Return whether a text is a list, and its points without their marks; None where it is half of both."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if lines and lines[0] in phrasing.LIST_HEADINGS:
        lines = lines[1:]
        if not lines or _MARK.match(lines[0]) is None:
            return None
    marks = [_MARK.match(line) for line in lines]
    if not lines or not any(marks):
        return (False, [" ".join(lines)]) if len(lines) == 1 else None
    points = [line[mark.end() :].strip() for line, mark in zip(lines, marks, strict=True) if mark is not None]
    return (True, points) if len(points) == len(lines) else None


def _style(sentences: Sequence[_Sentence]) -> tuple[int, int, int, int] | None:
    """Return detailed, technical, direct and example of the sentences of a text, None where they do not agree."""
    parts = [sentence.part for sentence in sentences]
    points = [point for sentence in sentences for point in sentence.points]
    technical = {sentence.technical for sentence in sentences} - {None}
    direct = {sentence.direct for sentence in sentences} - {None}
    if len(technical) != 1 or len(direct) != 1 or len(set(points)) != len(points):
        return None
    example = "example" in parts
    detailed = "close" in parts
    support = ["example", "remark"] if example else ["reason", "reason"]
    expected = [*support, "close"] if detailed else support[: int(example)]
    num_advice = parts.count("advice")
    if parts[num_advice:] != expected or len(points) != (3 if detailed else 2 - int(example)):
        return None
    return int(detailed), int(technical.pop() or 0), int(direct.pop() or 0), int(example)


def _openings(ways: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern of what stands before the words that are filled into phrases; all of them end with the words."""
    begins = sorted((way.removesuffix(".").removesuffix("{}").lower() for way in ways), key=len, reverse=True)
    return _any_of(begins)


def _any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, phrases)))


_CONNECTIVES = _any_of(f"{tie} " for tie in phrasing.CONNECTIVES)
_ADVICE = {False: _openings(phrasing.HEDGED_ADVICE), True: _openings(phrasing.FIRM_ADVICE)}
_REASON = {False: _openings(phrasing.PLAIN_REASON), True: _openings(phrasing.TECHNICAL_REASON)}
_HEDGED_REASON, _HEDGED_CLOSE = _openings(phrasing.HEDGED_REASON), _openings(phrasing.HEDGED_CLOSE)
_EXAMPLE = _openings(phrasing.EXAMPLES)
_FIRM_CLOSE = _any_of(phrase.lower() for phrase in phrasing.FIRM_CLOSE)
_REMARK = _any_of(phrase.lower() for phrase in phrasing.EXAMPLE_REMARKS)


@final
class _Grammar:
    """All sentences that may stand in an answer to one subject; texts are given in small letters."""

    def __init__(self, topic: Topic, subject: Subject) -> None:
        self._points = {False: _small(subject.plain), True: _small(subject.technical)}
        self._filled: list[tuple[re.Pattern[str], tuple[str, ...], _Sentence]] = [
            (_HEDGED_CLOSE, _small(topic.caveats), _Sentence("close", direct=False)),
            (_EXAMPLE, _small([subject.example]), _Sentence("example")),
        ]
        for technical, reasons in ((False, topic.plain_reasons), (True, topic.technical_reasons)):
            words, said = _small(reasons), _Sentence("reason", technical=technical)
            self._filled += [(_REASON[technical], words, said), (_HEDGED_REASON, words, evolve(said, direct=False))]

    def read(self, text: str) -> list[_Sentence] | None:
        """Return the sentences of a text from its begin to its end, None where something else stands there."""
        read: list[_Sentence] = []
        at, text = 0, text.lower()
        while at < len(text):
            sentence, at = self._sentence(text, at)
            if sentence is None:
                return None
            read.append(sentence)
            at += len(text[at:]) - len(text[at:].lstrip())
        return read or None

    def _sentence(self, text: str, at: int) -> tuple[_Sentence | None, int]:
        """Return the sentence at a place, and where it ends."""
        for whole, said in ((_FIRM_CLOSE, _Sentence("close", direct=True)), (_REMARK, _Sentence("remark"))):
            if match := whole.match(text, at):
                return said, match.end()
        for opening, words, said in self._filled:
            if (match := opening.match(text, at)) and (ends := _after(text, match.end(), [f"{w}." for w in words])):
                return said, max(ends)
        tie = _CONNECTIVES.match(text, at)
        for direct, opening in _ADVICE.items():
            for technical, points in self._points.items():
                one = _advice(text, tie.end() if tie else at, opening, points)
                if one is None:
                    continue
                first, end = one
                if text.startswith(".", end):
                    return _Sentence("advice", (first,), technical, direct), end + 1
                other = _advice(text, end + len(", and "), opening, points) if text.startswith(", and ", end) else None
                if other is not None and text.startswith(".", other[1]) and not tie:
                    return _Sentence("advice", (first, other[0]), technical, direct), other[1] + 1
        return None, at


def _small(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(word.lower() for word in words)


def _after(text: str, at: int, words: Sequence[str]) -> dict[int, int]:
    """Return which of some words stand at a place, by where they end."""
    return {at + len(word): place for place, word in enumerate(words) if text.startswith(word, at)}


def _advice(text: str, at: int, opening: re.Pattern[str], points: Sequence[str]) -> tuple[int, int] | None:
    """Return which point is given at a place, and where it ends; a point may begin as another does."""
    match = opening.match(text, at)
    ends = _after(text, match.end(), points) if match else {}
    return (ends[max(ends)], max(ends)) if ends else None


@lru_cache(maxsize=1024)
def _grammar_of(prompt: str) -> _Grammar | None:
    asked = find_subject(prompt)
    return None if asked is None else _Grammar(*asked)
