"""The step of GRPO that the page on policies shows, with tiny models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from copl import Model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies.md"


@pytest.mark.filterwarnings("ignore")  # of other packages
def test_the_step_of_grpo_runs(
    trained_run: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"```python\n(.*?GRPOTrainer.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    block = block.split("```python\n")[-1]
    plain = '"prompt": "Why does my bread not rise?"'  # the tiny model has no chat template
    block = block.replace('"prompt": [{"role": "user", "content": "Why does my bread not rise?"}]', plain)
    names = {"reward": Model.open(trained_run).reward_function(calibrated=True)}
    exec(compile(block.replace('"smollm2-135m"', repr(str(tiny_model))), str(PAGE), "exec"), names)
    history = names["trainer"].state.log_history  # type: ignore[attr-defined]
    assert any("rewards/personal_reward/mean" in record for record in history)
