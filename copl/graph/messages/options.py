"""The options that all encoders which pass messages share."""

from __future__ import annotations

from typing import Literal

import attrs

from copl.options import option

_positive = attrs.validators.gt(0)
_at_least_one = attrs.validators.ge(1)
_not_negative = attrs.validators.ge(0)
_share = attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.lt(1.0))

Start = Literal["spectral", "mf", "random"]


@attrs.frozen
class MessagePassingOptions:
    """Options of every encoder that passes messages."""

    embedding_dim: int = option(16, help="embedding dimension D before the first layer", validator=_at_least_one)
    num_layers: int = option(2, help="number of message-passing layers", validator=_at_least_one)
    start: Start = option(
        "spectral",
        help="embeddings before training: singular vectors of the signed incidence; embeddings of the encoder mf, "
        "which then competes on validation; or random",
    )
    response_bias: bool = option(True, help="learn what all users share about a response")
    response_features: bool = option(
        False, help="add a learned linear map of the responses' text embeddings to their free embeddings"
    )
    supervision_share: float = option(
        0.5,
        help="share of the comparisons drawn each step as supervision and taken out of the message graph; where a step "
        "sees some comparisons only, all of them are; 0 supervises by comparisons while they are edges",
        validator=_share,
    )
    edge_dropout: float = option(0.0, help="share of edges dropped at random in training", validator=_share)
    learning_rate: float = option(1e-2, help="learning rate of Adam", validator=_positive)
    schedule: Literal["constant", "cosine"] = option(
        "constant", help="learning rate over time; cosine is warmed up over the first tenth"
    )
    weight_decay: float = option(
        0.01,
        help="decoupled weight decay of layers and embeddings, of the layers alone where a step sees a part of the "
        "graph; response effects have none",
        validator=_not_negative,
    )
    precision: float = option(
        1.0, help="prior precision of the embeddings before the first layer", validator=_not_negative
    )
    bias_precision: float = option(0.5, help="prior precision of the response effects", validator=_not_negative)
    l2: float = option(
        0.0, help="weight of the squared embeddings of each comparison in the loss", validator=_not_negative
    )
    num_epochs: int = option(300, help="passes over the comparisons at most", validator=_at_least_one)
    validate_every: int = option(5, help="epochs from one validation to the next", validator=_at_least_one)
    patience: int | None = option(
        10,
        help="validations without a lower loss before stopping; none never stops",
        validator=attrs.validators.optional(_at_least_one),
    )
    sampling: Literal["full", "field", "users", "neighbours"] = option(
        "full",
        help="what a step sees: the whole graph; all that reaches some comparisons (the same result for less); the "
        "graph of some users; or, with pyg-lib installed, sampled neighbours of some comparisons",
    )
    batch_size: int = option(
        4096, help="comparisons that supervise a step, where it does not see the whole graph", validator=_at_least_one
    )
    num_neighbours: int = option(
        15,
        help="neighbours drawn for each node, sign and layer with sampling = neighbours; -1 takes all",
        validator=attrs.validators.and_(attrs.validators.ge(-1), attrs.validators.not_(attrs.validators.in_([0]))),
    )
    normalize_users: bool = option(
        False, help="scale each user's embedding to length 1 in the end; needs response_bias = false"
    )

    def __attrs_post_init__(self) -> None:
        if self.normalize_users and self.response_bias:
            raise ValueError("normalize_users needs response_bias = false: the margin would lose its proportions")
