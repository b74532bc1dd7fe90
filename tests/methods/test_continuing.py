"""Methods with a backbone that go on from a former run, whole, on a tiny language model."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from copl.data.dataset import load_dataset, save_dataset
from copl.data.pairs import compact_all
from copl.interfaces import PreferenceModel
from copl.plugins import load
from copl.records import FloatArray, PreferenceData
from copl.reward.store import read_reward_card
from copl.runs.directory import Run, open_run
from copl.runs.pipeline import train
from copl.runs.recipe import resolve
from copl.system.progress import SilentProgress

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "frozen": {"method": {"name": "copl"}, "encoder": {"name": "mf"}, "reward": {"mode": "frozen", "max_steps": 4}},
    "adapters": {
        "method": {"name": "copl"},
        "encoder": {"name": "latent-groups"},
        "gate": {"name": "cluster", "num_experts": 2},
        "mixture": {"shared_rank": 2, "expert_rank": 2},
        "reward": {"max_steps": 6, "eval_every": 3, "batch_size": 4, "trainable_layers": 1, "learning_rate": 0.01},
    },
    "head-along": {
        "method": {"name": "copl"},
        "encoder": {"name": "mf"},
        "gate": {"name": "topk", "num_experts": 3},
        "mixture": {"shared_rank": 2, "expert_rank": 2},
        "reward": {"max_steps": 8, "eval_every": 4, "batch_size": 8, "trainable_layers": 1, "warm_start": False},
    },
    "btl": {"method": {"name": "btl"}, "reward": {"max_steps": 4, "eval_every": 2, "batch_size": 4}},
    "stacked": {"method": {"name": "copl"}, "reward": {"mode": "frozen", "max_steps": 2}},
}


@pytest.fixture(scope="module")
def old_data(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_data` before its last three seen users came and before a twentieth of all else was said."""
    data = load_dataset(small_data)
    train_rows = data.splits["train"]
    late = np.unique(train_rows.user)[-3:]
    splits = {name: part.take(~np.isin(part.user, late)) for name, part in data.splits.items()}
    splits["train"] = splits["train"].take(np.arange(len(splits["train"])) % 20 > 0)
    users, responses, splits, judgements = compact_all(data.users, data.responses, splits, {})
    before = attrs.evolve(data, users=users, responses=responses, splits=splits, judgements=judgements)
    directory = tmp_path_factory.mktemp("data") / "old"
    save_dataset(before, directory)
    return directory


def fit(name: str, data: Path, out: Path, tiny_model: Path, former: Run | None = None) -> tuple[Run, PreferenceModel]:
    draft = {**RECIPES[name], "backbone": {"name": str(tiny_model)}}
    draft["reward"] = {"max_length": 64, **draft["reward"]}
    silent = nullcontext(SilentProgress())
    recipe = resolve(draft, load())
    return train(recipe, data, out, open_progress=lambda log: silent, cache=None, former=former)


def margins(method: PreferenceModel, data: PreferenceData) -> FloatArray:
    return method.margins(data.split("test"))


def bytes_of(stage: Path) -> dict[str, bytes]:
    """Every file of a stage but for its record and what says how long it took."""
    files = {file.relative_to(stage).as_posix(): file for file in stage.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in files.items() if name not in ("stage.json", "reward.json")}


@pytest.mark.parametrize("name", ["frozen", "adapters", "head-along", "btl"])
def test_a_run_goes_on(name: str, old_data: Path, small_data: Path, tiny_model: Path, tmp_path: Path) -> None:
    former, _ = fit(name, old_data, tmp_path / "old", tiny_model)
    run, method = fit(name, small_data, tmp_path / "new", tiny_model, former)
    assert run.facts.former is not None
    parts = dict(run.facts.former.parts)
    assert set(parts.values()) == {"continued"}
    assert "reward" in parts
    data = load_dataset(small_data)
    found = margins(method, data)
    assert np.isfinite(found).all()
    # what was saved scores alike, and the same again gives the same files
    np.testing.assert_allclose(margins(open_run(tmp_path / "new", load()).load_method(), data), found, atol=1e-4)
    again, _ = fit(name, small_data, tmp_path / "again", tiny_model, former)
    assert again.fingerprint == run.fingerprint
    assert bytes_of(tmp_path / "again" / "reward") == bytes_of(tmp_path / "new" / "reward")
    before, after = (read_reward_card(tmp_path / which / "reward") for which in ("old", "new"))
    assert after.training["kept_step"] >= before.training["kept_step"]
    # gone on from once more
    third, method = fit(name, small_data, tmp_path / "third", tiny_model, run)
    assert third.facts.former is not None
    assert third.facts.former.parts == {"method": "unchanged"}
    np.testing.assert_allclose(margins(method, data), found, atol=1e-4)


def test_the_default_encoder_with_texts_goes_on(
    old_data: Path, small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    former, _ = fit("stacked", old_data, tmp_path / "old", tiny_model)
    run, method = fit("stacked", small_data, tmp_path / "new", tiny_model, former)
    _, scratch = fit("stacked", small_data, tmp_path / "scratch", tiny_model)
    assert run.facts.former is not None
    assert run.facts.former.parts == {"method": "continued", "graph": "continued", "reward": "continued"}
    data = load_dataset(small_data)
    right = [float((margins(one, data) > 0).mean()) for one in (method, scratch)]
    assert right[0] > right[1] - 0.1
    late = set(method.seen_users()) - set(former.load_method().seen_users())
    assert len(late) == 3


def test_users_that_are_learnt_anew_take_the_reward_model_along(
    old_data: Path, small_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "spectral", {**RECIPES["frozen"], "encoder": {"name": "spectral"}})
    former, _ = fit("spectral", old_data, tmp_path / "old", tiny_model)
    run, method = fit("spectral", small_data, tmp_path / "new", tiny_model, former)
    _, scratch = fit("spectral", small_data, tmp_path / "scratch", tiny_model)
    assert run.facts.former is not None
    assert "starts anew" in run.facts.former.parts["graph"]
    assert "starts anew" in run.facts.former.parts["reward"]
    data = load_dataset(small_data)
    np.testing.assert_allclose(margins(method, data), margins(scratch, data), atol=1e-6)


def test_another_backbone_is_refused(old_data: Path, small_data: Path, tiny_model: Path, tmp_path: Path) -> None:
    from copl.errors import OptionsError
    from copl.testing.tiny_model import write_tiny_model

    former, _ = fit("frozen", old_data, tmp_path / "old", tiny_model)
    responses = load_dataset(small_data).responses
    other = write_tiny_model(tmp_path / "other", [*responses.texts, *responses.prompts, "one more word"])
    with pytest.raises(OptionsError, match="other weights"):
        fit("frozen", small_data, tmp_path / "new", other, former)
    assert not (tmp_path / "new").exists()
    (tmp_path / "moved").symlink_to(tiny_model)  # the same weights elsewhere
    run, _ = fit("frozen", small_data, tmp_path / "new", tmp_path / "moved", former)
    assert json.loads((run.root / "run.json").read_text())["former"]["parts"]["reward"] == "continued"
