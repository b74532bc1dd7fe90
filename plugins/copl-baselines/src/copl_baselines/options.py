"""The options of the methods, of which those on training are the same in all; free of torch."""

from __future__ import annotations

from typing import Literal, final

from attrs import frozen, validators

from copl.options import option

LEARNING_RATE = "learning rate of AdamW"
WEIGHT_DECAY = "weight decay of AdamW"
MAX_STEPS = "optimiser steps at most"
PATIENCE = "looks without a lower validation loss before training stops"
BATCH_SIZE = "comparisons in one step; 0 takes all of them in each"

LEAST_CONTEXT = "least share of a user's comparisons that is shown in a training step; the others are explained"


@frozen
class TrainingOptions:
    """How a model on frozen features is trained: what the options of each method derive from."""

    learning_rate: float = option(1e-3, help=LEARNING_RATE, validator=validators.gt(0))
    weight_decay: float = option(0.01, help=WEIGHT_DECAY, validator=validators.ge(0))
    batch_size: int = option(1024, help=BATCH_SIZE, validator=validators.ge(0))
    max_steps: int = option(1000, help=MAX_STEPS, validator=validators.ge(1))
    eval_every: int = option(10, help="steps between two looks at the validation split", validator=validators.ge(1))
    patience: int = option(20, help=PATIENCE, validator=validators.ge(1))
    max_length: int = option(
        256,
        help="tokens of prompt and response together that the frozen backbone reads",
        validator=validators.ge(8),
    )


@final
@frozen
class DplOptions(TrainingOptions):
    distribution: Literal["mean-variance", "categorical"] = option(
        "mean-variance", help="how the reward of a response is distributed: normal, or over atoms"
    )
    weight_decay: float = option(1.0, help=WEIGHT_DECAY, validator=validators.ge(0))
    width: int = option(32, help="hidden units of the head; 0 makes it linear", validator=validators.ge(0))
    dropout: float = option(0.3, help="dropout in the head", validator=[validators.ge(0), validators.lt(1)])
    num_atoms: int = option(10, help="atoms of the categorical distribution", validator=validators.ge(2))
    entropy_weight: float = option(
        0.1, help="bonus for the entropy of the mean categorical distribution", validator=validators.ge(0)
    )
    variance_penalty: float = option(0.0, help="penalty of the mean variance", validator=validators.ge(0))


@frozen
class IdOptions(TrainingOptions):
    """Options of both methods."""

    learning_rate: float = option(5e-3, help=LEARNING_RATE, validator=validators.gt(0))
    weight_decay: float = option(0.3, help=WEIGHT_DECAY, validator=validators.ge(0))
    embedding_dim: int = option(16, help="size of a user's embedding", validator=validators.ge(1))
    head: Literal["bilinear", "mlp"] = option(
        "mlp", help="how the embedding conditions the reward: linear in both, or an MLP over feature and embedding"
    )
    width: int = option(64, help="hidden units of each of the two layers of an mlp head", validator=validators.ge(1))
    dropout: float = option(0.1, help="dropout in an mlp head", validator=[validators.ge(0), validators.lt(1)])
    embedding_decay: float = option(0.1, help="weight decay of the users' embeddings", validator=validators.ge(0))


@final
@frozen
class I2eOptions(IdOptions):
    adapt_steps: int = option(50, help="steps on the embedding of an unseen user", validator=validators.ge(1))
    adapt_learning_rate: float = option(0.05, help="learning rate of these steps", validator=validators.gt(0))


@final
@frozen
class I2eProxyOptions(IdOptions):
    pass


@final
@frozen
class GroupOracleOptions(TrainingOptions):
    learning_rate: float = option(3e-3, help=LEARNING_RATE, validator=validators.gt(0))
    group_decay: float = option(
        0.1, help="weight decay of what sets a group's model apart from the others'", validator=validators.ge(0)
    )


