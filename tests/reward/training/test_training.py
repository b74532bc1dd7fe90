from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from copl.errors import CoplError, DataError, RunError, TrainingError
from copl.records import Comparisons
from copl.reward.backbones.loaded import collate, encode_responses
from copl.reward.options import PAPER_PRESET, RewardOptions
from copl.reward.scoring import score_responses
from copl.reward.store import read_reward_card
from copl.reward.training.batches import PairCollator
from copl.reward.training.loop import learning_rate_factor
from copl.reward.training.objective import BradleyTerryObjective
from copl.reward.training.user_vectors import UserVectors
from copl.system.progress import SilentProgress
from tests.reward.padding import on_the_left
from tests.reward.training.bench import QUICK, WARM, Bench, Planted, accuracy, assert_equal_models, tensors


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_personal_model_knows_what_each_group_wants(
    kind: str, bench: Bench, preferences: Planted, tmp_path: Path
) -> None:
    personal = bench.train(tmp_path / "personal", preferences, WARM, kind=kind)
    shared = bench.train(tmp_path / "shared", preferences, WARM, kind=kind, gate="none", personal=False)
    assert accuracy(personal, preferences) > 0.75
    assert accuracy(shared, preferences) < 0.65  # the groups want opposite things
    card = read_reward_card(tmp_path / "personal")
    assert (card.embedding_dim, card.num_experts, card.training["steps"]) == (2, 3, 8)
    assert [point["step"] for point in card.training["curve"]] == [0, 4, 8]


