"""The methods by name, with their options; free of torch, so that the command line can show them at once."""

from __future__ import annotations

from typing import final

from attrs import frozen

from copl.experts.options import PAPER_PRESET as MIXTURE_PAPER_PRESET
from copl.experts.options import MixtureOptions
from copl.options import NoOptions, option
from copl.plugins import Component
from copl.reward.options import PAPER_PRESET as REWARD_PAPER_PRESET
from copl.reward.options import RewardOptions

PAPER_PRESET = {
    "method": {"graph_scores": False},
    "encoder": {"name": "gcf", "preset": "paper"},
    "gate": {"name": "top1", "preset": "paper"},
    "adapter": {"name": "two-hop", "preset": "paper"},
    "mixture": MIXTURE_PAPER_PRESET,
    "reward": REWARD_PAPER_PRESET,
}
"""The published settings of all parts."""


@final
@frozen
class CoplOptions:
    graph_scores: bool = option(
        True,
        help="add what the encoder knows of responses, by comparisons and by their texts, weighted by fit to the"
        " validation split; false scores by the reward model alone, as published",
    )


COMPONENTS: list[Component] = [
    Component(
        name="copl",
        options=CoplOptions,
        build="copl.methods.copl:build",
        summary="graph embeddings of users gate a mixture of LoRA experts in a reward model",
        reference="arXiv 2503.01658",
        uses=("encoder", "gate", "adapter", "backbone"),
        sections={"mixture": MixtureOptions, "reward": RewardOptions},
        presets={"paper": PAPER_PRESET},
    ),
    Component(
        name="btl",
        options=NoOptions,
        build="copl.methods.btl:build",
        summary="one Bradley-Terry reward model for everybody: no personalisation",
        reference="Bradley and Terry 1952",
        uses=("backbone",),
        sections={"mixture": MixtureOptions, "reward": RewardOptions},
        presets={"paper": {"reward": REWARD_PAPER_PRESET}},
    ),
    Component(
        name="graph",
        options=NoOptions,
        build="copl.methods.graph:build",
        summary="the graph encoder alone: collaborative filtering without text",
        uses=("encoder", "adapter"),
    ),
]
