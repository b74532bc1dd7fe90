"""`Model.online` and `Model.next_question` on trained runs, and newcomers who judged texts that nobody annotated."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from copl import Model
from copl.data.dataset import load_dataset
from copl.errors import CoplError, DataError, RunError
from copl.interfaces import Progress
from copl.plugins import load
from copl.records import PreferenceData
from copl.runs.pipeline import train
from copl.runs.recipe import resolve
from copl.system.progress import RunLog, SilentProgress

FEW_STEPS = {"max_steps": 2, "batch_size": 4, "eval_every": 1, "max_length": 64}


@contextmanager
def silent(log: Path | None) -> Iterator[Progress]:
    yield SilentProgress(RunLog(log))


def trained(data: Path, out: Path, draft: dict[str, dict[str, Any]]) -> Model:
    train(
        resolve({"encoder": {"name": "mf", "num_steps": 30}, **draft}, load()),
        data,
        out,
        open_progress=silent,
        cache=None,
    )
    return Model.open(out)


@pytest.fixture(scope="module")
def graph(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(small_data, tmp_path_factory.mktemp("online") / "graph", {"method": {"name": "graph"}})


@pytest.fixture(scope="module")
def personal(small_data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    draft = {"method": {"name": "copl"}, "backbone": {"name": str(tiny_model)}, "reward": FEW_STEPS}
    return trained(small_data, tmp_path_factory.mktemp("online") / "copl", draft)


@pytest.fixture(scope="module")
def data(small_data: Path) -> PreferenceData:
    return load_dataset(small_data)


def rows_of(data: PreferenceData, split: str, count: int, user: str) -> list[dict[str, str]]:
    """Return the first comparisons of a split, as if one user had made them."""
    part, table = data.split(split).comparisons, data.responses
    return [
        {
            "user_id": user,
            "prompt": table.prompts[chosen],
            "chosen": table.texts[chosen],
            "rejected": table.texts[rejected],
        }
        for chosen, rejected in zip(part.chosen[:count], part.rejected[:count], strict=True)
    ]


def test_adding_one_by_one_is_adapting_to_all(graph: Model, data: PreferenceData) -> None:
    rows = rows_of(data, "train", 4, "new")
    user = graph.online("new")
    assert user.adapted.how == ("population",)
    for row in rows:
        found = user.add(row["prompt"], chosen=row["chosen"], rejected=row["rejected"])
    expected = graph.adapt(rows)
    torch.testing.assert_close(found.embeddings, expected.embeddings, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(graph.online("new", rows).adapted.embeddings, found.embeddings, rtol=1e-5, atol=1e-6)
    prompt, texts = rows[0]["prompt"], [rows[0]["chosen"], rows[0]["rejected"]]
    scores = graph.score("new", prompt, texts, adapted=user.adapted)
    np.testing.assert_allclose(scores, graph.score("new", prompt, texts, adapted=expected), atol=1e-4)


def test_the_question_is_the_candidate_that_tells_most(graph: Model, data: PreferenceData) -> None:
    candidates = [(row["prompt"], row["chosen"], row["rejected"]) for row in rows_of(data, "train", 20, "new")]
    candidates.insert(0, ("A prompt nobody has seen.", "Yes.", "No."))
    question = graph.next_question("new", candidates)
    assert (question.prompt, question.first, question.second) == candidates[question.index]
    assert question.index > 0
    assert 0 < question.information <= 1
    single = [graph.next_question("new", [pair]).information for pair in candidates]
    assert single[0] == 0.0
    assert question.information == pytest.approx(max(single))


def test_a_pair_that_is_there_twice_is_one_question(graph: Model, data: PreferenceData) -> None:
    (prompt, first, second), other = (
        (row["prompt"], row["chosen"], row["rejected"]) for row in rows_of(data, "train", 2, "new")
    )
    again = [(f" {prompt}", second, first), ([{"role": "user", "content": prompt}], first, f"{second}\r\n")]
    candidates = [(prompt, first, second), *again, other]
    assert sorted(question.index for question in graph.online("new").questions(candidates)) == [0, 3]


def test_answers_change_what_is_asked_next(graph: Model, data: PreferenceData) -> None:
    row = rows_of(data, "train", 1, "new")[0]
    candidate = (row["prompt"], row["chosen"], row["rejected"])
    before = graph.next_question("new", [candidate]).information
    after = graph.next_question("new", [candidate], [row] * 8).information
    assert after < before


def test_a_seen_user_starts_with_training(graph: Model, data: PreferenceData) -> None:
    seen = data.users.ids[int(data.split("train").comparisons.user[0])]
    row = rows_of(data, "train", 1, seen)[0]
    user = graph.online(seen)
    assert user.adapted.how == ("trained",)
    assert user.add(row["prompt"], chosen=row["chosen"], rejected=row["rejected"]).how == ("empirical",)


def test_mistakes_are_told(graph: Model, data: PreferenceData) -> None:
    with pytest.raises(DataError, match="no candidates"):
        graph.next_question("new", [])
    user = graph.online("new")
    with pytest.raises(DataError, match="somebody"):
        user.add_rows(rows_of(data, "train", 1, "somebody"))
    with pytest.raises(DataError):
        user.add("How?", chosen="the same", rejected="the same")
    assert user.adapted.how == ("population",)


def test_texts_nobody_annotated_are_embedded_by_what_they_say(personal: Model, data: PreferenceData) -> None:
    rows = rows_of(data, "train", 3, "new")
    strange = [{**row, "prompt": row["prompt"] + " please", "chosen": row["chosen"] + " indeed"} for row in rows]
    found = personal.adapt([*strange, *[{**row, "user_id": "other"} for row in rows]])
    assert found.user_ids == ("new", "other")
    assert found.how == ("empirical", "empirical")
    assert found.confidence[0] > 0
    assert torch.isfinite(found.embeddings).all()
    one = personal.online("new", strange).adapted
    assert one.how == ("empirical",)
    torch.testing.assert_close(one.embeddings[0], found.embeddings[0], rtol=1e-4, atol=1e-5)
    assert (
        personal.next_question(
            "new", [(strange[0]["prompt"], strange[0]["chosen"], strange[0]["rejected"])]
        ).information
        > 0
    )


def test_without_a_backbone_such_newcomers_get_the_population(graph: Model) -> None:
    row = {"user_id": "new", "prompt": "A prompt nobody has seen.", "chosen": "Yes.", "rejected": "No."}
    assert graph.adapt([row]).how == ("population",)


def test_a_method_without_users_says_so(graph: Model, small_data: Path, tiny_model: Path, tmp_path: Path) -> None:
    draft = {"method": {"name": "btl"}, "backbone": {"name": str(tiny_model)}, "reward": FEW_STEPS}
    train(resolve(draft, load()), small_data, tmp_path / "btl", open_progress=silent, cache=None)
    with pytest.raises(CoplError, match="no notice of users"):
        Model.open(tmp_path / "btl").online("new")


def test_missing_features_are_an_error(personal: Model, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(personal.run.root, copy)
    shutil.rmtree(copy / "features")
    with pytest.raises(RunError, match="train again"):
        Model.open(copy)
