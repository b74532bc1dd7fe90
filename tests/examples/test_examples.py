"""Examples for other trainers, by the call that those document."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from copl import Model

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def opened(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def expected(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[float]]:
    monkeypatch.setenv("COPL_RUN", str(trained_run))
    model = Model.open(trained_run)
    user = next(iter(model.method.seen_users()))
    return user, model.score(user, "Tea?", ["Coffee then.", "No."], calibrated=True)


def test_verl_asks_for_one_response_after_the_other(expected: tuple[str, list[float]]) -> None:
    user, rewards = expected
    score = opened("verl_reward").compute_score
    about = {"user_id": user, "prompt": "Tea?", "index": 3, "split": "train"}
    found = [
        score(data_source="mine", solution_str=text, ground_truth="", extra_info=about)
        for text in ("Coffee then.", "No.")
    ]
    assert found == pytest.approx(rewards, abs=1e-6)
    assert score("mine", "No.", "", [{"role": "user", "content": "Tea?"}] and about) == pytest.approx(
        rewards[1], abs=1e-6
    )


def test_openrlhf_asks_with_queries_prompts_and_labels(expected: tuple[str, list[float]]) -> None:
    user, rewards = expected
    answer = opened("openrlhf_reward").reward_func(["Tea?Coffee then.<|im_end|>", "Tea?No."], ["Tea?"] * 2, [user] * 2)
    assert answer["rewards"].tolist() == pytest.approx(rewards, abs=1e-5)
    assert isinstance(answer["rewards"], torch.Tensor)
    assert ((answer["scores"] > 0) & (answer["scores"] < 1)).all()
    assert answer["extra_logs"].keys() == {"personal_reward"}


@pytest.mark.filterwarnings("ignore")  # of other packages
def test_grpo_writes_an_adapter(trained_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    user = next(iter(Model.open(trained_run).method.seen_users()))
    (tmp_path / "prompts.txt").write_text("Tea?\n\nHow do I boil an egg?\n")
    named = ["--user", user, "--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "policy")]
    opened("grpo").main([str(trained_run), "--policy", str(tiny_model), *named, "--group", "2", "--tokens", "4"])
    assert (tmp_path / "policy" / "adapter_model.safetensors").is_file()
