"""Training by several processes: the same model as one process makes of the same global batches.

Run as a script, this file trains in processes that share what has been imported.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers.models.llama.modeling_llama  # noqa: F401 - that of the tiny model, imported for all processes
from safetensors.numpy import load_file
from torch.multiprocessing import start_processes

from copl import cli
from copl.data.dataset import load_dataset
from copl.model import Model
from copl.reward.training import train  # noqa: F401
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


SETTINGS = {
    "encoder.name": "mf",
    "encoder.num_steps": 5,
    "gate.name": "top1",
    "gate.noise": 0,
    "mixture.dropout": 0,
    "mixture.shared_rank": 2,
    "mixture.expert_rank": 2,
    "reward.max_steps": 6,
    "reward.eval_every": 3,
    "reward.batch_size": 4,
    "reward.learning_rate": 0.01,
    "reward.max_length": 64,
    "reward.trainable_layers": 1,
    "method.graph_scores": "true",
}
SPLIT = {"ACCELERATE_USE_FSDP": "true"}


def _words(data: Path, model: Path, out: Path, accumulation: int, *, warm: bool = False) -> list[str]:
    settings = {**SETTINGS, "reward.warm_start": str(warm).lower(), "reward.gradient_accumulation": accumulation}
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return [*map(str, ("train", data, "--out", out, "--backbone", model, "--no-cache", "--seed", 5)), *sets]


def _run(command: list[str], **variables: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def _trained(out: Path) -> dict[str, Any]:
    """Return what a finished run says of its training."""
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    training: dict[str, Any] = json.loads((out / "reward" / "reward.json").read_text())["training"]
    return training


@pytest.fixture(scope="module")
def runs(small_data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of runs trained by one process (``warm``, ``alone``) and by two (``whole``, ``split``)."""
    root = tmp_path_factory.mktemp("processes")
    jobs = [
        (_words(small_data, tiny_model, root / "warm", 2, warm=True), 1, {}),
        (_words(small_data, tiny_model, root / "alone", 2), 1, {}),
        (_words(small_data, tiny_model, root / "whole", 1), 2, {}),
        (_words(small_data, tiny_model, root / "split", 1), 2, SPLIT),
    ]
    _run([sys.executable, __file__, json.dumps(jobs)])
    return root


@pytest.mark.slow
def test_two_processes_of_a_launcher_refit_the_head_as_one_does(
    small_data: Path, tiny_model: Path, runs: Path, tmp_path: Path
) -> None:
    _run([*TORCHRUN, "-m", "copl.cli", *_words(small_data, tiny_model, tmp_path / "run", 1, warm=True)], **SPLIT)
    alone, both = _trained(runs / "warm"), _trained(tmp_path / "run")
    assert both["kept_step"] == alone["kept_step"] > 0
    losses = [run["refit"]["refitted"]["validation_loss"] for run in (alone, both)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for one, two in zip(alone["curve"], both["curve"], strict=True):
        assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-4)
    first, second = (load_file(run / "reward" / "model.safetensors") for run in (runs / "warm", tmp_path / "run"))
    assert any(abs(value).max() > 1e-3 for key, value in first.items() if key.startswith("head."))
    for key, value in first.items():
        assert second[key] == pytest.approx(value, abs=1e-3), key


@pytest.mark.slow
def test_two_processes_train_what_one_does_on_the_same_global_batches(small_data: Path, runs: Path) -> None:
    alone = _trained(runs / "alone")
    for name, split_among in (("whole", []), ("split", [2])):
        both = _trained(runs / name)
        log = [json.loads(line) for line in (runs / name / "log.jsonl").read_text().splitlines()]
        assert [e["weights_split_among"] for e in log if "weights_split_among" in e] == split_among
        assert both["steps"] == alone["steps"] == 6
        assert [point["step"] for point in both["curve"]] == [0, 3, 6]
        for one, two in zip(alone["curve"], both["curve"], strict=True):
            assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-5)
        for file in ("reward/model.safetensors", "reward/adapter/adapter_model.safetensors"):
            first, second = load_file(runs / "alone" / file), load_file(runs / name / file)
            assert first.keys() == second.keys()
            for key, value in first.items():
                assert second[key] == pytest.approx(value, abs=1e-5), (name, key)
        assert any(abs(v).max() > 1e-3 for k, v in first.items() if "lora_B" in k)
    data = load_dataset(small_data)
    asked = (data.users.ids[0], data.responses.prompts[0], list(data.responses.texts[:3]))
    scores = [Model.open(runs / name).score(*asked) for name in ("alone", "split")]
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
    assert scores[0][0] != scores[0][1]


def _process(rank: int, words: list[str], num_processes: int, port: int, variables: dict[str, str]) -> None:
    os.environ |= variables
    if num_processes > 1:  # what a launcher sets
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_processes)}
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    sys.argv = ["copl", *words]
    cli.main()


if __name__ == "__main__":
    for words, num_processes, variables in json.loads(sys.argv[1]):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            number = int(free.getsockname()[1])
        arguments = (words, num_processes, number, variables)
        start_processes(_process, arguments, nprocs=num_processes, start_method="fork")
