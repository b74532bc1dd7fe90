"""Options of policies: free of torch, so that the command line can show them at once."""

from __future__ import annotations

import math
from typing import Any, final

import attrs
from attrs.validators import and_, ge, gt, le

from copl.align.policies.rows import RowOptions
from copl.options import option
from copl.reward.backbones.names import PACKAGED_WRITER

CARD = "policy.json"
"""The file that marks a policy's directory as whole."""


@attrs.frozen
class PolicyOptions(RowOptions):
    """What all policies that are trained by DPO have to be told."""

    model: str = option(PACKAGED_WRITER, help="the language model that speaks: by name, Hugging Face id or path")
    num_prompts: int = option(
        32, help="training prompts whose candidates are ranked, the user's own first", validator=ge(0)
    )
    said: bool = option(True, help="train on what users have said as well, not on ranked candidates alone")
    beta: float = option(0.1, help="how closely the policy keeps to the model it starts from", validator=gt(0.0))
    learning_rate: float = option(2e-4, help="peak learning rate", validator=gt(0.0))
    max_steps: int = option(100, help="optimiser steps at most", validator=ge(1))
    epochs: float = option(3.0, help="passes over the rows at most; the smaller limit holds", validator=gt(0.0))
    batch_size: int = option(4, help="rows in one step", validator=ge(1))
    save_every: int = option(
        20, help="steps between two checkpoints, from which a killed training goes on", validator=ge(1)
    )
    max_length: int = option(256, help="tokens of prompt and response together", validator=ge(8))
    max_new_tokens: int = option(128, help="tokens of an answer at most", validator=ge(1))
    temperature: float = option(0.0, help="of sampling; 0 writes the likeliest", validator=and_(ge(0.0), le(5.0)))

    def num_steps(self, num_rows: int) -> int:
        """Return how many optimiser steps are taken with so many rows."""
        return max(1, min(self.max_steps, math.ceil(num_rows * self.epochs / self.batch_size)))


def _likelihood(default: float) -> Any:
    return option(
        default,
        help="weight of the likelihood of chosen responses, a token, beside the preference; 0 trains on that alone",
        validator=ge(0.0),
    )


@final
@attrs.frozen
class DpoOptions(PolicyOptions):
    """A policy for one user: a plain LoRA, trained by TRL's DPOTrainer on candidates ranked by the user's reward."""

    rank: int = option(16, help="rank of the adapter", validator=ge(1))
    alpha: float = option(32.0, help="the adapter is scaled by alpha / rank", validator=gt(0.0))
    likelihood: float = _likelihood(0.0)


@final
@attrs.frozen
class MixtureDpoOptions(PolicyOptions):
    """One policy for everybody: a mixture of LoRA experts in the language model, gated by the user embedding."""

    gate: str = option("cluster", help="gate over the experts, by name; `copl plugins list gate` shows all")
    num_experts: int = option(
        4, help="routed experts; 0 leaves the shared one alone, the same for everybody", validator=ge(0)
    )
    shared_rank: int = option(8, help="rank of the expert that all users share; 0 for none", validator=ge(0))
    expert_rank: int = option(8, help="rank of each routed expert", validator=ge(1))
    alpha: float = option(16.0, help="every expert is scaled by alpha / expert_rank", validator=gt(0.0))
    num_users: int = option(64, help="users whose rankings are trained on at most", validator=ge(1))
    likelihood: float = _likelihood(1.0)
