"""Options of the mixture of LoRA experts; free of torch, so that the command line can show them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

import attrs
from attrs.validators import and_, deep_iterable, ge, gt, instance_of, lt, min_len, optional

from copl.options import option


@final
@attrs.frozen
class MixtureOptions:
    """How the backbone is adapted: one shared LoRA expert and as many routed ones as the gate decides between."""

    shared_rank: int = option(
        8, help="rank of the shared expert; 0 for none (needs a gate with experts)", validator=ge(0)
    )
    expert_rank: int = option(8, help="rank of each routed expert", validator=ge(1))
    alpha: float = option(16.0, help="every expert is scaled by alpha / expert_rank", validator=gt(0.0))
    dropout: float = option(0.1, help="dropout before the adapters, in training", validator=and_(ge(0.0), lt(1.0)))
    target_modules: tuple[str, ...] | None = option(
        None,
        help="names of the linear modules to adapt; none: the backbone's query and value projections",
        validator=optional(and_(min_len(1), deep_iterable(instance_of(str)))),
    )
    layers: tuple[int, ...] | None = option(
        None,
        help="places of the layers to adapt, counted from 0; none: all, or those that reward.trainable_layers says",
        validator=optional(and_(min_len(1), deep_iterable(and_(instance_of(int), ge(0))))),
    )
    gates: Literal["one", "per-layer"] = option(
        "one",
        help="one: one gate for all layers; per-layer: a gate of its own for each adapted module, as the released code",
    )
    gate_power: Literal[1, 2] = option(
        1, help="1: experts are weighted by g as in the paper; 2: by g squared as in the released code"
    )


PAPER_PRESET: Mapping[str, object] = {"gates": "per-layer"}
"""What CoPL (arXiv 2503.01658) publishes where the defaults differ; its released code squares the gate weight too."""
