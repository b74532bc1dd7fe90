from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copl.data.sources.personalllm import PersonalLlmOptions, PersonalLlmSource
from copl.errors import DataError
from copl.records import PreferenceData
from tests.data.published import write_copy, write_lines, write_parquet

MODELS = ("gemma_7b", "mistral_weqweasdas", "llama3_sfairx", "oasst_deberta_v3")
SIZES = {"num_users": 30, "num_unseen_users": 4, "num_context": 4, "num_heldout": 1}


def row(prompt: str, scores: dict[int, list[float]]) -> dict[str, Any]:
    found: dict[str, Any] = {"prompt": prompt}
    for number, values in scores.items():
        found[f"response_{number}"] = f"answer {number} to {prompt}"
        found |= {f"response_{number}_{model}": value for model, value in zip(MODELS, values, strict=True)}
    return found


def load(path: Path, **options: Any) -> PreferenceData:
    return PersonalLlmSource(PersonalLlmOptions(path=path, **{**SIZES, **options})).load(seed=0)


def test_pairs_on_which_all_reward_models_agree_are_left_out(tmp_path: Path) -> None:
    # 5 against 6: all agree; 5 against 7: not; 6 against 7: equal on one, so not all agree.
    scores = {5: [1.0, 1, 1, 1], 6: [0.0, 0, 0, 0], 7: [2.0, 2, 0, 2]}
    data = load(write_parquet(tmp_path / "a.parquet", [row(f"q{n}", scores) for n in range(10)]))
    assert data.provenance["counts"]["pairs all reward models agree"] == 10
    assert data.provenance["counts"]["pairs"] == 20
    pairs = set()
    for name in data.present():
        part = data.splits[name]
        for chosen, rejected in zip(part.chosen.tolist(), part.rejected.tolist(), strict=True):
            pairs.add(frozenset(data.responses.texts[end].partition(" to ")[0][-1] for end in (chosen, rejected)))
    assert pairs == {frozenset("57"), frozenset("67")}
    assert set(data.responses.prompts) == {f"q{n}" for n in range(10)}  # every response has its prompt


def test_a_user_prefers_the_higher_weighted_score(tmp_path: Path) -> None:
    # With two models that contradict each other, a user of small concentration follows the one of greater weight.
    def answers(place: int) -> dict[str, Any]:
        sign = 1.0 if place % 2 else -1.0
        found: dict[str, Any] = {"prompt": f"q{place}"}
        for number, value in ((1, sign), (2, -sign)):
            found |= {f"response_{number}": f"{'a' if value > 0 else 'b'} {number} {place}"}
            found |= {f"response_{number}_for": value, f"response_{number}_against": -value}
        return found

    path = write_lines(tmp_path / "a.jsonl", [answers(place) for place in range(20)])
    data = load(path, responses=(1, 2), reward_models=("for", "against"), concentration=0.01)
    assert {"for", "against"} == set(data.users.groups)
    for name in data.present():
        part = data.splits[name]
        for user, chosen in zip(part.user.tolist(), part.chosen.tolist(), strict=True):
            assert data.responses.texts[chosen].startswith("a") == (data.users.groups[user] == "for")


def test_the_published_test_part_is_held_out_and_avg_varies(tmp_path: Path) -> None:
    options = {**write_copy("personalllm", tmp_path), "context": "AVG", "num_users": 60}
    data = PersonalLlmSource(PersonalLlmOptions(**{**options, "path": tmp_path})).load(seed=0)
    judged = {data.responses.prompts[row] for row in data.split("cold").comparisons.chosen.tolist()}
    assert judged <= {f"Question {n}?" for n in range(30, 40)}
    train = np.bincount(data.split("train").comparisons.user, minlength=60)
    assert train.min() >= 1
    assert train.max() == 14
    assert data.name == "personalllm-avg"


def test_faults(tmp_path: Path) -> None:
    good = row("q", {5: [1.0] * 4, 6: [0.0] * 4, 7: [2.0] * 4})
    with pytest.raises(DataError, match=r"a.jsonl: line 1: expected a number in each of response_6_gemma_7b"):
        load(write_lines(tmp_path / "a.jsonl", [{**good, "response_6_gemma_7b": "high"}]))
    with pytest.raises(DataError, match="no column 'response_7_gemma_7b'"):
        load(write_lines(tmp_path / "a.jsonl", [{k: v for k, v in good.items() if k != "response_7_gemma_7b"}]))
    with pytest.raises(DataError, match="no pair is left"):
        load(write_lines(tmp_path / "a.jsonl", [good]))
