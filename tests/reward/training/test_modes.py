"""What else can be trained: gates that are bound, gates of each layer, users along with the model, heads alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from copl.errors import DataError, OptionsError, RunError
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions
from copl.records import PreferenceData
from copl.reward.backbones.loaded import LoadedBackbone
from copl.reward.model import PersonalRewardModel
from copl.reward.options import RewardOptions
from copl.reward.scoring import score_responses
from copl.reward.store import read_reward_card
from copl.reward.training.user_vectors import UserVectors, load_trained_users

Planted = tuple[PreferenceData, UserVectors]
Train = Callable[..., PersonalRewardModel]
QUICK = RewardOptions(
    max_steps=6,
    batch_size=8,
    eval_every=3,
    max_length=32,
    learning_rate=3e-3,
    head_learning_rate=3e-2,
    patience=99,
    trainable_layers=0,
    warm_start=False,
)
FROZEN = attrs.evolve(QUICK, mode="frozen", max_steps=150, batch_size=64, eval_every=50, epochs=1000.0)


def test_the_oracle_routes_by_the_true_groups(train_tiny: Train, preferences: Planted, tmp_path: Path) -> None:
    data, users = preferences
    with pytest.raises(DataError, match="gate 'oracle' needs the true groups of seen users, but the data has none"):
        train_tiny(tmp_path, data, users, QUICK, gate="oracle")
    assert not list(tmp_path.iterdir())  # it is told before anything is computed
    grouped = attrs.evolve(users, groups=data.users.groups)
    model = train_tiny(tmp_path, data, grouped, QUICK, gate="oracle")
    weights = model.expert_weights(users.values)
    assert weights is not None
    assert [str(expert) for expert in weights.argmax(1).tolist()] == list(data.users.groups)
    assert read_reward_card(tmp_path).training["shared_routes"] == 2


def test_clusters_are_found_before_training_and_saved(train_tiny: Train, preferences: Planted, tmp_path: Path) -> None:
    data, users = preferences
    model = train_tiny(tmp_path, data, users, attrs.evolve(QUICK, max_steps=1), gate="cluster")
    weights = model.expert_weights(users.values)
    assert weights is not None
    centres = model.gate.points * model.user_scale + model.user_centre
    nearest = (users.values[:, None] - centres[None]).norm(dim=2).argmin(1)
    assert torch.equal(weights.argmax(1), nearest)


def test_a_bound_gate_of_another_run_is_refused(
    train_tiny: Train, load_tiny: Train, preferences: Planted, tmp_path: Path
) -> None:
    data, users = preferences
    train_tiny(tmp_path, data, users, attrs.evolve(QUICK, max_steps=0), gate="cluster")
    wider = UserVectors(users.ids, torch.cat([users.values, users.values], dim=1))
    train_tiny(tmp_path / "wider", data, wider, attrs.evolve(QUICK, max_steps=0), gate="cluster")
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "wider" / "model.safetensors").read_bytes())
    with pytest.raises(RunError, match="choose the gate and the head of the run"):
        load_tiny(tmp_path, gate="cluster")


def test_the_use_of_the_gate_is_logged_and_a_collapse_said_in_words(
    train_tiny: Train, preferences: Planted, tmp_path: Path, listener: Any
) -> None:
    data, users = preferences
    train_tiny(tmp_path / "a", data, users, QUICK, progress=listener)
    looks = [r for r in listener.records if r.get("step", 0) > 0]
    assert len(looks) == 2
    for look in looks:
        shares = [float(share) for share in look["gate_usage"].split()]
        assert len(shares) == 3
        assert sum(shares) == pytest.approx(1.0, abs=0.02)
        assert 0.0 <= look["gate_entropy"] <= 1.0
    gate = read_reward_card(tmp_path / "a").training["gate"]
    assert gate.keys() == {"usage", "entropy", "finding"}
    alike = UserVectors(users.ids, users.values * 0 + torch.tensor([1.0, 2.0]))
    train_tiny(tmp_path / "b", data, alike, attrs.evolve(QUICK, max_steps=0), progress=listener)
    assert any("does not tell users apart" in str(record.get("finding")) for record in listener.records)


@pytest.mark.parametrize("gate", ["top1", "cluster"])
def test_a_gate_for_each_layer_trains_saves_and_scores(
    gate: str, train_tiny: Train, preferences: Planted, tmp_path: Path
) -> None:
    data, users = preferences
    mixture = MixtureOptions(shared_rank=2, expert_rank=2, dropout=0.0, gates="per-layer", gate_power=2)
    options = attrs.evolve(QUICK, trainable_layers=2)
    model = train_tiny(tmp_path, data, users, options, mixture=mixture, gate=gate)
    assert model.mixture.num_gates == 4  # query and value projections of two layers
    full, mean = model.gate_weights(users.values), model.expert_weights(users.values)
    assert full is not None
    assert mean is not None
    assert full.shape == (16, 12)
    torch.testing.assert_close(full.unflatten(1, (4, 3)).mean(1), mean)
    rows, order = np.arange(12) % 7, np.random.default_rng(0).permutation(12)
    together = score_responses(model, data.responses, users.values[:12], rows)
    shuffled = score_responses(model, data.responses, users.values[:12][order], rows[order])
    assert np.allclose(shuffled, together[order], atol=1e-5)
    assert (
        read_reward_card(tmp_path).num_experts == 3
    )  # the mixture's, which is what a gate has to bring to open it again


def test_chosen_layers_alone_are_adapted(train_tiny: Train, preferences: Planted, tmp_path: Path) -> None:
    data, users = preferences

    def adapted(name: str, layers: tuple[int, ...], trainable: int) -> set[str]:
        mixture = MixtureOptions(shared_rank=2, expert_rank=2, layers=layers)
        train_tiny(
            tmp_path / name, data, users, attrs.evolve(QUICK, max_steps=1, trainable_layers=trainable), mixture=mixture
        )
        names = load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        return {tensor.split("layers.")[1][0] for tensor in names}

    assert adapted("first", (0,), 0) == {"0"}
    assert adapted("last", (2,), 2) == {"2"}
    with pytest.raises(OptionsError, match=r"layer 0, which reward\.trainable_layers=2 keeps frozen; set that to 3"):
        adapted("both", (0, 2), 2)


@pytest.mark.parametrize(
    "options",
    [
        attrs.evolve(QUICK, max_steps=40, eval_every=40, head_learning_rate=0.1),
        attrs.evolve(FROZEN, head_learning_rate=0.01),
    ],
    ids=["adapt", "frozen"],
)
def test_users_can_be_trained_along(
    options: RewardOptions,
    train_tiny: Train,
    preferences: Planted,
    tmp_path: Path,
    test_accuracy: Callable[..., float],
) -> None:
    data, told = preferences
    values = torch.randn(16, 4, generator=torch.Generator().manual_seed(3))  # nothing is known of users at first
    fixed = train_tiny(tmp_path / "fixed", data, UserVectors(told.ids, values), options)
    assert load_trained_users(tmp_path / "fixed") is None
    ids = (*told.ids, "idle")  # a user without comparisons stays as it is
    extended = torch.cat([values, torch.ones(1, 4)])
    free = train_tiny(tmp_path / "free", data, UserVectors(ids, extended, trainable=True), options)
    trained = load_trained_users(tmp_path / "free")
    assert trained is not None
    assert trained.ids == ids
    torch.testing.assert_close(trained.values[-1], torch.ones(4))
    assert (trained.values[:16] - values).abs().max() > 0.05
    gained = test_accuracy(free, data, trained.values) - test_accuracy(fixed, data, values)
    assert gained > 0.05
    groups = np.array(data.users.groups)
    inside = torch.nn.functional.normalize(trained.values[:16] - trained.values[:16].mean(0))
    alike = (inside @ inside.T).numpy()
    same = groups[:, None] == groups[None]
    assert alike[same].mean() > alike[~same].mean() + 0.2  # what was learnt is who wants what


@pytest.mark.parametrize("head", ["bilinear", "mlp"])
def test_frozen_mode_trains_the_head_alone_on_features_read_once(
    head: Any,
    make_backbone: Callable[[str], LoadedBackbone],
    train_tiny: Train,
    preferences: Planted,
    tmp_path: Path,
    test_accuracy: Callable[..., float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, users = preferences
    read: list[int] = []
    original = type(make_backbone("llama").model).forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(len(kwargs["input_ids"]))
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(make_backbone("llama").model), "forward", forward)
        model = train_tiny(tmp_path, data, users, attrs.evolve(FROZEN, head=head))
    passes = [count for count in read if count > 2]  # a backbone is tried out on two short texts when it is opened
    assert sum(passes) == read_reward_card(tmp_path).training["num_texts"]
    assert model.expert_weights(users.values) is None
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(not tensor.any() for name, tensor in adapter.items() if "lora_B" in name)
    assert test_accuracy(model, data, users.values) > 0.75


def test_frozen_mode_equals_training_the_head_on_the_plain_path(
    train_tiny: Train,
    preferences: Planted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    last_look_is_best: None,
) -> None:
    """The plain path: no experts, adapters that are not trained, texts read in every step."""
    from copl.reward.training import setup as training

    data, users = preferences
    order = [np.arange(16) + 16 * n for n in range(4)]
    monkeypatch.setattr(training, "routed_epoch", lambda *args, **kwargs: list(order))
    monkeypatch.setattr(training, "shared_epoch", lambda *args, **kwargs: list(order))
    options = attrs.evolve(QUICK, max_steps=4)
    attach = MixtureOfLora.attach

    def untrained(*args: Any, **kwargs: Any) -> MixtureOfLora:
        mixture = attach(*args, **kwargs)
        mixture.peft_model.requires_grad_(False)
        return mixture

    with monkeypatch.context() as patch:
        patch.setattr(MixtureOfLora, "attach", untrained)
        train_tiny(tmp_path / "plain", data, users, options, gate="none")
    train_tiny(tmp_path / "frozen", data, users, attrs.evolve(options, mode="frozen"))
    plain, frozen = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "frozen"))
    assert plain["head.interaction"].abs().max() > 1e-3
    for name, tensor in plain.items():
        torch.testing.assert_close(frozen[name], tensor, atol=2e-4, rtol=0)


def test_accumulated_batches_equal_one_large_batch(
    train_tiny: Train,
    preferences: Planted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    last_look_is_best: None,
) -> None:
    from copl.reward.training import setup as training

    data, users = preferences
    options = attrs.evolve(QUICK, max_steps=3, pack_pairs="off")
    for name, size in (("whole", 8), ("parts", 4)):
        parts = [np.arange(size) + start for start in range(0, 24, size)]
        for epoch in ("routed_epoch", "shared_epoch"):
            monkeypatch.setattr(training, epoch, lambda *args, _parts=parts, **kwargs: list(_parts))
        accumulation = 8 // size
        train_tiny(
            tmp_path / name, data, users, attrs.evolve(options, gradient_accumulation=accumulation), gate="uniform"
        )
    files = ("model.safetensors", "adapter/adapter_model.safetensors")
    for file in files:
        whole, parts_ = (load_file(tmp_path / name / file) for name in ("whole", "parts"))
        for name, tensor in whole.items():
            torch.testing.assert_close(parts_[name], tensor, atol=2e-4, rtol=0)


def test_no_trainable_users_where_there_are_no_users(train_tiny: Train, preferences: Planted, tmp_path: Path) -> None:
    data, _ = preferences
    train_tiny(tmp_path, data, None, attrs.evolve(FROZEN, max_steps=5), gate="none")
    assert load_trained_users(tmp_path) is None
    assert read_reward_card(tmp_path).embedding_dim == 0
