"""Which comparisons stand in the prompt, within which budget, and what becomes of users without any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
from attrs import evolve

from copl.align.aligners.in_context import OPENING, WITHOUT, InContext, InContextOptions
from copl.align.choosing import UNKNOWN
from copl.align.generators.facets import FacetsGenerator
from copl.errors import OptionsError
from copl.options import NoOptions
from copl.records import Comparisons, ComparisonSet, FloatArray, ResponseTable, UserTable
from copl.records.answers import AnswerRequests
from copl.records.dataset import with_implied
from copl.records.judgements import THUMB, Judgements
from copl.testing.alignment import EchoGenerator, PlantedContext

CHAT = '[{"role":"system","content":"Hello"},{"role":"user","content":"Tea?"},{"role":"assistant","content":"Yes."}]'


@final
class Context:
    """The planted context with comparisons and features by hand, and a generator that remembers what it was asked."""

    def __init__(self, said: ComparisonSet, features: dict[str, list[float]] | None = None) -> None:
        self.own = PlantedContext(Path())
        self.asked: list[str] = []
        self.generator = Remembering(self.asked)
        self._said, self._features = said, features or {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def comparisons(self, user_id: str) -> ComparisonSet:
        return self._said

    def features(self, responses: ResponseTable) -> FloatArray:
        return np.array([self._features.get(text, [1.0, 1.0]) for text in responses.texts])


@final
class Remembering:
    def __init__(self, asked: list[str]) -> None:
        self._asked = asked
        self.follows_prompts = True

    def candidates(self, prompts: Sequence[str], **options: Any) -> list[tuple[str, ...]]:
        self._asked += prompts
        return EchoGenerator().candidates(prompts, **options)


def said(*pairs: tuple[str, str]) -> ComparisonSet:
    texts = [text for pair in pairs for text in pair]
    rows = np.arange(len(pairs))
    prompts = [f"asked {row // 2}" for row in range(len(texts))]
    comparisons = Comparisons(np.zeros_like(rows), 2 * rows, 2 * rows + 1)
    return ComparisonSet(UserTable.ungrouped(["user-1"]), ResponseTable(prompts, texts), comparisons)


# user-1 likes long texts, most people short ones: so the second tells most, the last nothing
SAID = said(("x" * 30, "x" * 20), ("y" * 60, "y"), ("z" * 40, "z" * 20), ("a", "a" * 50))


def prompt_for(context: Context, prompt: str = "Coffee?", **options: Any) -> str:
    aligner = InContext(InContextOptions(**options))
    (answer,) = aligner.answers(AnswerRequests(["user-1"], [prompt], [["one", "another"]]), context)  # type: ignore[arg-type]
    assert answer.prompt == prompt
    assert answer.user_known
    assert context.asked[0] in answer.shown
    return context.asked[0]


def test_the_most_telling_comparison_stands_last_before_the_question() -> None:
    text = prompt_for(Context(SAID), information=1.0)
    assert text.startswith(OPENING)
    assert text.endswith("Question: Coffee?")
    order = [text.index(word * 20) for word in "azxy" if word * 20 in text]
    places = [text.index(f"Preferred: {chosen}") for chosen in ("a\n", "x" * 30, "z" * 40, "y" * 60)]
    assert places == sorted(places)
    assert order
    assert f"Question: asked 1\nPreferred: {'y' * 60}\nRejected: y\n" in text


def test_likeness_is_to_the_candidates_of_the_prompt() -> None:
    features = {"one": [1.0, 0.0], "another": [1.0, 0.1], "z" * 40: [3.0, 0.0], "z" * 20: [2.0, 0.1]}
    rest = {text: [0.0, 1.0] for text in SAID.responses.texts if text not in features}
    text = prompt_for(Context(SAID, {**features, **rest}), information=0.0)
    assert text.index(f"Preferred: {'z' * 40}") > text.index(f"Preferred: {'y' * 60}")


def test_the_budget_holds_and_what_is_too_long_is_passed_over() -> None:
    for budget, number in ((26, 1), (25, 2)):  # tokens of four characters: the most telling one takes 26
        text = prompt_for(Context(SAID), information=1.0, budget=budget)
        (shown,) = [part for part in text.split("\n\n") if part.startswith("Question: asked")]
        assert -(-len(shown) // 4) == budget
        assert shown.startswith(f"Question: asked {number}")
    assert prompt_for(Context(SAID), budget=1) == "Coffee?"  # nothing fits


def test_in_a_conversation_it_stands_before_the_last_question() -> None:
    text = prompt_for(Context(SAID), CHAT)
    assert text.startswith('[{"role":"system","content":"Hello"},{"role":"user","content":"You answer for one person')
    assert text.endswith('Tea?"},{"role":"assistant","content":"Yes."}]')


def test_of_several_the_best_by_reward_is_shown() -> None:
    aligner = InContext(InContextOptions(num_written=3))
    (answer,) = aligner.answers(AnswerRequests(["user-1"], ["?"], [["a", "b"]]), Context(SAID))  # type: ignore[arg-type]
    assert answer.choice == 2  # the longest of what the echo writes
    assert len(answer.candidates) == len(answer.rewards) == 3
    assert answer.unpersonalised == "a"


def test_without_comparisons_the_best_of_the_candidates_is_shown() -> None:
    context = Context(evolve(SAID, comparisons=Comparisons.empty()))
    requests = AnswerRequests(["user-1", "stranger"], ["?"], [["short", "much longer"]])
    known, stranger = InContext(InContextOptions()).answers(requests, context)  # type: ignore[arg-type]
    assert (known.shown, known.user_known, known.note) == ("much longer", True, WITHOUT)
    assert (stranger.shown, stranger.user_known, stranger.note) == ("short", False, UNKNOWN)
    assert context.asked == []


def test_what_tells_the_rewards_nothing_is_told_the_writer() -> None:
    context = Context(SAID)
    (answer,) = InContext(InContextOptions()).answers(AnswerRequests(["stranger"], ["?"], [["a", "b"]]), context)  # type: ignore[arg-type]
    assert not context.knows("stranger")
    assert answer.user_known
    assert "y" * 60 in context.asked[0]
    assert context.asked[0] in answer.shown


def test_what_thumbs_to_different_prompts_imply_is_not_shown() -> None:
    thumbs = Judgements([THUMB] * 3, [0] * 3, [0, 1, 3], [-1] * 3, [1.0, -1.0, -1.0])
    told = with_implied(SAID.users, SAID.responses, Comparisons.empty(), thumbs)
    assert len(told) == 2
    text = prompt_for(Context(told), information=1.0)
    assert text.count("Preferred: ") == 1
    assert f"Question: asked 0\nPreferred: {'x' * 30}\nRejected: {'x' * 20}\n" in text


def test_a_writer_that_reads_no_prompts_is_refused() -> None:
    context = evolve(PlantedContext(Path()), generator=FacetsGenerator(NoOptions()))
    with pytest.raises(OptionsError, match="choose --generator local or openai"):
        InContext(InContextOptions()).answers(AnswerRequests(["user-1"], ["?"], [["a"]]), context)
