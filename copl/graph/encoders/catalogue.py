"""The graph encoders by name, with their options; free of torch, so that the command line can show them at once."""

from __future__ import annotations

from typing import Literal, final

import attrs

from copl.graph.messages.options import MessagePassingOptions, Start
from copl.options import NoOptions, option
from copl.plugins import Component, Range

Formula = Literal["paper", "released"]

Member = Literal["tastes", "latent-groups", "mf", "gcf"]

_positive = attrs.validators.gt(0)

_at_least_one = attrs.validators.ge(1)

_some_positive: object = attrs.validators.deep_iterable(_positive, attrs.validators.min_len(1))

PAPER = {
    "embedding_dim": 512,
    "num_layers": 4,
    "formula": "released",
    "weights": "shared",
    "start": "random",
    "response_bias": False,
    "supervision_share": 0.0,
    "edge_dropout": 0.1,
    "learning_rate": 1e-4,
    "weight_decay": 1e-2,
    "precision": 0.0,
    "l2": 1e-6,
    "schedule": "cosine",
    "sampling": "field",
    "batch_size": 1024,
    "num_epochs": 100,
    "validate_every": 1,
    "patience": None,
    "normalize_users": True,
}
"""The published settings. `supervision_share` 0, `l2` and `normalize_users` are as in the released code."""


@final
@attrs.frozen
class StackedOptions:
    members: tuple[Member, ...] = option(
        ("tastes", "latent-groups", "mf", "gcf"),
        help="encoders to combine, in the order they are tried in, with their default options; gcf refines mf, and"
        " tastes is left out where the method has no texts",
        validator=attrs.validators.min_len(1),
    )
    worthwhile: float = option(
        0.01,
        help="share of the validation loss, or of 0.1 where that is less, by which a member must lower it to be kept,"
        " and for the next to be tried",
        validator=attrs.validators.ge(0),
    )
    max_comparisons: int = option(
        1_000_000,
        help="training comparisons above which the first member beside tastes is the last, to save time",
        validator=attrs.validators.ge(1),
    )
    shrinkage: float = option(
        10.0,
        help="how many comparisons' worth of evidence draws the weights to equal ones",
        validator=attrs.validators.ge(0),
    )
    least_held_out: int = option(
        100,
        help="held-out comparisons below which members are not weighed: the first stands alone",
        validator=attrs.validators.ge(0),
    )


@final
@attrs.frozen
class TastesOptions:
    num_directions: tuple[int, ...] = option(
        (2, 4),
        help="numbers of directions of taste that users have in common, to choose from: the least, or more where"
        " validation loss falls by a tenth",
        validator=attrs.validators.deep_iterable(attrs.validators.ge(0), attrs.validators.min_len(1)),
    )
    isotropic: float = option(
        1.0,
        help="variance of taste in any direction, in units of the mean squared difference of two responses",
        validator=attrs.validators.ge(0),
    )
    direction: float = option(
        2.0,
        help="least variance of the coefficients of a direction of taste",
        validator=attrs.validators.gt(0),
    )
    own: tuple[float, ...] = option(
        (0.03, 0.1, 1.0),
        help="variances, to choose from by validation loss, of what comparisons of a response say beyond its text;"
        " the middle one where nothing is held out",
        validator=_some_positive,
    )
    along: float = option(
        0.01,
        help="share of this variance along directions of taste; all of it where there are more than 20,000 comparisons",
        validator=attrs.validators.and_(attrs.validators.gt(0), attrs.validators.le(1)),
    )
    groups: tuple[int, ...] = option(
        (1, 2, 3, 4, 6, 8),
        help="numbers of groups that users form along the directions, to choose from by evidence; more than one where"
        " validation loss falls by a hundredth",
        validator=attrs.validators.deep_iterable(_at_least_one, attrs.validators.min_len(1)),
    )
    num_axes: int = option(
        256,
        help="coordinates of a text; half as many where there are fewer than 4,000 comparisons",
        validator=attrs.validators.ge(1),
    )


