"""One reading of the texts by the frozen backbone serves all parts of a method, all methods and all seeds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from copl.data.dataset import load_dataset
from copl.plugins import load
from copl.records import Comparisons, ComparisonSet, PreferenceData, ResponseTable, ScoreRequests, UserTable
from copl.reward.backbones.catalogue import HuggingFace
from copl.reward.reading.reader import TextReader
from copl.reward.scoring import score_responses
from copl.reward.training.loop import TrainingLoop
from copl.runs.recipe import resolve
from copl.runs.workspace import RunWorkspace
from copl.system.progress import SilentProgress

REWARD = {"max_steps": 2, "batch_size": 4, "eval_every": 2, "max_length": 48}
PARTS = {"encoder": {"name": "mf", "num_steps": 5, "embedding_dim": 4}, "mixture": {"shared_rank": 1, "expert_rank": 1}}


class Listener:
    """Counts how often texts are read."""

    def __init__(self) -> None:
        self.readings = 0

    def task(self, name: str, total: int | None = None) -> Any:
        self.readings += name == "reading responses"
        return SilentProgress().task(name, total)

    def log(self, stage: str, **values: Any) -> None:
        pass


@pytest.fixture
def data(small_data: Path) -> PreferenceData:
    return load_dataset(small_data)


def readings(data: PreferenceData, model: Path, out: Path, cache: Path, draft: dict[str, Any], seed: int = 0) -> int:
    out.mkdir()
    listener = Listener()
    recipe = resolve({"backbone": {"name": str(model)}, **PARTS, **draft}, load(), seed=seed)
    recipe.build().fit(data, seed=seed, workspace=RunWorkspace(out, listener, cache))
    return listener.readings


def test_methods_and_seeds_share_one_reading(data: PreferenceData, tiny_model: Path, tmp_path: Path) -> None:
    runs = [
        # hidden states below the adapted layer are kept in the one pass that makes the features, also for newcomers
        ({"method": {"name": "copl"}, "reward": {**REWARD, "trainable_layers": 1}}, 0, 1),
        ({"method": {"name": "btl"}, "reward": {**REWARD, "trainable_layers": 0}}, 0, 0),
        ({"method": {"name": "btl"}, "reward": {**REWARD, "mode": "frozen"}}, 0, 0),
        ({"method": {"name": "copl"}, "reward": {**REWARD, "max_steps": 0, "trainable_layers": 1}}, 1, 0),
        ({"method": {"name": "btl"}, "reward": {**REWARD, "trainable_layers": 1}}, 1, 0),
    ]
    for number, (draft, seed, expected) in enumerate(runs):
        found = readings(data, tiny_model, tmp_path / str(number), tmp_path / "cache", draft, seed)
        assert found == expected, draft


@pytest.mark.parametrize("method", ["copl", "btl"])
def test_one_fit_opens_the_backbone_once_and_fingerprints_it_once(
    method: str, data: PreferenceData, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = {"load": 0, "fingerprint": 0}
    for name in counted:
        original = getattr(HuggingFace, name)

        def counting(self: HuggingFace, name: str = name, original: Any = original) -> Any:
            counted[name] += 1
            return original(self)

        monkeypatch.setattr(HuggingFace, name, counting)
    reward = {**REWARD, "trainable_layers": 1}
    encoder = {"name": "lightgcn", "num_epochs": 2, "embedding_dim": 4, "response_features": True}
    parts = {**PARTS, "encoder": encoder} if method == "copl" else {}
    draft = {"method": {"name": method}, "backbone": {"name": str(tiny_model)}, "reward": reward, **parts}
    recipe = resolve(draft, load())
    recipe.build().fit(data, seed=0, workspace=RunWorkspace(tmp_path, SilentProgress()))
    assert counted == {"load": 1, "fingerprint": 1}


def test_features_for_the_encoder_are_those_for_the_reward_model(
    data: PreferenceData, tiny_model: Path, tmp_path: Path
) -> None:
    encoder = {"name": "lightgcn", "num_epochs": 2, "embedding_dim": 4, "response_features": True}
    draft = {"encoder": encoder, "reward": {**REWARD, "trainable_layers": 0}}
    assert readings(data, tiny_model, tmp_path / "run", tmp_path / "cache", draft) == 1


def test_nothing_is_read_again_after_a_kill(
    data: PreferenceData, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = {**REWARD, "trainable_layers": 1}
    draft = {"method": {"name": "btl"}, "backbone": {"name": str(tiny_model)}, "reward": reward}
    recipe, listener = resolve(draft, load()), Listener()
    method = recipe.build()
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "run", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            method.fit(data, seed=0, workspace=RunWorkspace(tmp_path, listener))
    assert listener.readings == 1
    method.fit(data, seed=0, workspace=RunWorkspace(tmp_path, listener))
    assert listener.readings == 1


@pytest.mark.parametrize("reward", [{"mode": "frozen"}, {"max_steps": 0}])
@pytest.mark.parametrize("method", ["copl", "btl"])
def test_a_model_without_trained_adapters_scores_known_texts_by_their_features(
    method: str, reward: dict[str, Any], data: PreferenceData, tiny_model: Path, tmp_path: Path
) -> None:
    draft = {"method": {"name": method}, "backbone": {"name": str(tiny_model)}, "reward": {**REWARD, **reward}}
    recipe = resolve({**PARTS, **draft} if method == "copl" else draft, load())
    fitted, loaded = recipe.build(), recipe.build()
    fitted.fit(data, seed=0, workspace=RunWorkspace(tmp_path, SilentProgress()))
    loaded.load(tmp_path)
    users, responses = np.arange(30) % len(data.users), np.arange(30) % len(data.responses)
    new = ResponseTable([*data.responses.prompts, "a"], [*data.responses.texts, data.responses.texts[0]])
    responses[7] = len(data.responses)  # a response nobody has read
    requests = ScoreRequests(data.users, new, users, responses)
    found = []
    for built in (fitted, loaded):
        text = built.fitted[1] if method == "copl" else built._fitted
        vectors = torch.randn(len(data.users), text.model.embedding_dim, generator=torch.Generator().manual_seed(0))
        found.append(text.scores(requests, vectors if method == "copl" else None))
        plain = score_responses(text.model, new, vectors[users] if method == "copl" else None, responses)
        np.testing.assert_allclose(found[-1], plain, atol=1e-4)
    np.testing.assert_array_equal(*found)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the backbone was run")

    text.model.backbone.model.forward = fail
    known = responses != responses[7]
    text.scores(ScoreRequests(data.users, new, users[known], responses[known]), vectors if method == "copl" else None)


def test_new_texts_are_read_by_the_model_at_hand_without_its_adapters(
    data: PreferenceData, tiny_model: Path, tmp_path: Path
) -> None:
    reward = {**REWARD, "trainable_layers": 0}
    model = shutil.copytree(tiny_model, tmp_path / "model")
    run = tmp_path / "run"
    run.mkdir()
    recipe = resolve({"backbone": {"name": str(model)}, "gate": {"name": "none"}, **PARTS, "reward": reward}, load())
    recipe.build().fit(data, seed=0, workspace=RunWorkspace(run, SilentProgress()))
    method = recipe.build()
    method.load(run)
    _, text = method.fitted
    with torch.no_grad():
        for name, parameter in text.model.transformer.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    table = ResponseTable(data.responses.prompts[:2], [f"{text} and more" for text in data.responses.texts[:2]])

    found = text.model.reader.features(table, np.arange(2))
    plain = TextReader.of(recipe.stages).features(table, np.arange(2))
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=1e-5)
    shutil.rmtree(model)  # so nothing can be loaded from there
    support = ComparisonSet(UserTable.ungrouped(["new"]), table, Comparisons([0], [0], [1]))
    assert method.adapt(support).how == ("empirical",)