def test_experts_alone_learn_the_groups(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    options = attrs.evolve(QUICK, head="linear", max_steps=60, eval_every=30, batch_size=16)
    model = bench.train(tmp_path, preferences, options)
    assert accuracy(model, preferences) > 0.75
    users = preferences[1].values
    assert model.expert_weights(users) is not None
    weights = model.expert_weights(users)
    assert weights is not None
    assert weights.shape == (16, 3)
    assert ((weights > 0).sum(1) == 1).all()


def test_without_steps_the_model_is_the_warm_start(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    model = bench.train(tmp_path, preferences, attrs.evolve(WARM, max_steps=0))
    data, users = preferences
    backbone = bench.make_backbone("bert")
    rows = np.arange(10)
    tokens = collate(encode_responses(backbone, data.responses, rows, 32), rows)
    with torch.no_grad():
        hidden = backbone.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        mask = tokens.attention_mask.unsqueeze(-1)
        features = ((hidden * mask).sum(1) / mask.sum(1) - model.feature_centre) / model.feature_scale
        conditioned = model.condition(users.values[:10])
        expected = model.head(features, conditioned) + model.level(conditioned)
        assert torch.allclose(model(tokens, users.values[:10]), expected, atol=1e-5)
    assert accuracy(model, preferences) > 0.75


@pytest.mark.parametrize("gate", ["none", "top1"])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_cached_training_equals_plain_training_of_the_same_layers(
    gate: str,
    kind: str,
    bench: Bench,
    preferences: Planted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    last_look_is_best: None,
) -> None:
    options = attrs.evolve(QUICK, trainable_layers=1)
    data, users = preferences
    cached = bench.train(tmp_path / "cached", preferences, options, kind=kind, gate=gate)
    monkeypatch.setattr(PairCollator, "__init__", _without_cache(PairCollator.__init__))
    bench.train(tmp_path / "plain", preferences, options, kind=kind, gate=gate)
    assert_equal_models(tmp_path / "cached", tmp_path / "plain", 2e-4)
    adapter = load_file(tmp_path / "cached" / "adapter" / "adapter_model.safetensors")
    assert all(".2." in name and tensor.abs().max() > 0 for name, tensor in adapter.items())
    some = np.array([3, 3, 3, 8, 1, 1])
    scores = score_responses(cached, data.responses, users.values[:6], some)
    plain = bench.load(tmp_path / "cached", gate=gate, kind=kind, options=QUICK)  # which reads all layers at once
    assert plain.reader.trunk is None
    assert np.allclose(scores, score_responses(plain, data.responses, users.values[:6], some), atol=1e-4)


def _without_cache(original: Any) -> Any:
    def init(self: PairCollator, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "kept": None})

    return init


def test_the_learning_rate_rises_and_falls_as_a_cosine() -> None:
    factors = [learning_rate_factor(step, 10, 2) for step in range(10)]
    assert factors[:3] == [0.0, 0.5, 1.0]
    assert factors[6] == pytest.approx(0.5)
    assert factors[9] == pytest.approx(0.5 * (1 + np.cos(np.pi * 7 / 8)))
    assert learning_rate_factor(0, 1, 0) == 1.0


def test_the_same_seed_gives_the_same_model(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        bench.train(tmp_path / name, preferences, seed=seed)
    assert_equal_models(tmp_path / "a", tmp_path / "b")
    assert not torch.equal(tensors(tmp_path / "a")["head.weight"], tensors(tmp_path / "c")["head.weight"])
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_the_best_look_is_kept_and_patience_ends_the_run(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    # with such a rate every step makes things worse than the warm start
    options = attrs.evolve(WARM, learning_rate=3.0, head_learning_rate=3.0, max_steps=40, patience=2, eval_every=2)
    model = bench.train(tmp_path, preferences, options)
    training = read_reward_card(tmp_path).training
    assert training["kept_step"] == 0
    assert training["steps"] == 4
    start = bench.train(tmp_path / "start", preferences, attrs.evolve(WARM, max_steps=0))
    data, users = preferences
    rows = np.arange(10)
    pair = (score_responses(m, data.responses, users.values[:10], rows) for m in (model, start))
    assert np.allclose(*pair, atol=1e-6)


def test_scores_are_the_same_alone_in_any_batch_and_order(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    data, users = preferences
    for gate in ("top1", "none"):
        model = bench.train(tmp_path / gate, preferences, gate=gate)
        rng = np.random.default_rng(0)
        rows, user = rng.integers(40, size=60), torch.from_numpy(rng.integers(16, size=60))
        together = score_responses(model, data.responses, users.values[user], rows)
        order = rng.permutation(60)
        shuffled = score_responses(model, data.responses, users.values[user[order]], rows[order])
        assert np.allclose(shuffled, together[order], atol=1e-5)
        for n in range(0, 60, 7):
            alone = score_responses(model, data.responses, users.values[user[n : n + 1]], rows[n : n + 1])
            assert alone == pytest.approx(together[n : n + 1], abs=1e-5)
        if gate == "none":
            encoded = encode_responses(model.backbone, data.responses, rows, 32)
            with torch.no_grad():
                forward = model(collate(encoded, np.arange(60)), users.values[user])
            assert np.allclose(forward.numpy(), together, atol=1e-5)
        average = score_responses(model, data.responses, None, rows[:3])
        centre = model.user_centre.expand(3, -1)
        assert np.allclose(average, score_responses(model, data.responses, centre, rows[:3]))


def test_no_requests_no_scores(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    model = bench.train(tmp_path, preferences, attrs.evolve(QUICK, max_steps=0))
    assert score_responses(model, preferences[0].responses, None, np.zeros(0, dtype=np.int64)).shape == (0,)
    with pytest.raises(ValueError, match="must have the shape"):
        score_responses(model, preferences[0].responses, torch.zeros(1, 5), np.zeros(1, dtype=np.int64))


def test_texts_shared_by_users_are_read_once(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    data, users = preferences
    model = bench.train(tmp_path, preferences, gate="none")
    read: list[int] = []
    model.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(len(kwargs["input_ids"].unique(dim=0))), with_kwargs=True
    )
    score_responses(model, data.responses, users.values[torch.arange(16).repeat(5)], np.repeat(np.arange(5), 16))
    assert sum(read) == 5


def test_the_loss_by_hand(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    data, users = preferences
    model = bench.train(tmp_path, preferences)
    pairs = Comparisons([0, 1, 0], [3, 4, 3], [5, 6, 7], np.array([1.0, 3.0, 0.0]), np.full(3, -1, dtype=np.int8))
    encoded = encode_responses(model.backbone, data.responses, np.arange(40), 32)
    collator = PairCollator(encoded, pairs, users.values, routes=None, kept=None)
    with torch.no_grad():
        outputs = BradleyTerryObjective(model).eval()(**collator(np.array([0, 1, 2])))
    scores = [
        score_responses(model, data.responses, users.values[[0, 1, 0]], rows) for rows in (pairs.chosen, pairs.rejected)
    ]
    margins = scores[0] - scores[1]
    assert outputs["margins"].numpy() == pytest.approx(margins, abs=1e-5)
    expected = (np.log1p(np.exp(-margins)) * [1, 3, 0]).sum() / 4
    assert float(outputs["loss"]) == pytest.approx(expected, abs=1e-5)


def test_a_loss_that_is_not_finite_saves_nothing(
    bench: Bench, preferences: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.train(tmp_path, preferences)
    before = {name: tensor.clone() for name, tensor in tensors(tmp_path).items()}
    forward = BradleyTerryObjective.forward
    monkeypatch.setattr(
        BradleyTerryObjective,
        "forward",
        lambda self, **batch: {k: v * float("nan") for k, v in forward(self, **batch).items()},
    )
    with pytest.raises(TrainingError, match=r"the loss is nan at step 0; lower reward\.learning_rate"):
        bench.train(tmp_path, preferences)
    after = tensors(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_mistakes_are_told(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    data, users = preferences
    empty = attrs.evolve(data, splits={"validation": data.splits["validation"]})
    with pytest.raises(DataError, match="no comparisons in the split 'train'"):
        bench.train(tmp_path, (empty, users))
    fewer = UserVectors(users.ids[1:], users.values[1:])
    with pytest.raises(DataError, match="1 users of the split 'train' have no embedding, such as 'user 0'"):
        bench.train(tmp_path, (data, fewer))
    broken = UserVectors(users.ids, users.values * float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        bench.train(tmp_path, (data, broken))
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_models_are_refused(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    bench.train(tmp_path, preferences, attrs.evolve(QUICK, max_steps=0))
    with pytest.raises(RunError, match="3 experts, this gate has 0"):
        bench.load(tmp_path, gate="none")
    other = bench.load(tmp_path, kind="llama")
    with pytest.raises(RunError, match="class 'BertModel', this backbone has 'LlamaModel'"):
        score_responses(other, preferences[0].responses, None, np.zeros(1, dtype=np.int64))
    with pytest.raises(RunError, match="missing"):
        bench.load(tmp_path / "nothing")
    card, weights = tmp_path / "reward.json", tmp_path / "model.safetensors"
    whole = card.read_text()
    for text, message in (
        (whole[:40], "damaged: not JSON"),
        ("[1]", "format_version is nothing"),
        (json.dumps({**json.loads(whole), "format_version": 99}), "format_version is 99"),
        (json.dumps({"format_version": 1}), "options"),
    ):
        card.write_text(text)
        with pytest.raises(RunError, match=message):
            bench.load(tmp_path)
    card.write_text(whole)
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match="damaged"):
        bench.load(tmp_path)
    weights.unlink()
    with pytest.raises(CoplError, match="missing"):
        bench.load(tmp_path)


def test_a_validation_split_is_not_required(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    data, users = preferences
    model = bench.train(tmp_path, (attrs.evolve(data, splits={"train": data.splits["train"]}), users), WARM)
    assert accuracy(model, preferences) > 0.75


def test_gradient_checkpointing_changes_nothing(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    bench.train(tmp_path / "plain", preferences)
    bench.train(tmp_path / "saving", preferences, attrs.evolve(QUICK, gradient_checkpointing=True))
    assert_equal_models(tmp_path / "plain", tmp_path / "saving", 1e-5)


def test_progress_shows_the_curve(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []

    class Listener:
        def task(self, name: str, total: int | None = None) -> Any:
            return SilentProgress().task(name, total)

        def log(self, stage: str, **values: Any) -> None:
            records.append({"stage": stage, **values})

    bench.train(tmp_path, preferences, attrs.evolve(QUICK, eval_every=4), progress=Listener())
    looks = [r for r in records if r.get("step", 0) > 0]
    assert [r["step"] for r in looks] == [4, 8]
    assert all({"stage", "loss", "validation_loss", "validation_accuracy"} <= r.keys() for r in looks)
    assert all(r["stage"] == "reward" for r in records)


def test_options_refuse_nonsense_and_the_published_settings_are_valid() -> None:
    assert RewardOptions(**PAPER_PRESET).head == "linear"
    for wrong in ({"max_steps": -1}, {"batch_size": 0}, {"warmup": 1.0}, {"trainable_layers": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RewardOptions(**wrong)


def test_texts_that_are_cut_are_counted(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    bench.train(tmp_path, preferences, attrs.evolve(QUICK, max_steps=0, max_length=12))
    assert read_reward_card(tmp_path).training["num_truncated"] > 0


def test_forward_is_the_contract(bench: Bench, preferences: Planted, tmp_path: Path) -> None:
    model = bench.train(tmp_path, preferences, kind="llama")
    encoded = encode_responses(model.backbone, preferences[0].responses, np.arange(4), 32)
    right = collate(encoded, np.arange(4))
    with torch.no_grad():
        a = model(right, preferences[1].values[:4])
        b = model(on_the_left(right), preferences[1].values[:4])
    assert a.shape == (4,)
    assert torch.allclose(a, b, atol=1e-4)