@final
@attrs.frozen
class LatentGroupsOptions:
    num_groups: tuple[int, ...] = option(
        (1, 2, 3, 4, 6, 8, 12),
        help="numbers of groups K to choose from by validation loss",
        validator=attrs.validators.deep_iterable(_at_least_one, attrs.validators.min_len(1)),
    )
    group_precision: tuple[float, ...] = option(
        (8.0, 2.0, 0.5, 0.1),
        help="prior precisions, to choose from by validation loss, of what sets a group's response effects apart",
        validator=_some_positive,
    )
    shared_precision: tuple[float, ...] = option(
        (0.3, 3.0),
        help="prior precisions, to choose from by validation loss, of the response effects that all groups share",
        validator=_some_positive,
    )
    power: tuple[float, ...] = option(
        (1.0, 0.3, 0.1),
        help="exponents of a user's evidence, to choose from by validation loss; below 1 where comparisons of one user "
        "depend on each other",
        validator=_some_positive,
    )
    start: Literal["spectral", "random"] = option(
        "spectral", help="first memberships: clusters of users in the directions they agree in, or drawn at random"
    )
    leave_one_out: bool = option(True, help="judge a user's group by response effects without the user's comparisons")
    num_rounds: int = option(
        30,
        help="rounds of expectation and maximisation for each candidate at most; fewer on graphs of millions",
        validator=_at_least_one,
    )
    final_rounds: int = option(
        100, help="further rounds for the chosen candidate at most", validator=attrs.validators.ge(0)
    )


@final
@attrs.frozen
class GcfOptions(MessagePassingOptions):
    formula: Formula = option("released", help="layers as in the paper, or as in the released code")
    weights: Literal["shared", "separate"] = option(
        "shared", help="one set of weights for users and responses, or one each"
    )
    negative_edges: bool = option(True, help="pass messages over rejected edges too")
    hadamard: bool = option(True, help="keep the terms with the elementwise product of message and node")
    start: Start = option(
        "mf",
        help="before training: embeddings of the encoder mf, which then competes on validation, or singular vectors of "
        "the signed incidence, either with layers that add chosen and subtract rejected neighbours; or everything "
        "random, as published",
    )
    weight_decay: float = option(
        3.0, help="decoupled weight decay; response effects have none", validator=attrs.validators.ge(0)
    )
    precision: float = option(
        10.0, help="prior precision of the embeddings before the first layer", validator=attrs.validators.ge(0)
    )
    num_epochs: int = option(200, help="passes over the comparisons at most", validator=attrs.validators.ge(1))
    patience: int | None = option(
        8,
        help="validations without a lower loss before stopping; none never stops",
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )


@final
@attrs.frozen
class MfOptions:
    embedding_dim: int = option(16, help="embedding dimension D", validator=_at_least_one)
    precision: tuple[float, ...] = option(
        (0.7, 1.0, 1.4, 2.0, 4.0, 8.0),
        help="prior precisions of the embeddings to choose from by validation loss; larger ones keep them smaller",
        validator=attrs.validators.deep_iterable(_positive, attrs.validators.min_len(1)),
    )
    bias_precision: float = option(0.5, help="prior precision of the response effects", validator=_positive)
    learning_rate: float = option(0.05, help="learning rate of Adam", validator=_positive)
    num_steps: int = option(150, help="full-batch steps at most, for each precision", validator=_at_least_one)
    validate_every: int = option(3, help="steps from one validation to the next", validator=_at_least_one)
    patience: int = option(8, help="validations without a lower loss before stopping", validator=_at_least_one)


@final
@attrs.frozen
class LightGcnOptions(MessagePassingOptions):
    negative_edges: bool = option(True, help="subtract the messages over rejected edges")


@final
@attrs.frozen
class NgcfOptions(MessagePassingOptions):
    negative_edges: bool = option(True, help="pass messages over rejected edges, with weights of their own")
    dropout: float = option(
        0.1,
        help="share of each layer's output set to 0 in training",
        validator=attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.lt(1.0)),
    )


@final
@attrs.frozen
class SignedGcnOptions(MessagePassingOptions):
    def __attrs_post_init__(self) -> None:
        if self.embedding_dim % 2:
            raise ValueError("embedding_dim must be even: half of it is for friends, half for foes")


@final
@attrs.frozen
class GatOptions(MessagePassingOptions):
    num_heads: int = option(2, help="attention heads, each D / num_heads wide", validator=attrs.validators.ge(1))

    def __attrs_post_init__(self) -> None:
        if self.embedding_dim % self.num_heads:
            raise ValueError("num_heads must divide embedding_dim")


@final
@attrs.frozen
class SpectralOptions:
    embedding_dim: int = option(8, help="number of singular vectors at most", validator=attrs.validators.ge(1))
    smoothing: tuple[int, ...] = option(
        (0, 1, 2),
        help="how often to spread users' embeddings over responses and back, to choose from by validation loss",
        validator=attrs.validators.deep_iterable(attrs.validators.ge(0), attrs.validators.min_len(1)),
    )