@final
@frozen
class VplOptions(TrainingOptions):
    learning_rate: float = option(1e-3, help=LEARNING_RATE, validator=validators.gt(0))
    weight_decay: float = option(0.1, help=WEIGHT_DECAY, validator=validators.ge(0))
    max_steps: int = option(2000, help=MAX_STEPS, validator=validators.ge(1))
    patience: int = option(40, help=PATIENCE, validator=validators.ge(1))
    latent_dim: int = option(32, help="size of the latent vector", validator=validators.ge(1))
    width: int = option(64, help="hidden units of each layer of encoder and reward", validator=validators.ge(1))
    dropout: float = option(0.1, help="dropout in encoder and reward", validator=[validators.ge(0), validators.lt(1)])
    least_context: float = option(
        0.5,
        help="least share of a user's comparisons that is encoded in a training step",
        validator=[validators.ge(0), validators.lt(1)],
    )
    kl_weight: float = option(1e-3, help="beta: weight of the divergence from the prior", validator=validators.ge(0))
    num_cycles: int = option(4, help="cycles in which beta rises from 0 to its value", validator=validators.ge(1))


@frozen
class PalOptions(TrainingOptions):
    """Options of both methods."""

    learning_rate: float = option(3e-3, help=LEARNING_RATE, validator=validators.gt(0))
    weight_decay: float = option(0.3, help=WEIGHT_DECAY, validator=validators.ge(0))
    num_prototypes: int = option(4, help="prototypes a user mixes", validator=validators.ge(1))
    preference_dim: int = option(64, help="size of the space of preferences", validator=validators.ge(1))
    width: int = option(64, help="hidden units of each projection", validator=validators.ge(1))
    dropout: float = option(0.1, help="dropout in the projections", validator=[validators.ge(0), validators.lt(1)])
    user_learning_rate: float = option(
        0.05, help="learning rate of the weights of seen users", validator=validators.gt(0)
    )
    adapt_steps: int = option(50, help="steps on the weights of an unseen user", validator=validators.ge(1))
    adapt_learning_rate: float = option(0.2, help="learning rate of these steps", validator=validators.gt(0))


@final
@frozen
class PalAOptions(PalOptions):
    hinge_margin: float = option(1.0, help="margin below which a comparison costs", validator=validators.gt(0))


@final
@frozen
class PalBOptions(PalOptions):
    pass


@final
@frozen
class LoreOptions(TrainingOptions):
    learning_rate: float = option(0.5, help=LEARNING_RATE, validator=validators.gt(0))
    weight_decay: float = option(0.05, help=WEIGHT_DECAY, validator=validators.ge(0))
    batch_size: int = option(0, help=BATCH_SIZE, validator=validators.ge(0))
    num_bases: int = option(8, help="basis rewards", validator=validators.ge(1))
    margin_scale: float = option(0.01, help="factor on f^T V", validator=validators.gt(0))
    adapt_steps: int = option(500, help="steps on the weights of an unseen user", validator=validators.ge(1))
    adapt_learning_rate: float = option(0.5, help="learning rate of these steps", validator=validators.gt(0))


@final
@frozen
class PrlhfOptions(TrainingOptions):
    learning_rate: float = option(3e-3, help=LEARNING_RATE, validator=validators.gt(0))
    weight_decay: float = option(1.0, help=WEIGHT_DECAY, validator=validators.ge(0))
    user_model: Literal["individual", "cluster"] = option(
        "individual", help="a user's tokens: an offset from the generic ones, or a mixture of clusters' tokens"
    )
    num_tokens: int = option(10, help="soft tokens of a user", validator=validators.ge(1))
    num_clusters: int = option(8, help="clusters of which a user is a mixture", validator=validators.ge(1))
    token_dim: int = option(32, help="size of a token; a multiple of num_heads", validator=validators.ge(1))
    num_heads: int = option(4, help="heads of the attention", validator=validators.ge(1))
    dropout: float = option(0.3, help="dropout in the layer", validator=[validators.ge(0), validators.lt(1)])
    user_decay: float = option(3.0, help="weight decay of the offsets of users", validator=validators.ge(0))
    user_learning_rate: float = option(
        0.05, help="learning rate of the users' weights over clusters", validator=validators.gt(0)
    )
    personal_share: float = option(
        0.5, help="alpha: share of the loss with the user's own tokens", validator=[validators.gt(0), validators.le(1)]
    )

    def __attrs_post_init__(self) -> None:
        if self.token_dim % self.num_heads:
            raise ValueError(f"token_dim {self.token_dim} is not a multiple of num_heads {self.num_heads}")


