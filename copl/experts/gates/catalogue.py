"""The expert gates by name, with their options; free of torch, so that the command line can show them at once."""

from __future__ import annotations

from typing import Literal, final

import attrs
from attrs.validators import ge, gt

from copl.options import NoOptions, option
from copl.plugins import Component


@attrs.frozen
class LearnedGateOptions:
    """Options of a gate that is an MLP on the user embedding."""

    num_experts: int = option(8, help="number of routed experts", validator=ge(1))
    hidden_dim: int = option(256, help="width of the gate's hidden layer", validator=ge(1))
    temperature: float = option(1.0, help="divides the logits; lower is sharper", validator=gt(0.0))
    noise: float = option(0.1, help="standard deviation of the noise on the logits, in training", validator=ge(0.0))
    balance: float = option(0.0, help="weight of the load-balancing loss; 0 for none", validator=ge(0.0))
    softmax_dtype: Literal["float32", "float16"] = option(
        "float32", help="precision of the softmax; float16 rounds as the released code of CoPL does"
    )


@final
@attrs.frozen
class TopKGateOptions(LearnedGateOptions):
    """Options of the gate that keeps several experts."""

    top_k: int = option(2, help="number of experts each user is routed to", validator=ge(1))

    def __attrs_post_init__(self) -> None:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k is {self.top_k}, but there are only {self.num_experts} experts")


@final
@attrs.frozen
class NoisyTopKOptions:
    """Options of noisy top-k gating."""

    num_experts: int = option(8, help="number of routed experts", validator=ge(1))
    top_k: int = option(2, help="number of experts each user is routed to", validator=ge(1))
    balance: float = option(0.01, help="weight of the importance and load losses; 0 for none", validator=ge(0.0))

    def __attrs_post_init__(self) -> None:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k is {self.top_k}, but there are only {self.num_experts} experts")


@final
@attrs.frozen
class ClusterGateOptions:
    """Options of the gate that routes by k-means."""

    num_experts: int = option(4, help="number of routed experts, one for each cluster of users", validator=ge(1))
    restarts: int = option(4, help="runs of k-means, of which the tightest is kept", validator=ge(1))


@final
@attrs.frozen
class OracleGateOptions:
    """Options of the gate that is told the truth."""

    num_experts: int = option(8, help="number of routed experts, at least one for each true group", validator=ge(1))


@final
@attrs.frozen
class UniformGateOptions:
    """Options of the gate that treats all experts alike."""

    num_experts: int = option(8, help="number of routed experts", validator=ge(1))


@final
@attrs.frozen
class RandomGateOptions:
    """Options of the gate that draws each user's expert."""

    num_experts: int = option(8, help="number of routed experts", validator=ge(1))
    seed: int = option(0, help="another seed draws other experts", validator=ge(0))


COMPONENTS: list[Component] = [
    Component(
        "top1",
        LearnedGateOptions,
        "copl.experts.gates.learned:build_top1",
        "each user is routed to one expert, weighted by its softmax probability",
        "CoPL, arXiv:2503.01658",
        presets={"paper": {"softmax_dtype": "float16"}},
    ),
    Component(
        "topk",
        TopKGateOptions,
        "copl.experts.gates.learned:build_topk",
        "each user is routed to several experts, weighted by their softmax probabilities",
        "Fedus et al. 2022, arXiv:2101.03961",
    ),
    Component(
        "softmax",
        LearnedGateOptions,
        "copl.experts.gates.learned:build_softmax",
        "every user mixes all experts (dense)",
        "Jacobs et al. 1991, Adaptive mixtures of local experts",
    ),
    Component(
        "noisy-topk",
        NoisyTopKOptions,
        "copl.experts.gates.noisy:build_noisy",
        "sparse gate with learned noise and balanced load",
        "Shazeer et al. 2017, arXiv:1701.06538",
    ),
    Component(
        "cluster",
        ClusterGateOptions,
        "copl.experts.gates.bound:build_cluster",
        "each user has the expert of its k-means cluster, found before training",
        "MoCLE, Gou et al. 2023, arXiv:2312.12379",
    ),
    Component(
        "oracle",
        OracleGateOptions,
        "copl.experts.gates.bound:build_oracle",
        "each seen user has the expert of its true group, a newcomer that of the nearest seen user (a control)",
    ),
    Component(
        "none", NoOptions, "copl.experts.gates.fixed:build_none", "no routed experts: one LoRA shared by all users"
    ),
    Component(
        "uniform",
        UniformGateOptions,
        "copl.experts.gates.fixed:build_uniform",
        "all experts alike for every user (a control)",
    ),
    Component(
        "random",
        RandomGateOptions,
        "copl.experts.gates.fixed:build_random",
        "each user has one expert drawn at random (a control)",
    ),
]
