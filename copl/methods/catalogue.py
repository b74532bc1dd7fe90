"""The methods by name, with their options; free of torch, so that the command line can show them at once."""

from __future__ import annotations

from typing import final

from attrs import frozen, validators

from copl.experts.options import PAPER_PRESET as MIXTURE_PAPER_PRESET
from copl.experts.options import MixtureOptions
from copl.options import NoOptions, option
from copl.plugins import Component, Range
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


@frozen
class RecencyOptions:
    """How much older evidence counts; the base of the options of the methods with a user model."""

    half_life: float | None = option(
        None,
        help="days after which evidence counts half in training and adaptation, where it has a time; none: all alike",
        validator=validators.optional(validators.gt(0)),
    )
    choose_half_life: bool = option(
        False, help="choose the half-life, or none, by the loss on the validation split: a few times the work"
    )

    def __attrs_post_init__(self) -> None:
        if self.choose_half_life and self.half_life is not None:
            raise ValueError("half_life is given, and choose_half_life asks for another; leave one out")


@final
@frozen
class GraphOptions(RecencyOptions):
    """Options of method ``graph``."""


@final
@frozen
class CoplOptions(RecencyOptions):
    graph_scores: bool = option(
        True,
        help="add what the encoder knows of responses, by comparisons and by their texts, weighted by fit to the"
        " validation split; false scores by the reward model alone, as published",
    )


@final
@frozen
class ConsensusOptions:
    max_length: int = option(
        256,
        help="tokens of prompt and response together that the frozen backbone reads",
        validator=validators.ge(8),
    )


_TRAINING = {
    "reward.learning_rate": Range.around(RewardOptions().learning_rate, 5.0),
    "reward.head_learning_rate": Range.around(RewardOptions().head_learning_rate, 5.0),
    "reward.weight_decay": Range.around(RewardOptions().weight_decay, 10.0),
}
"""What a search goes through where adapters or heads are trained."""

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
        search={**_TRAINING, "graph_scores": (True, False)},
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
        search=_TRAINING,
        personal=False,
    ),
    Component(
        name="graph",
        options=GraphOptions,
        build="copl.methods.graph:build",
        summary="the graph encoder alone: collaborative filtering without text",
        uses=("encoder", "adapter"),
    ),
    Component(
        name="consensus",
        options=ConsensusOptions,
        build="copl.methods.consensus:ConsensusMethod",
        summary="what everybody thinks of a response, by comparisons and by its text, and nothing of users",
        reference="Bradley and Terry 1952, with a Gaussian process over texts as prior",
        uses=("backbone",),
        personal=False,
    ),
    Component(
        name="length",
        options=NoOptions,
        build="copl.methods.length:LengthMethod",
        summary="the longer or the shorter response, for everybody: a rule that reads nothing",
        personal=False,
    ),
]
