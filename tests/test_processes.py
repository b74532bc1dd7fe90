"""Training by several processes: the same model as one process makes of the same global batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from copl.processes import agree, is_main, num_processes, rank, wait


def test_one_process_needs_nobody() -> None:
    assert (num_processes(), rank(), is_main()) == (1, 0, True)
    assert agree("it") == "it"
    wait()


def _train(launcher: list[str], data: Path, model: Path, out: Path, accumulation: int) -> dict[str, object]:
    settings = {
        "encoder.name": "mf",
        "encoder.num_steps": 5,
        "gate.noise": 0,
        "mixture.dropout": 0,
        "mixture.shared_rank": 2,
        "mixture.expert_rank": 2,
        "reward.warm_start": "false",
        "reward.max_steps": 6,
        "reward.eval_every": 3,
        "reward.batch_size": 4,
        "reward.learning_rate": 0.01,
        "reward.max_length": 64,
        "reward.gradient_accumulation": accumulation,
        "method.graph_scores": "true",
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [*launcher, "-m", "copl.cli", "train", data, "--out", out, "--backbone", model, "--no-cache", *sets]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    training: dict[str, object] = json.loads((out / "reward" / "reward.json").read_text())["training"]
    return training


@pytest.mark.slow
def test_two_processes_train_what_one_does_on_the_same_global_batches(
    small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    alone = _train([sys.executable], small_data, tiny_model, tmp_path / "alone", accumulation=2)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = _train(torchrun, small_data, tiny_model, tmp_path / "both", accumulation=1)
    assert both["steps"] == alone["steps"] == 6
    assert [point["step"] for point in both["curve"]] == [0, 3, 6]
    for one, two in zip(alone["curve"], both["curve"], strict=True):
        assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-5)
    for name in ("reward/model.safetensors", "reward/adapter/adapter_model.safetensors"):
        first, second = load_file(tmp_path / "alone" / name), load_file(tmp_path / "both" / name)
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert second[key] == pytest.approx(value, abs=1e-5), key
    assert any(abs(v).max() > 1e-3 for k, v in first.items() if "lora_B" in k)
