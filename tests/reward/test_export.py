"""Exported classifiers: opened by stock peft and transformers alone, they score as the reward model does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve

from copl.errors import OptionsError
from copl.records import PreferenceData, ResponseTable
from copl.reward.backbones.loaded import LoadedBackbone
from copl.reward.export import export_user
from copl.reward.model import PersonalRewardModel
from copl.reward.options import RewardOptions
from copl.reward.reading.reader import TextReader
from copl.reward.scoring import score_responses
from copl.reward.training.user_vectors import UserVectors

OPTIONS = RewardOptions(
    warm_start=False, max_steps=6, batch_size=8, eval_every=6, learning_rate=1e-2, head_learning_rate=1e-2
)
KINDS = ("llama", "gemma", "qwen2", "qwen3", "bert", "gpt2")

# Runs the code of each usage page in its directory, where copl cannot be imported.
ELSEWHERE = """
import json, os, re, sys
sys.modules["copl"] = None
from transformers.utils import logging
logging.set_verbosity_error()
logging.disable_progress_bar()
results = {}
for directory in sys.argv[2:]:
    os.chdir(directory)
    sys.modules.pop("score", None)
    sys.path[:1] = [directory]
    space = {}
    exec(re.search(r"```python\\n(.*?)```", open("README.md").read(), re.S).group(1), space)
    results[directory] = [space["reward"](prompt, text) for prompt, text in json.loads(sys.argv[1])]
print(json.dumps(results))
"""


def _elsewhere(texts: list[tuple[str, str]], directories: list[Path]) -> dict[str, list[float]]:
    command = [sys.executable, "-c", ELSEWHERE, json.dumps(texts), *map(str, directories)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return results


@pytest.mark.slow
def test_stock_peft_scores_as_the_reward_model_does(
    train_tiny: Callable[..., PersonalRewardModel],
    make_backbone: Callable[[str], LoadedBackbone],
    preferences: tuple[PreferenceData, UserVectors],
    tmp_path: Path,
) -> None:
    data, users = preferences
    texts = [*zip(data.responses.prompts[:6], data.responses.texts[:6], strict=True), ("", data.responses.texts[6])]
    responses, rows = ResponseTable(*zip(*texts, strict=True)), np.arange(len(texts))
    expected: dict[str, Any] = {}
    for kind, template in [*((kind, None) for kind in KINDS), ("llama", "response"), ("bert", "response")]:
        model = train_tiny(tmp_path / f"{kind}-{template}", data, users, OPTIONS, kind=kind)
        if template is not None:
            model.reader = TextReader.over(evolve(model.backbone, template=template), OPTIONS)
        for number in (0, 1):
            vector = users.values[number]
            wanted = score_responses(model, responses, vector.expand(len(rows), -1), rows)
            # The tokenizer here is none of Qwen's or GPT-2's, which a whole model of theirs would be opened with.
            for merge in (False, True) if kind in ("llama", "gemma", "bert") else (False,):
                place = tmp_path / f"{kind}-{template}-{number}-{merge}"
                found = export_user(model, vector, str(number), make_backbone(kind), place, merge=merge)
                assert found.task == ("TOKEN_CLS" if kind == "bert" else "SEQ_CLS")
                assert found.rank == model.mixture.layout.shared_rank + model.mixture.layout.expert_rank
                expected[str(place)] = wanted
    results = _elsewhere(texts, [Path(place) for place in expected])
    for place, wanted in expected.items():
        np.testing.assert_allclose(results[place], wanted, atol=1e-4, err_msg=place)
    spread = [np.std(wanted) for wanted in expected.values()]
    assert min(spread) > 1e-3  # equality of constants would prove nothing


def test_a_users_rewards_are_linear_in_the_hidden_state_without_an_offset(
    train_tiny: Callable[..., PersonalRewardModel],
    preferences: tuple[PreferenceData, UserVectors],
    tmp_path: Path,
) -> None:
    model = train_tiny(tmp_path, *preferences, OPTIONS)
    assert float(model.feature_centre.abs().max()) > 0.01
    conditioned = model.condition(preferences[1].values[:1])
    nothing = model.head(model.scaled(torch.zeros(1, model.backbone.hidden_size)), conditioned)
    assert float((nothing + model.level(conditioned)).detach()) == pytest.approx(0.0, abs=1e-5)


def test_nothing_is_written_where_something_is_or_the_head_is_not_linear(
    train_tiny: Callable[..., PersonalRewardModel],
    make_backbone: Callable[[str], LoadedBackbone],
    preferences: tuple[PreferenceData, UserVectors],
    tmp_path: Path,
) -> None:
    vector = preferences[1].values[0]
    model = train_tiny(tmp_path / "linear", *preferences, OPTIONS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(OptionsError, match="already there; choose another --out"):
        export_user(model, vector, "0", make_backbone("llama"), tmp_path / "full")
    curved = train_tiny(tmp_path / "mlp", *preferences, evolve(OPTIONS, head="mlp"))
    with pytest.raises(OptionsError, match=re.escape("train with reward.head=bilinear or linear")):
        export_user(curved, vector, "0", make_backbone("llama"), tmp_path / "curved")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "linear", "mlp"]
