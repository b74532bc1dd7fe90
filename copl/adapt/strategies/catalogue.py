"""The adaptation strategies by name, with their options; free of torch, for the command line to show at once."""

from __future__ import annotations

from typing import final

import attrs

from copl.options import NoOptions, option
from copl.plugins import Component

NAME = "empirical"


@final
@attrs.frozen
class TwoHopOptions:
    temperature: float = option(
        0.07,
        help="temperature of the softmax over neighbours; small values follow those who agree most",
        validator=attrs.validators.gt(0),
    )
    response_bias: bool = option(
        True,
        help="whether what all users share about a response takes part in the agreement; the paper has no such term",
    )


@final
@attrs.frozen
class KnnOptions:
    num_neighbours: int = option(
        50,
        help="seen users who take part at most; those just as similar as the last one do, too",
        validator=attrs.validators.ge(1),
    )


@final
@attrs.frozen
class PosteriorOptions:
    prior_scale: float = option(
        2.0,
        help="factor on the seen users' covariance, which is the prior; above 1 since they were drawn to their mean",
        validator=attrs.validators.gt(0),
    )


@final
@attrs.frozen
class EmpiricalOptions:
    num_points: int | None = option(
        256,
        help="points that the seen users are condensed to, by k-means once for each trained set; none keeps every user",
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )
    sharpness: float = option(
        1.5,
        help="factor on the seen users' embeddings in the likelihood; above 1 since they were drawn to their mean",
        validator=attrs.validators.gt(0),
    )


@final
@attrs.frozen
class RefitOptions:
    num_steps: int = option(30, help="gradient steps (Adam)", validator=attrs.validators.ge(1))
    learning_rate: float = option(
        0.2, help="learning rate, as a share of the seen users' standard deviation", validator=attrs.validators.gt(0)
    )
    precision: float = option(
        0.3,
        help="pull towards the mean of the seen users, as a share of the precision of their distribution",
        validator=attrs.validators.ge(0),
    )


COMPONENTS: list[Component] = [
    Component(
        name="two-hop",
        options=TwoHopOptions,
        build="copl.adapt.strategies.two_hop:TwoHop",
        summary="seen users who share a chosen response, weighted by how well they explain the newcomer's comparisons",
        reference="CoPL, arXiv 2503.01658",
        presets={"paper": {"temperature": 0.07, "response_bias": False}},
    ),
    Component(
        name="mean",
        options=NoOptions,
        build="copl.adapt.strategies.mean:Mean",
        summary="plain mean of the seen users who share a chosen response",
        reference="CoPL, arXiv 2503.01658",
    ),
    Component(
        name="knn",
        options=KnnOptions,
        build="copl.adapt.strategies.knn:Knn",
        summary="seen users with the most similar signed histories (cosine), weighted by similarity",
        reference="Resnick et al., GroupLens: An Open Architecture for Collaborative Filtering of Netnews, 1994",
    ),
    Component(
        name="posterior",
        options=PosteriorOptions,
        build="copl.adapt.strategies.posterior:Posterior",
        summary="Bayesian estimate from the newcomer's comparisons, with the seen users as prior; knows how sure it is",
        reference="Rasmussen and Williams, Gaussian Processes for Machine Learning, section 3.4 (Laplace)",
    ),
    Component(
        name=NAME,
        options=EmpiricalOptions,
        build="copl.adapt.strategies.empirical:Empirical",
        summary="Bayesian estimate with the seen users themselves as the prior; needs no shared response",
        reference="Robbins, An empirical Bayes approach to statistics, 1956",
    ),
    Component(
        name="encode",
        options=NoOptions,
        build="copl.adapt.strategies.encode:Encode",
        summary="one pass of the trained encoder over the newcomer's comparisons, or a linear map learnt in its place",
        reference="Hamilton et al., Inductive Representation Learning on Large Graphs, arXiv 1706.02216",
    ),
    Component(
        name="refit",
        options=RefitOptions,
        build="copl.adapt.strategies.refit:Refit",
        summary="a few gradient steps on the newcomer's comparisons: the baseline that needs optimisation",
        reference="Kingma and Ba, Adam: A Method for Stochastic Optimization, arXiv 1412.6980",
    ),
    Component(
        name="population",
        options=NoOptions,
        build="copl.adapt.strategies.population:Population",
        summary="the mean of all seen users, without a look at the comparisons: the floor for the others",
    ),
]
