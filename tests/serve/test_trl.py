"""A step of TRL's GRPO whose rewards come over HTTP, each prompt for its own user."""

from __future__ import annotations

from pathlib import Path

import pytest

from copl.serve.remote import RemoteReward
from tests.serve.running import Running


@pytest.mark.filterwarnings("ignore")  # of other packages
def test_a_step_of_grpo_asks_the_service(shared_service: Running, tiny_model: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="trl is not installed: pip install 'copl[align]'")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'copl[align]'")
    users = ["ann", "ben"]
    prompts = [{"prompt": "Why does my bread not rise?", "user_id": user} for user in users]
    settings = trl.GRPOConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, num_generations=2,
        max_completion_length=8, logging_steps=1, report_to=[], save_strategy="no", use_cpu=True,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=str(tiny_model),
        reward_funcs=RemoteReward(shared_service.url),
        args=settings,
        train_dataset=datasets.Dataset.from_list(prompts),
    )
    trainer.train()
    assert any("rewards/copl/mean" in record for record in trainer.state.log_history)
    assert shared_service.counted(route="/v1/rewards", status="200") >= 1
