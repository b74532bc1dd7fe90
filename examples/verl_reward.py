"""A run's personal reward in verl.

    COPL_RUN=my-run python -m verl.trainer.main_ppo custom_reward_function.path=examples/verl_reward.py \\
        custom_reward_function.name=compute_score ...

verl calls ``compute_score(data_source, solution_str, ground_truth, extra_info)`` for each response. The rows of its
parquet files say in ``extra_info`` whose reward they want and what was asked:

    {"data_source": "mine", "prompt": [{"role": "user", "content": "Tea or coffee?"}],
     "reward_model": {"style": "model", "ground_truth": ""},
     "extra_info": {"user_id": "ann", "prompt": "Tea or coffee?"}}
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from copl import Model


@cache
def _reward() -> Any:
    return Model.open(os.environ["COPL_RUN"]).reward_function(calibrated=True)


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> float:
    """Return the reward of one response for the user of its row."""
    about = extra_info or {}
    [reward] = _reward()(prompts=[about["prompt"]], completions=[solution_str], user_id=[about.get("user_id")])
    return float(reward)
