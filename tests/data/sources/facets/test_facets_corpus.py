from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.data.sources.facets import phrasing
from copl.data.sources.facets.corpus import (
    FACETS,
    Corpus,
    Subject,
    Topic,
    compose,
    compose_corpus,
    facet_combinations,
    topics,
)


def corpus_of(seed: int, num_prompts: int = 300) -> Corpus:
    return compose_corpus(
        num_prompts, facets_rng=np.random.default_rng(seed), words_rng=np.random.default_rng([seed, 1])
    )


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return corpus_of(0)


def read_facets(text: str, subject: Subject) -> tuple[int, ...]:
    """Read the facets off a response as a person would, knowing the material but not the generator."""
    lowered = text.lower()
    plain = sum(point.lower() in lowered for point in subject.plain)
    technical = sum(point.lower() in lowered for point in subject.technical)
    tone = lowered
    for material in (subject.example, *subject.plain, *subject.technical):
        tone = tone.replace(material.lower(), "")  # what the subject's own material says is no sign of tone
    hedges = len(re.findall(r"\b(perhaps|maybe|might|may|could|possibly)\b", tone))
    orders = len(re.findall(r"\b(definitely|must|have to|without question|always|certainly)\b", tone))
    return (
        int(plain + technical == 3),
        int(technical > plain),
        int(orders > hedges),
        int("\n" in text),
        int("example" in tone),
    )


def test_there_are_three_hundred_prompts_in_ten_topics() -> None:
    subjects = [subject for topic in topics() for subject in topic.subjects]
    assert len(topics()) == 10
    assert len({subject.ask for subject in subjects}) == len(subjects) == 300


@pytest.mark.parametrize("topic", topics(), ids=lambda topic: topic.name)
def test_material_fits_the_phrasings(topic: Topic) -> None:
    for clauses in (topic.plain_reasons, topic.technical_reasons, topic.caveats):
        assert len(set(clauses)) >= 4
    for subject in topic.subjects:
        assert subject.ask.endswith("?")
        assert len(subject.plain) == len(subject.technical) == 3
        for clause in (*subject.plain, *subject.technical, subject.example):
            assert clause == clause.strip()
            assert not clause.endswith((".", "!", "?"))
        for point in (*subject.plain, *subject.technical):
            assert re.match(r"[a-z]", point), "a point is a bare infinitive in the middle of a sentence"
            assert 2 <= len(point.split()) <= 11


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), topic=st.sampled_from(topics()), data=st.data())
def test_every_facet_can_be_read_off_the_text(seed: int, topic: Topic, data: st.DataObject) -> None:
    subject = data.draw(st.sampled_from(topic.subjects))
    rng = np.random.default_rng(seed)
    for combination in itertools.product((0, 1), repeat=len(FACETS)):
        text = compose(topic, subject, combination, rng)
        assert read_facets(text, subject) == combination, text


def test_the_four_responses_to_a_prompt_share_each_facet_two_and_two(corpus: Corpus) -> None:
    by_prompt = corpus.facets.reshape(-1, 4, len(FACETS))
    assert (by_prompt.sum(axis=1) == 2).all()
    first, second = np.triu_indices(4, k=1)
    distance = (by_prompt[:, first] != by_prompt[:, second]).sum(axis=2)
    assert distance.min() >= 1
    assert (distance >= 2).mean() > 0.9


def test_facets_vary_independently() -> None:
    drawn = np.concatenate([facet_combinations(np.random.default_rng(seed)) for seed in range(2000)])
    # the standard error of a correlation is about 1 / sqrt(3 * 2000) here
    assert np.abs(np.corrcoef(drawn.T) - np.eye(len(FACETS))).max() < 0.06


def test_length_follows_brief_or_detailed_alone(corpus: Corpus) -> None:
    words = np.array([len(text.split()) for text in corpus.responses.texts])
    detailed = corpus.facets[:, 0] == 1
    assert words[~detailed].max() < words[detailed].min() + 10
    assert words[detailed].max() <= 100
    gap = words[detailed].mean() - words[~detailed].mean()
    for facet in range(1, len(FACETS)):
        has = corpus.facets[:, facet] == 1
        assert abs(words[has].mean() - words[~has].mean()) < 0.3 * gap


def test_prompts_and_texts_line_up(corpus: Corpus) -> None:
    subjects = {subject.ask: subject for topic in topics() for subject in topic.subjects}
    for prompt, text, facets in zip(corpus.responses.prompts, corpus.responses.texts, corpus.facets, strict=True):
        assert read_facets(text, subjects[prompt]) == tuple(facets)
    assert len(set(corpus.responses.keys)) == 1200


def test_phrasings_vary(corpus: Corpus) -> None:
    texts = "\n".join(corpus.responses.texts).lower()
    for phrases in (phrasing.FIRM_ADVICE, phrasing.HEDGED_ADVICE, phrasing.EXAMPLES, phrasing.LIST_HEADINGS):
        stems = [phrase.partition("{")[0].strip().lower() for phrase in phrases]
        counts = [texts.count(stem) for stem in stems]
        assert min(counts) > 30


def test_the_same_seed_composes_the_same_texts(corpus: Corpus) -> None:
    assert corpus_of(0).responses.keys == corpus.responses.keys
    assert corpus_of(1).responses.keys != corpus.responses.keys


def test_a_part_of_the_prompts_is_spread_over_the_topics() -> None:
    part = corpus_of(0, num_prompts=23)
    assert part.num_prompts == 23
    assert {part.topics.count(topic.name) for topic in topics()} == {2, 3}
