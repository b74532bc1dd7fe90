from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copl.data.checking.checks import check
from copl.data.checking.positions import one_sided_users
from copl.data.sources.llmfao import LlmfaoOptions, LlmfaoSource
from copl.errors import DataError
from copl.records import PreferenceData
from tests.data.sources.exports import notes as notes_of

SHARED = Path(__file__).resolve().parents[3] / "../shared/data/llmfao"

real = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared llmfao data are not here")

ALL = {"test_fraction": 0.0, "validation_fraction": 0.0, "cold_fraction": 0.0, "unseen_fraction": 0.0}


def write(
    directory: Path, answers: dict[tuple[int, int], str], judgements: list[tuple[int, int, int, str, str]]
) -> Path:
    directory.mkdir(exist_ok=True)
    prompts = sorted({prompt for prompt, _ in answers})
    (directory / "prompts.jsonl").write_text(
        "".join(json.dumps({"id": p, "text": f"Prompt {p}"}) + "\n" for p in prompts)
    )
    (directory / "results.jsonl").write_text(
        "".join(json.dumps({"prompt": p, "model": m, "result": text}) + "\n" for (p, m), text in answers.items())
    )
    lines = [",".join(map(str, row)) for row in judgements]
    (directory / "crowd-comparisons.csv").write_text("\n".join(["prompt,model_x,model_y,worker,winner", *lines]) + "\n")
    return directory


def load(path: Path, **options: Any) -> PreferenceData:
    return LlmfaoSource(LlmfaoOptions(path=path, **options)).load(seed=0)


ANSWERS = {(1, 1): "a", (1, 2): "b", (1, 3): " ", (1, 4): " b\n", (2, 1): "a", (2, 2): "c"}
JUDGED = [
    (1, 1, 2, "w", "left"),
    (1, 2, 1, "v", "left"),
    (1, 1, 2, "w", "tie"),
    (1, 1, 3, "w", "left"),
    (1, 2, 4, "w", "right"),
    (2, 1, 2, "w", "right"),
]


def test_the_winner_is_chosen_and_the_rest_is_counted(tmp_path: Path) -> None:
    data = load(write(tmp_path / "d", ANSWERS, JUDGED), **ALL)
    part, responses = data.splits["train"], data.responses
    found = [
        (data.users.ids[u], responses.prompts[c], responses.texts[c], responses.texts[r])
        for u, c, r in zip(part.user.tolist(), part.chosen.tolist(), part.rejected.tolist(), strict=True)
    ]
    assert found == [("w", "Prompt 1", "a", "b"), ("v", "Prompt 1", "b", "a"), ("w", "Prompt 2", "c", "a")]
    counts = data.provenance["counts"]
    expected = {"judgements": 6, "decisive": 5, "ties": 1, "workers": 2, "prompts": 2, "models": 4, "answers": 6}
    assert {name: counts[name] for name in expected} == expected
    assert (counts["empty_answers"], counts["repeated_answers"], counts["kept"]) == (1, 1, 3)
    notes = " ".join(notes_of(data))
    assert "1 comparisons were left out: with an empty answer." in notes
    assert "1 comparisons were left out: between answers of the same words." in notes


def test_faults(tmp_path: Path) -> None:
    wrong = [*JUDGED, (3, 1, 2, "w", "left"), (1, 1, 2, "w", "lfet"), (2, 1, 4, "w", "left")]
    with pytest.raises(DataError) as caught:
        load(write(tmp_path / "d", ANSWERS, wrong))
    where = f"{tmp_path / 'd' / 'crowd-comparisons.csv'}: "
    assert [fault.removeprefix(where) for fault in caught.value.faults] == [
        "line 8: prompt: '3' is not in prompts.jsonl",
        "line 8: model '1' has no answer to prompt '3' in results.jsonl",
        "line 8: model '2' has no answer to prompt '3' in results.jsonl",
        "line 9: winner: 'lfet' (did you mean 'left'?); expected left, right or tie",
        "line 10: model '4' has no answer to prompt '2' in results.jsonl",
    ]
    (tmp_path / "d" / "prompts.jsonl").unlink()
    (tmp_path / "d" / "results.jsonl").write_text('{"model": 1, "prompt": 1, "text": "a"}\n')
    with pytest.raises(DataError) as caught:
        load(tmp_path / "d")
    assert [fault.rpartition("jsonl: ")[2] for fault in caught.value.faults] == [
        "no such file",
        "no column 'result'; is this a file of llmfao?",
    ]
    with pytest.raises(DataError, match="no such directory"):
        load(tmp_path / "none")


def test_one_sided_workers_are_found_by_their_choices() -> None:
    # 20 of 20 left, 18 of 21 left, 1 of 12 left: beyond chance; 4 of 4: too few; 60 of 100: no strong lean; 0 of 0.
    left, count = [20, 18, 1, 4, 60, 0], [20, 21, 12, 4, 100, 0]
    user = np.repeat(np.arange(6), count)
    picked = np.concatenate([np.arange(n) < k for k, n in zip(left, count, strict=True)])
    assert one_sided_users(user, picked, 6).tolist() == [True, True, True, False, False, False]
    assert one_sided_users(user[:0], picked[:0], 2).tolist() == [False, False]


def test_a_fair_crowd_has_no_one_sided_worker() -> None:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(300), 40)
    assert not one_sided_users(user, rng.random(len(user)) < 0.5, 300).any()


@real
def test_real_counts() -> None:
    data = load(SHARED)
    counts = data.provenance["counts"]
    expected = {
        "judgements": 8931, "decisive": 5460, "workers": 124, "prompts": 13, "models": 59, "empty_answers": 52,
        "repeated_answers": 60, "duplicate_answers": 92,
        "one_sided_workers": 5,
    }  # fmt: skip
    assert {name: counts[name] for name in expected} == expected
    assert "121, 20, 32, 37, 79" in data.provenance["notes"][0]
    assert not {"121", "20", "32", "37", "79"} & set(data.users.ids)
    assert "20" in load(SHARED, drop_one_sided=False).users.ids
    findings = check(data)
    assert not [finding for finding in findings if finding.severity == "error"]
    flagged = {finding.what: (finding.where, finding.count) for finding in findings}
    assert flagged["users who nearly always pick the same side"] == ("workers 121, 20, 32, 37, 79", 5)
    assert flagged["empty answers"][1] == 52
    assert flagged["answers that repeat an earlier one to the letter"][1] == 92
    assert set(data.present()) == {"train", "validation", "test", "cold", "support", "heldout"}
    cold = {data.responses.prompts[row] for row in data.splits["cold"].chosen.tolist()}
    assert len(cold) == 2
    assert all(text.strip() for text in data.responses.texts)