@final
@frozen
class PrefOptions(TrainingOptions):
    learning_rate: float = option(3e-3, help=LEARNING_RATE, validator=validators.gt(0))
    weight_decay: float = option(10.0, help=WEIGHT_DECAY, validator=validators.ge(0))
    num_bases: int = option(5, help="base rewards", validator=validators.ge(1))
    width: int = option(0, help="hidden units of an MLP beside the linear part; 0: none", validator=validators.ge(0))
    dropout: float = option(0.1, help="dropout in that MLP", validator=[validators.ge(0), validators.lt(1)])
    seen_ridge: float = option(
        0.02, help="lambda of the seen users: penalty of their mean squared coefficients", validator=validators.ge(0)
    )
    ridge: float = option(3.0, help="lambda of an unseen user's estimate", validator=validators.gt(0))


@final
@frozen
class MrmOptions(TrainingOptions):
    learning_rate: float = option(3e-3, help=LEARNING_RATE, validator=validators.gt(0))
    weight_decay: float = option(0.1, help=WEIGHT_DECAY, validator=validators.ge(0))
    num_bases: int = option(16, help="base rewards", validator=validators.ge(1))
    inner_rate: float = option(15.0, help="alpha: rate of an inner step", validator=validators.gt(0))
    inner_steps: int = option(1, help="inner steps", validator=validators.ge(1))
    least_context: float = option(0.5, help=LEAST_CONTEXT, validator=[validators.ge(0), validators.lt(1)])
    hard_share: float = option(
        0.5, help="rho: share of users taken as hard to learn", validator=[validators.gt(0), validators.le(1)]
    )
    smoothing: float = option(
        0.5, help="gamma: how gradually users count more; 0 leaves out the others", validator=validators.ge(0)
    )


@final
@frozen
class GpoOptions(TrainingOptions):
    learning_rate: float = option(1e-3, help=LEARNING_RATE, validator=validators.gt(0))
    weight_decay: float = option(0.1, help=WEIGHT_DECAY, validator=validators.ge(0))
    max_steps: int = option(1000, help=MAX_STEPS, validator=validators.ge(1))
    max_context: int = option(16, help="comparisons of a user that are read, the last ones", validator=validators.ge(1))
    point_dim: int = option(32, help="size of a point; a multiple of num_heads", validator=validators.ge(1))
    num_layers: int = option(2, help="layers of the transformer", validator=validators.ge(1))
    num_heads: int = option(4, help="heads of its attention", validator=validators.ge(1))
    dropout: float = option(0.1, help="dropout in the transformer", validator=[validators.ge(0), validators.lt(1)])
    least_context: float = option(0.5, help=LEAST_CONTEXT, validator=[validators.ge(0), validators.lt(1)])

    def __attrs_post_init__(self) -> None:
        if self.point_dim % self.num_heads:
            raise ValueError(f"point_dim {self.point_dim} is not a multiple of num_heads {self.num_heads}")


@final
@frozen
class PtttOptions(TrainingOptions):
    learning_rate: float = option(1e-3, help=LEARNING_RATE, validator=validators.gt(0))
    weight_decay: float = option(10.0, help=WEIGHT_DECAY, validator=validators.ge(0))
    width: int = option(32, help="hidden units M of the MLP: size of a key", validator=validators.ge(1))
    output_dim: int = option(32, help="outputs D of the MLP, which the head reads", validator=validators.ge(1))
    dropout: float = option(0.1, help="dropout on the features", validator=[validators.ge(0), validators.lt(1)])
    fast_rate: float = option(0.1, help="eta: rate of the updates", validator=validators.gt(0))
    least_context: float = option(0.5, help=LEAST_CONTEXT, validator=[validators.ge(0), validators.lt(1)])
