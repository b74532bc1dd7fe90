"""Aligners measured on a small run: references are where they must be, newcomers are known by what they have said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
from attrs import evolve

from copl.align.aligners.best_of_n import BestOfN
from copl.align.aligners.none import NoAligner
from copl.align.aligners.oracle import Oracle
from copl.align.context import FittedRun
from copl.align.generators.facets import FacetsGenerator
from copl.align.judging import (
    UNPERSONALISED,
    PolicyJudge,
    PolicyResult,
    PolicySize,
    Written,
    new_prompts,
    prompts_to_ask,
)
from copl.align.truth import KnownTruth
from copl.data.dataset import load_dataset
from copl.data.sources.facets import FacetsOptions, generate
from copl.errors import DataError
from copl.evaluate.policy import ANSWERS, BETTER_OFF, GAIN
from copl.interfaces import Aligner, Generator, PreferenceModel
from copl.options import NoOptions
from copl.plugins import load
from copl.records import PreferenceData, ScoreRequests
from copl.records.answers import AnswerRequests
from copl.runs.directory import open_run
from copl.system.progress import SilentProgress
from copl.testing.alignment import EchoGenerator


@pytest.fixture(scope="module")
def data(small_data: Path) -> PreferenceData:
    return load_dataset(small_data)


@pytest.fixture(scope="module")
def method(personal_run: Path) -> PreferenceModel:
    return open_run(personal_run, load()).load_method()


def fitted(personal_run: Path, data: PreferenceData, method: PreferenceModel, scores: object = None) -> FittedRun:
    stages = open_run(personal_run, load()).recipe.stages
    return FittedRun(personal_run, method, stages, lambda: data, scores or method.scores)  # type: ignore[arg-type]


GRAMMAR = FacetsGenerator(NoOptions())


def judged(run: FittedRun, size: PolicySize, seed: int = 0, writer: Generator = GRAMMAR) -> PolicyResult:
    aligners: dict[str, Aligner] = {
        "best-of-n": BestOfN(NoOptions()),
        "none": NoAligner(NoOptions()),
        "oracle": Oracle(NoOptions()),
    }
    prompts, progress = prompts_to_ask(run.data(), size, seed), SilentProgress()
    written = Written(
        writer, prompts, writer.candidates(prompts, num=size.num_candidates, seed=seed, progress=progress)
    )
    return PolicyJudge(run, aligners, written, Path, size=size, seed=seed, progress=progress).result()


def values(result: PolicyResult, name: str, metric: str, subset: str = "all") -> dict[str, float]:
    return {m.split: m.value for m in result.measurements[name] if (m.metric, m.subset) == (metric, subset)}


def test_references_are_where_they_must_be(personal_run: Path, data: PreferenceData, method: PreferenceModel) -> None:
    result = judged(fitted(personal_run, data, method), PolicySize(6))
    assert values(result, "oracle", GAIN) == {"cold": 1, "heldout": 1}
    assert list(result.measurements) == [UNPERSONALISED, "best-of-n", "none", "oracle"]
    assert values(result, UNPERSONALISED, BETTER_OFF) == {}
    # nobody who has said nothing is better off, and all get what anybody gets
    assert values(result, "best-of-n", BETTER_OFF, f"{ANSWERS}0") == {"heldout": 0}
    assert (
        values(result, "best-of-n", GAIN, f"{ANSWERS}0")["heldout"] == values(result, UNPERSONALISED, GAIN)["heldout"]
    )
    assert not values(result, "oracle", GAIN, f"{ANSWERS}2")
    counts = {m.subset: m.count for m in result.measurements["best-of-n"] if m.metric == BETTER_OFF}
    given = np.bincount(data.split("support").comparisons.user)
    assert counts["all"] == 10
    assert counts[f"{ANSWERS}8"] == (given >= 8).sum() < counts[f"{ANSWERS}4"]


@final
class KnowsNobody:
    """All that the measurement asks of a method that knows no users."""

    def seen_users(self) -> Sequence[str]:
        return ()


def test_the_oracle_of_a_method_that_knows_nobody_is_no_other(
    personal_run: Path, data: PreferenceData, method: PreferenceModel
) -> None:
    run = fitted(personal_run, data, method)
    size = PolicySize(6, num_prompts=3, num_users=5)
    anybody = judged(evolve(run, method=KnowsNobody()), size)  # type: ignore[arg-type]
    assert values(anybody, "oracle", GAIN) == {"cold": 1, "heldout": 1}
    assert anybody.measurements["oracle"] == judged(run, size).measurements["oracle"]
    assert values(anybody, "best-of-n", BETTER_OFF) == {"cold": 0, "heldout": 0}


def test_rewards_that_are_the_truth_make_best_of_n_the_oracle(
    personal_run: Path, data: PreferenceData, method: PreferenceModel
) -> None:
    truth = KnownTruth.of(data)
    average = np.mean([truth.weights[user] for user in data.users.ids], axis=0)
    everybody = evolve(truth, weights={**truth.weights, "": average})

    def scores(requests: ScoreRequests, adapted: object) -> np.ndarray:
        of = [
            everybody.utilities(AnswerRequests(requests.users.ids, [prompt], [[text]]))[0][:, 0]
            for prompt, text in zip(requests.responses.prompts, requests.responses.texts, strict=True)
        ]
        return np.array(of)[requests.response, requests.user]

    result = judged(fitted(personal_run, data, method, scores), PolicySize(6, num_prompts=3, num_users=5))
    assert values(result, "best-of-n", GAIN) == pytest.approx({"cold": 1, "heldout": 1})
    assert all(shown.gain == 1 for example in result.examples for shown in example.shown)
    for example in result.examples:
        assert len({shown.text for shown in example.shown}) == 2
    counts = {m.split: m.count for m in result.measurements["best-of-n"] if (m.metric, m.subset) == (GAIN, "all")}
    assert counts == {"cold": 15, "heldout": 15}


@final
class HalfTaught:
    """Writes by the grammar, but of every third prompt all and of the others every third candidate is its own."""

    follows_prompts = False

    def fingerprint(self) -> str:
        return "half"

    def candidates(self, prompts: Sequence[str], **options: Any) -> list[tuple[str, ...]]:
        written = GRAMMAR.candidates(prompts, **options)
        return [
            tuple("It depends." if row % 3 == 0 or n % 3 == 0 else text for n, text in enumerate(texts))
            for row, texts in enumerate(written)
        ]


def test_what_cannot_be_read_is_shown_to_nobody_and_counted(
    personal_run: Path, data: PreferenceData, method: PreferenceModel
) -> None:
    run, size = fitted(personal_run, data, method), PolicySize(6, num_users=4)
    result = judged(run, size, writer=HalfTaught())
    asked = len(new_prompts(data))
    lost = -(-asked // 3)
    assert (result.num_written, result.num_unread) == (6 * asked, 6 * lost + 2 * (asked - lost))
    assert values(result, "oracle", GAIN) == {"cold": 1, "heldout": 1}
    counts = {m.split: m.count for m in result.measurements["best-of-n"] if (m.metric, m.subset) == (GAIN, "all")}
    assert counts == dict.fromkeys(("cold", "heldout"), 4 * (asked - lost))
    with pytest.raises(DataError, match="the style of 0 can be read"):
        judged(run, size, writer=EchoGenerator())


def test_the_same_seed_measures_the_same(personal_run: Path, data: PreferenceData, method: PreferenceModel) -> None:
    size = PolicySize(4, num_prompts=3, num_users=4)
    run = fitted(personal_run, data, method)
    assert judged(run, size) == judged(run, size)
    assert judged(run, size) != judged(run, size, seed=1)


def test_new_prompts_are_those_nothing_was_learnt_on(data: PreferenceData) -> None:
    asked = new_prompts(data)
    learnt = {data.responses.prompts[row] for row in data.split("train").comparisons.chosen}
    assert asked
    assert not learnt & set(asked)
    assert set(asked) <= set(data.responses.prompts)


def test_words_of_their_own_are_the_same_question() -> None:
    sizes = {"num_prompts": 30, "num_seen_users": 40, "num_unseen_users": 10}
    same, _ = generate(FacetsOptions(**sizes), 0)
    own, _ = generate(FacetsOptions(**sizes, own_wording=1.0), 0)
    assert set(new_prompts(own)) <= set(new_prompts(same))
    assert new_prompts(own)


def test_a_run_trained_on_all_prompts_is_refused() -> None:
    data, _ = generate(
        FacetsOptions(num_prompts=30, num_seen_users=9, num_unseen_users=3, cold_share=0.0, num_cold=0), 0
    )
    with pytest.raises(DataError, match="trained on all prompts"):
        new_prompts(data)
