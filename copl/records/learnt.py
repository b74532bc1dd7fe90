"""What is learnt from, and what was learnt: the graph, embeddings of users and responses, adapted users, their inside.

Shapes: U users, R responses, D embedding dimension, N newcomers, M experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, final

from attrs import field, frozen

from copl.records.tables import Comparisons, FloatArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records.memory import Memory
    from copl.records.passes import NewcomerPass, TextMap


@final
@frozen(eq=False)
class PreferenceGraph:
    """The bipartite preference graph an encoder learns from: users and responses, chosen (+) and rejected (-) edges.

    Attributes:
        user_ids: ids of the seen users [U]; comparisons refer to these rows.
        response_keys: keys of the responses [R].
        comparisons: the training comparisons; each is one chosen edge and one rejected edge.
        validation: comparisons of the same users for early stopping; never edges of the graph.
        response_features: text embeddings of the responses [R, F], where an encoder is to use them.
    """

    user_ids: tuple[str, ...]
    response_keys: tuple[str, ...]
    comparisons: Comparisons
    validation: Comparisons = field(factory=Comparisons.empty)
    response_features: Tensor | None = None

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_responses(self) -> int:
        return len(self.response_keys)


@final
@frozen(eq=False)
class NodeEmbeddings:
    """What an encoder has learnt: an embedding for each user and response, and what adaptation needs.

    The margin of a comparison is e_u . (e_chosen - e_rejected) + b_chosen - b_rejected, the log-odds of the choice.

    Attributes:
        user_ids: ids of the seen users [U].
        response_keys: keys of the responses [R].
        users: user embeddings [U, D].
        responses: response embeddings [R, D].
        response_bias: what all users share about a response [R]; zeros where the encoder has no such term.
        comparisons: the training comparisons, rows as in `user_ids` and `response_keys`.
        newcomer_pass: how to embed a user who was not there in training, where the encoder can (`copl.records.passes`).
        trainable_users: the user embeddings are but a start, for the reward model to train with its own weights.
        text_map: how to embed a response by its text, where the encoder has read texts.
        memory: what `GraphEncoder.fit_from` goes on from, where the encoder can; not needed to score.
        places_newcomers: false where a user who was not there in training cannot be placed by their comparisons, so
            that every newcomer gets the mean of the seen users.
    """

    user_ids: tuple[str, ...]
    response_keys: tuple[str, ...]
    users: Tensor
    responses: Tensor
    response_bias: Tensor
    comparisons: Comparisons
    newcomer_pass: NewcomerPass | None = None
    trainable_users: bool = False
    text_map: TextMap | None = None
    memory: Memory | None = None
    places_newcomers: bool = True

    @property
    def dim(self) -> int:
        """Embedding dimension D."""
        return int(self.users.shape[1])

    @cached_property
    def user_rows(self) -> Mapping[str, int]:
        """Row of each user id."""
        return {user: row for row, user in enumerate(self.user_ids)}

    @cached_property
    def response_rows(self) -> Mapping[str, int]:
        """Row of each response key."""
        return {key: row for row, key in enumerate(self.response_keys)}


@final
@frozen(eq=False)
class AdaptedUsers:
    """Embeddings of users never seen in training, in the space of `NodeEmbeddings.users`.

    Attributes:
        user_ids: ids of the newcomers [N].
        embeddings: their embeddings [N, D], always finite.
        how: how each was obtained: the strategy's name, or the fallback that was used [N].
        num_neighbours: how many seen users took part [N].
        confidence: how sure the estimate is, 0 (nothing known) to 1 [N].
        run: fingerprint of the run they were adapted for, empty where none is known.
    """

    user_ids: tuple[str, ...]
    embeddings: Tensor
    how: tuple[str, ...]
    num_neighbours: IntArray
    confidence: FloatArray
    run: str = ""

    @cached_property
    def user_rows(self) -> Mapping[str, int]:
        """Row of each user id."""
        return {user: row for row, user in enumerate(self.user_ids)}

    @cached_property
    def known(self) -> frozenset[str]:
        """Ids of those of whom something is known; what the others have said tells nothing to what was trained."""
        return frozenset(user for user, sure in zip(self.user_ids, self.confidence.tolist(), strict=True) if sure > 0)


@final
@frozen(eq=False)
class GateWeights:
    """What a gate decides for a batch of users.

    Attributes:
        weights: weight of each routed expert [B, M], not negative.
        aux_loss: loss to add in training, such as load balancing [].
    """

    weights: Tensor
    aux_loss: Tensor


@final
@frozen(eq=False)
class TokenBatch:
    """Texts as tokens.

    Attributes:
        input_ids: token ids [B, L].
        attention_mask: 1 for tokens, 0 for padding on either side [B, L].
    """

    input_ids: Tensor
    attention_mask: Tensor


@final
@frozen(eq=False)
class Diagnostics:
    """What a fitted method can show of its inside; every field may be absent.

    Attributes:
        user_ids: ids of the users shown [U].
        user_embeddings: their embeddings [U, D].
        expert_weights: gate weights of the same users [U, M].
        notes: findings in words, such as a collapsed gate.
    """

    user_ids: tuple[str, ...] = ()
    user_embeddings: FloatArray | None = None
    expert_weights: FloatArray | None = None
    notes: tuple[str, ...] = ()
