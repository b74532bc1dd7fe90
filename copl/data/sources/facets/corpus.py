"""The texts of `facets`: prompts from hand-written topics, and responses composed of them with given style facets."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen

from copl.data.sources.facets import phrasing
from copl.records import ResponseTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACETS = ("detailed", "technical", "direct", "list", "example")
"""The binary style facets, named by the value that counts as 1."""

RESPONSES_PER_PROMPT = 4


@final
@frozen
class Subject:
    """What a prompt asks, and the material of its responses.

    Attributes:
        ask: the prompt.
        plain: three pieces of advice in everyday words, as bare infinitives.
        technical: the same in the terms of the field.
        example: a concrete case, as a clause.
    """

    ask: str
    plain: tuple[str, ...]
    technical: tuple[str, ...]
    example: str


@final
@frozen
class Topic:
    """A field of advice.

    Attributes:
        name: short name.
        plain_reasons: why such advice works, in everyday words, as clauses.
        technical_reasons: the same in the terms of the field.
        caveats: why such advice may fail, as clauses.
        subjects: what is asked about.
    """

    name: str
    plain_reasons: tuple[str, ...]
    technical_reasons: tuple[str, ...]
    caveats: tuple[str, ...]
    subjects: tuple[Subject, ...]


@cache
def topics() -> tuple[Topic, ...]:
    """Return all topics, in alphabetical order."""
    entries = sorted(files(__package__).joinpath("topics").iterdir(), key=lambda entry: entry.name)
    return tuple(
        _topic(entry.name.removesuffix(".toml"), entry.read_text("utf-8"))
        for entry in entries
        if entry.name.endswith(".toml")
    )


def _topic(name: str, text: str) -> Topic:
    raw = tomllib.loads(text)
    subjects = tuple(Subject(s["ask"], tuple(s["plain"]), tuple(s["technical"]), s["example"]) for s in raw["subjects"])
    return Topic(name, tuple(raw["plain_reasons"]), tuple(raw["technical_reasons"]), tuple(raw["caveats"]), subjects)


@final
@frozen(eq=False)
class Corpus:
    """Prompts with their responses; the responses of prompt p are the rows 4p to 4p + 3.

    Attributes:
        responses: the texts.
        facets: the style facets of each response, 0 or 1, columns as in `FACETS` [R, 5].
        topics: the topic of each prompt [P].
    """

    responses: ResponseTable
    facets: NDArray[np.int8]
    topics: tuple[str, ...]

    @property
    def num_prompts(self) -> int:
        return len(self.topics)


def compose_corpus(num_prompts: int, *, facets_rng: np.random.Generator, words_rng: np.random.Generator) -> Corpus:
    """Compose the responses of `num_prompts` prompts, taken evenly from all topics.

    Args:
        num_prompts: number of prompts P; there are as many as the topics have subjects.
        facets_rng: draws the facets of the responses.
        words_rng: draws the words.
    """
    # the first subject of each topic, then the second of each, and so on: any number of prompts is spread evenly
    depth = max(len(topic.subjects) for topic in topics())
    order = [(topic, topic.subjects[i]) for i in range(depth) for topic in topics() if i < len(topic.subjects)]
    order = order[:num_prompts]
    facets = np.stack([facet_combinations(facets_rng) for _ in order])
    texts = [
        compose(topic, subject, combination, words_rng)
        for (topic, subject), combinations in zip(order, facets, strict=True)
        for combination in combinations
    ]
    prompts = [subject.ask for _, subject in order for _ in range(RESPONSES_PER_PROMPT)]
    return Corpus(
        ResponseTable(prompts, texts), facets.reshape(-1, len(FACETS)), tuple(topic.name for topic, _ in order)
    )


def facet_combinations(rng: np.random.Generator) -> NDArray[np.int8]:
    """Draw the facets [4, 5] of the responses to one prompt.

    Each facet holds for exactly two of the four, drawn independently of the other facets, so that over a corpus no
    facet tells of another; drawn again while two responses agree in all facets.
    """
    halves = np.array([0, 0, 1, 1], dtype=np.int8)
    while True:
        drawn = np.stack([rng.permutation(halves) for _ in FACETS], axis=1)
        if len(np.unique(drawn, axis=0)) == RESPONSES_PER_PROMPT:
            return drawn


def compose(topic: Topic, subject: Subject, facets: Sequence[int] | NDArray[np.int8], rng: np.random.Generator) -> str:
    """Compose a response to `subject` with the style `facets` (order as in `FACETS`)."""
    detailed, technical, direct, as_list, example = (bool(f) for f in facets)
    points = subject.technical if technical else subject.plain
    illustration = [_pick(phrasing.EXAMPLES, rng).format(subject.example)] if example else []
    # an example takes the place of the reasons, or of a second point, so that it tells nothing of the length
    if detailed:
        advice = _advice(points, direct, rng)
        if not as_list:
            ties = rng.permutation(phrasing.CONNECTIVES)
            advice[1:] = [f"{tie} {point}" for tie, point in zip(ties, advice[1:], strict=False)]
        if example:
            support = [*illustration, _pick(phrasing.EXAMPLE_REMARKS, rng)]
        else:
            support = _because(topic.technical_reasons if technical else topic.plain_reasons, technical, direct, rng)
        sentences = [*(f"{point}." for point in advice), *support, _close(topic, direct, rng)]
    else:
        kept = sorted(rng.permutation(len(points))[: 1 if example else 2])
        advice = _advice([points[i] for i in kept], direct, rng)
        if not as_list and len(advice) > 1 and rng.random() < 0.5:
            advice = [f"{advice[0]}, and {advice[1]}"]
        sentences = [*(f"{point}." for point in advice), *illustration]
    sentences = [s[0].upper() + s[1:] for s in sentences]
    if not as_list:
        return " ".join(sentences)
    mark = _pick(phrasing.LIST_MARKS, rng)
    heading = [_pick(phrasing.LIST_HEADINGS, rng)] if rng.random() < 0.8 else []
    return "\n".join([*heading, *(f"{mark.format(i)} {sentence}" for i, sentence in enumerate(sentences, start=1))])


def _pick(phrases: Sequence[str], rng: np.random.Generator) -> str:
    return phrases[int(rng.integers(len(phrases)))]


def _advice(points: Sequence[str], direct: bool, rng: np.random.Generator) -> list[str]:
    """Return the points, each phrased in another way."""
    ways = rng.permutation(phrasing.FIRM_ADVICE if direct else phrasing.HEDGED_ADVICE)
    return [str(way).format(point) for way, point in zip(ways, points, strict=False)]


def _because(reasons: Sequence[str], technical: bool, direct: bool, rng: np.random.Generator) -> list[str]:
    """Return two of the reasons, each phrased in another way; a cautious response hedges one of them in places."""
    ways = list(rng.permutation(phrasing.TECHNICAL_REASON if technical else phrasing.PLAIN_REASON))
    if not direct and rng.random() < 0.5:
        ways[0] = _pick(phrasing.HEDGED_REASON, rng)
    return [str(way).format(reason) for way, reason in zip(ways, rng.permutation(reasons)[:2], strict=False)]


def _close(topic: Topic, direct: bool, rng: np.random.Generator) -> str:
    if direct:
        return _pick(phrasing.FIRM_CLOSE, rng)
    return _pick(phrasing.HEDGED_CLOSE, rng).format(_pick(topic.caveats, rng))
