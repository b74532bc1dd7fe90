"""The head fitted again on what adapters made of the texts, and the choice between that and the frozen model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from copl.records import Comparisons, PreferenceData, TokenBatch
from copl.reward.backbones.loaded import collate
from copl.reward.options import RewardOptions
from copl.reward.readings import ExpertSettings, Readings
from copl.reward.scoring import score_responses
from copl.reward.store import read_reward_card
from copl.reward.training.divisions import drawn
from copl.reward.training.reward_training import RewardTraining, _held_fixed
from copl.reward.training.setup import TrainingSetup
from copl.reward.training.user_vectors import UserVectors
from copl.system.progress import SilentProgress

Planted = tuple[PreferenceData, UserVectors]
OPTIONS = RewardOptions(
    max_steps=30, batch_size=16, eval_every=10, max_length=32, learning_rate=3e-3, patience=99, trainable_layers=0
)


@pytest.fixture
def adapted(put_together: Callable[..., TrainingSetup]) -> Callable[..., TrainingSetup]:
    """Makes a model whose adapters are not zero."""

    def make(gate: str, options: RewardOptions = OPTIONS) -> TrainingSetup:
        setup = put_together(options, gate, **({} if gate == "none" else {"num_experts": 2}))
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in setup.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
        return setup

    return make


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("gate", ["uniform", "softmax", "none"])
def test_readings_are_the_features_of_each_request(
    gate: str, layers: int, adapted: Callable[..., TrainingSetup]
) -> None:
    setup = adapted(gate, attrs.evolve(OPTIONS, trainable_layers=layers))
    model, responses, users = setup.model, setup.texts.responses, setup.material.users
    rng = np.random.default_rng(0)
    rows, user = rng.integers(len(responses), size=30), rng.integers(16, size=30)
    readings, settings = Readings(model), ExpertSettings.of_users(model, users)
    found, reading = readings.of(responses, rows, settings, user)
    model.eval()
    for n in range(30):
        tokens = collate(model.reader.tokens(responses, rows[n : n + 1]), [0])
        weights = model.route(model.condition(users[user[n : n + 1]])).weights if model.gate.num_experts else None
        with torch.no_grad():
            alone = model.features(TokenBatch(tokens.input_ids, tokens.attention_mask), weights)[0]
        assert torch.allclose(found[reading[n]], alone, atol=1e-4)
    asked = len({(int(r), int(u)) for r, u in zip(rows, user, strict=True)})
    assert len(found) == (asked if gate == "softmax" else len(set(rows.tolist())))


def test_what_has_been_read_is_not_read_again(
    adapted: Callable[..., TrainingSetup], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setup = adapted("softmax")
    responses, settings = setup.texts.responses, ExpertSettings.of_users(setup.model, setup.users)
    rows, user = np.array([1, 2, 1, 3]), np.array([0, 0, 5, 5])
    readings = setup.readings()
    first, reading = readings.of(responses, rows, settings, user)
    codes = readings.encoded(setup.model.head.encode)
    codes.save(tmp_path / "codes")
    opened = Readings(setup.model, keep=setup.model.head.encode)
    opened.load(tmp_path / "codes")
    monkeypatch.setattr(type(setup.model), "features", None)  # nothing can be read
    again, order = readings.of(responses, rows[::-1], settings, user[::-1])
    assert torch.equal(again[order[::-1].copy()], first[reading])
    for known in (codes, opened):
        made, _ = known.of(responses, rows, settings, user)
        with torch.no_grad():
            assert torch.allclose(made, setup.model.head.encode(first), atol=1e-6)


def test_the_head_is_fitted_to_what_adapters_make_of_the_texts(
    adapted: Callable[..., TrainingSetup], tmp_path: Path
) -> None:
    setup = adapted("uniform", attrs.evolve(OPTIONS, trainable_layers=2))
    model, material, readings = setup.model, setup.material, setup.readings()
    training = RewardTraining(setup, seed=0, scratch=tmp_path, progress=SilentProgress())
    choice = training.refit_head(readings)

    def loss() -> float:
        return float(np.logaddexp(0.0, -setup.margins(material.validation, readings)).mean())

    fitted = loss()
    assert fitted < 0.6  # the loss of knowing nothing is 0.69
    personal = [p.detach().clone() for p in model.head.personal_parameters()]
    assert any(p.abs().max() > 0 for p in personal)
    with torch.no_grad():
        for p in model.head.personal_parameters():
            p.zero_()
    assert loss() > fitted + 0.05  # the groups want opposite things
    assert len(choice.train) == len(material.train)


def test_parameters_held_fixed_are_trained_again_later() -> None:
    layer = torch.nn.Linear(2, 1)
    with _held_fixed([layer.weight]):
        assert (layer.weight.requires_grad, layer.bias.requires_grad) == (False, True)
    assert layer.weight.requires_grad


def test_so_many_comparisons_are_drawn_in_their_order() -> None:
    pairs = Comparisons(np.zeros(50, dtype=np.int64), np.arange(50), np.arange(50) + 1)
    few = drawn(pairs, 20, 0).chosen
    assert len(few) == 20
    assert (np.diff(few) > 0).all()
    assert drawn(pairs, 50, 0) is pairs


def test_experts_train_under_the_shared_head_and_the_better_model_is_kept(
    train_tiny: Callable[..., Any], preferences: Planted, tmp_path: Path, listener: Any
) -> None:
    options = attrs.evolve(OPTIONS, learning_rate=1e-2, max_steps=60, eval_every=30)
    train_tiny(tmp_path, *preferences, options, gate="softmax", progress=listener)
    training = read_reward_card(tmp_path).training
    refit = training["refit"]
    looks = [record["step"] for record in listener.records if "validation_loss" in record]
    assert looks == [point["step"] for point in training["curve"]][1:]  # what follows is no part of the curve
    assert listener.records[-1]["refitted_loss"] == refit["refitted"]["validation_loss"]
    # Without its personal part the head knows nothing of groups that want opposite things.
    assert training["curve"][0]["validation_loss"] > 0.65
    assert refit["without_adapters"]["validation_loss"] < 0.6
    assert training["kept_step"] == refit["refitted"]["step"] > 0
    assert refit["refitted"]["validation_loss"] < refit["without_adapters"]["validation_loss"]


def test_the_frozen_model_comes_back_where_adapters_have_spoilt_the_texts(
    train_tiny: Callable[..., Any], preferences: Planted, tmp_path: Path, listener: Any, last_look_is_best: None
) -> None:
    data, users = preferences
    frozen = train_tiny(tmp_path / "frozen", data, users, attrs.evolve(OPTIONS, max_steps=0))
    spoiling = attrs.evolve(OPTIONS, learning_rate=30.0, head_learning_rate=3.0, max_steps=4, eval_every=4)
    model = train_tiny(tmp_path / "spoilt", data, users, spoiling, progress=listener)
    training = read_reward_card(tmp_path / "spoilt").training
    assert training["refit"]["refitted"]["validation_loss"] > training["refit"]["without_adapters"]["validation_loss"]
    assert training["kept_step"] == 0
    losses = [training["refit"][which]["validation_loss"] for which in ("without_adapters", "refitted")]
    said = "no adapters are kept: the loss on comparisons held out is {:.3f} without them and {:.3f} with them".format(
        *losses
    )
    assert [r["finding"].split(";")[0] for r in listener.records if "finding" in r] == [said]
    adapter = load_file(tmp_path / "spoilt" / "adapter" / "adapter_model.safetensors")
    assert not any(tensor.any() for name, tensor in adapter.items() if "lora_B" in name)
    rows = np.arange(10)
    scores = [score_responses(m, data.responses, users.values[:10], rows) for m in (model, frozen)]
    assert np.allclose(*scores, atol=1e-5)


@pytest.mark.parametrize("gate", ["cluster", "top1"])
@pytest.mark.parametrize("mode", ["adapt", "frozen"])
def test_a_routed_head_tells_users_apart_by_their_experts_alone(
    mode: str, gate: str, train_tiny: Callable[..., Any], preferences: Planted, tmp_path: Path
) -> None:
    data, users = preferences
    options = attrs.evolve(OPTIONS, head="routed", mode=mode, eval_every=30)
    model = train_tiny(tmp_path, data, users, options, gate=gate, seed=3)  # which texts are held out: 6 of 40
    pairs, rows = data.splits["test"], np.arange(len(data.splits["test"]))
    vectors = users.values[torch.from_numpy(pairs.user)]
    chosen, rejected = (
        score_responses(model, data.responses, vectors, side) for side in (pairs.chosen, pairs.rejected)
    )
    assert (chosen > rejected).mean() > 0.75  # the groups want opposite things
    weights = model.expert_weights(users.values)
    same = np.flatnonzero((weights == weights[0]).all(dim=1).numpy())
    if gate == "cluster":
        assert 1 < len(same) < 16
        scores = [score_responses(model, data.responses, users.values[n].expand(5, -1), rows[:5]) for n in same]
        assert np.allclose(scores, scores[0], atol=1e-5)


def test_without_experts_head_and_adapters_train_together(
    train_tiny: Callable[..., Any], preferences: Planted, tmp_path: Path
) -> None:
    train_tiny(tmp_path, *preferences, attrs.evolve(OPTIONS, max_steps=3), gate="none")
    training = read_reward_card(tmp_path).training
    assert training["refit"] is None
    assert training["curve"][0]["validation_loss"] < 0.6  # the whole head is there from the start