@final
@attrs.frozen
class FreeUsersOptions:
    embedding_dim: int = option(16, help="embedding dimension D", validator=attrs.validators.ge(1))
    scale: float = option(0.1, help="standard deviation of the first values", validator=attrs.validators.gt(0))


COMPONENTS: list[Component] = [
    Component(
        name="stacked",
        options=StackedOptions,
        build="copl.graph.encoders.stacked:Stacked",
        summary="tastes in texts, latent groups, factors and message passing, weighted by held-out likelihood",
        reference="Wolpert, Stacked generalization, Neural Networks 5, 1992",
        search={"worthwhile": Range.around(0.01, 5.0), "shrinkage": Range.around(10.0, 5.0)},
    ),
    Component(
        name="tastes",
        options=TastesOptions,
        build="copl.graph.encoders.tastes:Tastes",
        summary="users by what they read: directions of taste and taste in any direction of the texts",
        reference="Wang and Blei, Collaborative topic modeling for recommending scientific articles, KDD 2011",
        search={
            name: Range.around(value, 4.0) for name, value in (("isotropic", 1.0), ("direction", 2.0), ("own", 0.1))
        },
    ),
    Component(
        name="latent-groups",
        options=LatentGroupsOptions,
        build="copl.graph.encoders.latent_groups:LatentGroupsEncoder",
        summary="latent groups of users by expectation-maximisation, each user judged by the others' comparisons",
        reference="Krzakala et al., Spectral redemption in clustering sparse networks, arXiv 1306.5550 (leave-one-out)",
        formerly=("mixture",),
    ),
    Component(
        name="gcf",
        options=GcfOptions,
        build="copl.graph.encoders.gcf:build",
        summary="CoPL's graph collaborative filtering: signed message passing between users and responses",
        reference="CoPL, arXiv 2503.01658",
        presets={"paper": PAPER},
    ),
    Component(
        name="mf",
        options=MfOptions,
        build="copl.graph.encoders.mf:Mf",
        summary="matrix factorisation of comparisons with response effects; its regularisation chosen by validation",
        reference="Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, arXiv 1205.2618",
    ),
    Component(
        name="lightgcn",
        options=LightGcnOptions,
        build="copl.graph.encoders.lightgcn:build",
        summary="light graph convolution: the mean of a few rounds of signed messages, without weights",
        reference="He et al. 2020, LightGCN, arXiv 2002.02126",
    ),
    Component(
        name="ngcf",
        options=NgcfOptions,
        build="copl.graph.encoders.ngcf:build",
        summary="neural graph collaborative filtering: messages with weights and products, all layers side by side",
        reference="Wang et al. 2019, Neural Graph Collaborative Filtering, arXiv 1905.08108",
    ),
    Component(
        name="signed-gcn",
        options=SignedGcnOptions,
        build="copl.graph.encoders.signed_gcn:build",
        summary="signed graph convolution: embeddings of friends and of foes by balance theory",
        reference="Derr, Ma and Tang 2018, Signed Graph Convolutional Network, arXiv 1808.06354",
    ),
    Component(
        name="gat",
        options=GatOptions,
        build="copl.graph.encoders.gat:build",
        summary="graph attention over chosen and over rejected responses",
        reference="Brody, Alon and Yahav 2022, How Attentive are Graph Attention Networks?, arXiv 2105.14491",
    ),
    Component(
        name="spectral",
        options=SpectralOptions,
        build="copl.graph.encoders.spectral:Spectral",
        summary="singular vectors of the signed incidence beside response effects; no training",
        reference="Sarwar et al. 2000, Application of Dimensionality Reduction in Recommender System",
    ),
    Component(
        name="id",
        options=FreeUsersOptions,
        build="copl.graph.encoders.id:FreeUsers",
        summary="a free embedding for each user id, trained with the reward model; nothing from the graph",
        reference="the baseline I2E of CoPL, arXiv 2503.01658",
    ),
    Component(
        name="none",
        options=NoOptions,
        build="copl.graph.encoders.none:NoGraph",
        summary="no graph: the same embedding for every user and Bradley-Terry response effects",
        reference="Bradley and Terry 1952, Rank Analysis of Incomplete Block Designs",
        personal=False,
    ),
]
