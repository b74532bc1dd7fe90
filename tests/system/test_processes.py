"""Training by several processes: the same model as one process makes of the same global batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from copl.data.dataset import load_dataset
from copl.model import Model
from copl.system.processes import agree, is_main, num_processes, rank, wait, weights_are_split

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_one_process_needs_nobody() -> None:
    assert (num_processes(), rank(), is_main()) == (1, 0, True)
    assert agree("it") == "it"
    wait()


@pytest.mark.parametrize(
    ("processes", "asked", "split"), [("2", "true", True), ("2", "false", False), ("1", "true", False)]
)
def test_who_asks_for_split_weights_asks_us_and_nobody_else(
    processes: str, asked: str, split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", asked)
    weights_are_split.cache_clear()
    try:
        assert [weights_are_split(), weights_are_split()] == [split, split]
        assert "ACCELERATE_USE_FSDP" not in os.environ
    finally:
        weights_are_split.cache_clear()


def _train(
    launcher: list[str], data: Path, model: Path, out: Path, accumulation: int, warm: bool = False, **variables: str
) -> dict[str, Any]:
    settings = {
        "encoder.name": "mf",
        "encoder.num_steps": 5,
        "gate.name": "top1",
        "gate.noise": 0,
        "mixture.dropout": 0,
        "mixture.shared_rank": 2,
        "mixture.expert_rank": 2,
        "reward.warm_start": str(warm).lower(),
        "reward.max_steps": 6,
        "reward.eval_every": 3,
        "reward.batch_size": 4,
        "reward.learning_rate": 0.01,
        "reward.max_length": 64,
        "reward.trainable_layers": 1,
        "reward.gradient_accumulation": accumulation,
        "method.graph_scores": "true",
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [*launcher, "-m", "copl.cli", "train", data, "--out", out, "--backbone", model, "--no-cache", *sets]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    training: dict[str, Any] = json.loads((out / "reward" / "reward.json").read_text())["training"]
    return training


@pytest.mark.slow
def test_two_processes_refit_the_head_as_one_does(small_data: Path, tiny_model: Path, tmp_path: Path) -> None:
    alone = _train([sys.executable], small_data, tiny_model, tmp_path / "alone", accumulation=2, warm=True)
    split = {"ACCELERATE_USE_FSDP": "true"}
    both = _train(TORCHRUN, small_data, tiny_model, tmp_path / "split", accumulation=1, warm=True, **split)
    assert both["kept_step"] == alone["kept_step"] == 6
    losses = [run["refit"]["refitted"]["validation_loss"] for run in (alone, both)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for one, two in zip(alone["curve"], both["curve"], strict=True):
        assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-4)
    first, second = (load_file(tmp_path / name / "reward" / "model.safetensors") for name in ("alone", "split"))
    assert any(abs(value).max() > 1e-3 for key, value in first.items() if key.startswith("head."))
    for key, value in first.items():
        assert second[key] == pytest.approx(value, abs=1e-3), key


@pytest.mark.slow
def test_two_processes_train_what_one_does_on_the_same_global_batches(
    small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    alone = _train([sys.executable], small_data, tiny_model, tmp_path / "alone", accumulation=2)
    for name, variables in (("whole", {}), ("split", {"ACCELERATE_USE_FSDP": "true"})):
        both = _train(TORCHRUN, small_data, tiny_model, tmp_path / name, accumulation=1, **variables)
        log = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        assert [e["weights_split_among"] for e in log if "weights_split_among" in e] == ([2] if variables else [])
        assert both["steps"] == alone["steps"] == 6
        assert [point["step"] for point in both["curve"]] == [0, 3, 6]
        for one, two in zip(alone["curve"], both["curve"], strict=True):
            assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-5)
        for file in ("reward/model.safetensors", "reward/adapter/adapter_model.safetensors"):
            first, second = load_file(tmp_path / "alone" / file), load_file(tmp_path / name / file)
            assert first.keys() == second.keys()
            for key, value in first.items():
                assert second[key] == pytest.approx(value, abs=1e-5), (name, key)
        assert any(abs(v).max() > 1e-3 for k, v in first.items() if "lora_B" in k)
    data = load_dataset(small_data)
    asked = (data.users.ids[0], data.responses.prompts[0], list(data.responses.texts[:3]))
    scores = [Model.open(tmp_path / name).score(*asked) for name in ("alone", "split")]
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
    assert scores[0][0] != scores[0][1]
