"""A run's personal reward in OpenRLHF.

    COPL_RUN=my-run python -m openrlhf.cli.train_ppo_ray --remote_rm_url examples/openrlhf_reward.py \\
        --label_key user_id --input_key prompt ...

OpenRLHF calls ``reward_func(queries, prompts, labels)``: a query is a prompt with its response, and the label is what
the row holds under the label key, here the user's id. A prompt that was rendered by a chat template is scored as it was
rendered; give ``--input_key`` plain prompts and no ``--apply_chat_template``, or train the run on such prompts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from copl import Model
from copl.data.completions import response_in


@cache
def _reward() -> Any:
    return Model.open(os.environ["COPL_RUN"]).reward_function(calibrated=True)


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str], **_: Any) -> dict[str, Any]:
    """Return rewards, scores from 0 to 1 by which samples may be filtered, and what to log."""
    completions = [response_in(query, prompt) for query, prompt in zip(queries, prompts, strict=True)]
    rewards = torch.tensor(_reward()(prompts=prompts, completions=completions, user_id=labels))
    return {"rewards": rewards, "scores": torch.sigmoid(rewards), "extra_logs": {"personal_reward": rewards}}
