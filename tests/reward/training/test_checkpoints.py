"""Training that is killed, and what it left: it ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from copl.errors import RunError
from copl.interfaces import SCRATCH
from copl.reward.store import read_reward_card
from copl.reward.training.loop import TrainingLoop
from tests.reward.training.bench import QUICK, WARM, Bench, Planted, assert_equal_models


class KilledError(Exception):
    pass


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Has something of the training loop raise an error when it is called for the nth time, while a block lasts."""

    @contextmanager
    def at(name: str, times: int) -> Iterator[None]:
        original, calls = getattr(TrainingLoop, name), count(1)

        def die(self: TrainingLoop, *arguments: Any) -> Any:
            if next(calls) == times:
                raise KilledError
            return original(self, *arguments)

        with monkeypatch.context() as patch, suppress(KilledError):
            patch.setattr(TrainingLoop, name, die)
            yield
            raise AssertionError("it ran to the end")

    return at


@pytest.mark.parametrize("step", [3, 10])
def test_a_killed_run_ends_as_if_it_had_not_been(
    step: int, bench: Bench, preferences: Planted, tmp_path: Path, killed_at: Callable[..., Any]
) -> None:
    options = attrs.evolve(QUICK, max_steps=12, eval_every=4, gradient_accumulation=2)
    bench.train(tmp_path / "whole", preferences, options)
    with killed_at("_step", step):
        bench.train(tmp_path / "killed", preferences, options)
    with pytest.raises(RunError, match=r"reward\.json: missing"):
        bench.load(tmp_path / "killed")
    bench.train(tmp_path / "killed", preferences, options)
    assert_equal_models(tmp_path / "whole", tmp_path / "killed")
    whole, killed = (read_reward_card(tmp_path / name).training for name in ("whole", "killed"))
    assert whole["curve"] == killed["curve"]


def test_a_run_killed_after_it_had_stopped_early_does_not_train_on(
    bench: Bench, preferences: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # with such a rate every step makes things worse than the warm start
    options = attrs.evolve(WARM, learning_rate=3.0, head_learning_rate=3.0, max_steps=40, patience=1, eval_every=2)
    bench.train(tmp_path / "whole", preferences, options, gate="softmax")
    with monkeypatch.context() as patch:
        patch.setattr("copl.reward.training.train.read_ahead", _killed)
        with pytest.raises(KilledError):
            bench.train(tmp_path / "killed", preferences, options, gate="softmax")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_step", _killed)  # no step is taken any more
        bench.train(tmp_path / "killed", preferences, options, gate="softmax")
    assert_equal_models(tmp_path / "whole", tmp_path / "killed")
    whole, killed = (read_reward_card(tmp_path / name).training for name in ("whole", "killed"))
    assert (whole["steps"], whole["kept_step"], whole["curve"]) == (2, 0, killed["curve"])


def _killed(*args: Any) -> Any:
    raise KilledError


def test_checkpoints_hold_only_what_is_trained(
    bench: Bench, preferences: Planted, tmp_path: Path, killed_at: Callable[..., Any]
) -> None:
    with killed_at("_step", 6):
        bench.train(tmp_path, preferences, attrs.evolve(QUICK, eval_every=4))
    (file,) = (tmp_path / SCRATCH).iterdir()
    adapters = sum(tensor.numel() for name, tensor in load_file(file).items() if name.startswith("now/"))
    frozen = sum(p.numel() * 4 for p in bench.make_backbone("bert").model.parameters())
    assert 0 < 4 * adapters < file.stat().st_size < frozen


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("best/", "is missing"),
        ("optimizer/", "its checksum differs"),
        ("random/", "its checksum differs"),
        ("", "damaged"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_not_gone_on_from(
    part: str, said: str, bench: Bench, preferences: Planted, tmp_path: Path, killed_at: Callable[..., Any]
) -> None:
    with killed_at("_step", 6):
        bench.train(tmp_path, preferences, attrs.evolve(QUICK, eval_every=4))
    (file,) = (tmp_path / SCRATCH).iterdir()
    tensors = load_file(file)
    if part:
        first = next(name for name in tensors if name.startswith(part))
        with safe_open(file, "pt") as whole:
            header = whole.metadata()
        save_file({name: tensor for name, tensor in tensors.items() if name != first}, file, metadata=header)
    else:
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RunError, match=f"{said}.*delete it to start training over"):
        bench.train(tmp_path, preferences, attrs.evolve(QUICK, eval_every=4))
