"""Options of the reward model: no torch here, so the command line can show them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

import attrs
from attrs import validators

from copl.options import option


@final
@attrs.frozen
class RewardOptions:
    """How the reward model is built and trained; the steps are optimiser steps."""

    head: Literal["linear", "bilinear", "routed", "mlp"] = option(
        "bilinear",
        help="reward from hidden state and user: linear ignores the user, bilinear and mlp combine both, routed gives"
        " every expert weights of its own",
    )
    warm_start: bool = option(
        True, help="fit the head on frozen features first, so that step 0 is already the best frozen-feature model"
    )
    mode: Literal["adapt", "frozen"] = option(
        "adapt",
        help="adapt: LoRA experts in the backbone, gate and head are trained; frozen: no adapters, and no gate but with"
        " a routed head, which is trained on features computed once a response",
    )
    max_steps: int = option(
        100, help="optimiser steps at most; 0 leaves the backbone as it is", validator=validators.ge(0)
    )
    epochs: float = option(
        20.0, help="passes over the training comparisons at most; the smaller limit holds", validator=validators.gt(0)
    )
    batch_size: int = option(
        16,
        help="comparisons in one forward pass, that is twice as many texts; where users share hidden states, all their"
        " comparisons among as many texts",
        validator=validators.ge(1),
    )
    gradient_accumulation: int = option(1, help="forward passes in one step", validator=validators.ge(1))
    learning_rate: float = option(5e-4, help="peak learning rate of adapters and gate", validator=validators.gt(0))
    head_learning_rate: float = option(1e-3, help="peak learning rate of the head", validator=validators.gt(0))
    weight_decay: float = option(0.01, help="weight decay of AdamW", validator=validators.ge(0))
    warmup: float = option(
        0.05,
        help="share of the steps over which the learning rate rises; it then falls as a cosine",
        validator=[validators.ge(0), validators.lt(1)],
    )
    max_length: int = option(
        256,
        help="tokens of prompt and response together; longer prompts lose their beginning",
        validator=validators.ge(8),
    )
    eval_every: int = option(20, help="steps between two looks at the validation split", validator=validators.ge(1))
    eval_comparisons: int = option(
        1000,
        help="comparisons looked at, drawn once: so many of the validation split, and of texts held out",
        validator=validators.ge(1),
    )
    patience: int = option(
        2, help="looks without a lower validation loss before training stops", validator=validators.ge(1)
    )
    trainable_layers: int = option(
        1,
        help="adapt only this many of the top layers and keep the hidden states below them, computed once a response;"
        " 0 adapts all layers",
        validator=validators.ge(0),
    )
    pack_pairs: Literal["auto", "on", "off"] = option(
        "auto",
        help="read what a chosen and a rejected text begin with in common once (decoders); auto: where users do not"
        " share hidden states, the backbone can and a twentieth of the tokens is saved; on: else it is an error",
    )
    length_buckets: bool = option(
        True,
        help="batch texts of similar length together, so that less padding is read; not where users share hidden"
        " states",
    )
    gradient_checkpointing: bool = option(False, help="recompute activations in the backward pass to save memory")
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", help="precision of training; auto is bfloat16 where the accelerator has it, else float32"
    )
    report_to: tuple[str, ...] = option(
        (), help="experiment trackers that training reports to: tensorboard, wandb, trackio"
    )

    @property
    def adapts(self) -> bool:
        """Whether adapters are trained; where they stay zero, the frozen features say all."""
        return self.mode == "adapt" and self.max_steps > 0

    @property
    def needs_gate(self) -> bool:
        """Whether there are experts to choose among: in the backbone, or in the head."""
        return self.mode == "adapt" or self.head == "routed"


PAPER_PRESET: Mapping[str, object] = {
    "head": "linear",
    "warm_start": False,
    "max_steps": 1500,
    "epochs": 1000.0,
    "batch_size": 32,
    "gradient_accumulation": 4,
    "learning_rate": 5e-5,
    "head_learning_rate": 5e-5,
    "weight_decay": 0.0,
    "warmup": 0.03,
    "max_length": 1024,
    "trainable_layers": 0,
}
"""The published settings of CoPL (arXiv 2503.01658); LoRA's own dropout of 0.1 is the mixture's default."""
