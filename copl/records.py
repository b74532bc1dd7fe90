"""Frozen records that the stages hand to each other.

Rows and ids: inside one record, users and responses are numbered by their row in a table that travels with the numbers
(`UserTable`, `ResponseTable`). Between records and on disk, a user is known by its own id and a response by its key,
never by a row.

Shapes: U users, R responses, N comparisons, D embedding dimension, B batch, L tokens, M experts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np
from attrs import evolve, field, frozen

from copl.judgements import Judgements
from copl.system.converters import int_array, number_rows
from copl.tables import NOBODY, BoolArray, Comparisons, FloatArray, IntArray, ResponseTable, UserTable, response_key

if TYPE_CHECKING:
    from torch import Tensor

    from copl.memory import Memory
    from copl.passes import NewcomerPass, TextMap

__all__ = [
    "NOBODY", "SPLITS", "AdaptedUsers", "BoolArray", "ComparisonSet", "Comparisons", "Diagnostics", "FloatArray",
    "GateWeights", "IntArray", "Measurement", "NodeEmbeddings", "PreferenceData", "PreferenceGraph", "ResponseTable",
    "ScoreRequests", "TokenBatch", "UserTable", "response_key",
]  # fmt: skip

SPLITS: Mapping[str, str] = {
    "train": "comparisons of seen users that the model learns from",
    "validation": "comparisons of seen users that choose options and stop training",
    "test": "held-out comparisons of seen users",
    "cold": "comparisons of seen users on responses or prompts never trained on",
    "support": "the few comparisons that unseen users give",
    "heldout": "comparisons that unseen users are judged by",
}
"""The splits a data set may have, with what each is for."""


@final
@frozen(eq=False)
class ComparisonSet:
    """Comparisons together with the tables their rows refer to: what a stage receives.

    Attributes:
        users: the users referred to.
        responses: the responses referred to.
        comparisons: the comparisons.
        features: frozen features of the responses' texts [R, F], where somebody has read them; rows of responses that
            nothing refers to may be anything.
        judgements: what the same users said otherwise.
        num_given: how many of the comparisons, the first ones, are not implied by the judgements; None for all.
    """

    users: UserTable
    responses: ResponseTable
    comparisons: Comparisons
    features: Tensor | None = None
    judgements: Judgements = field(factory=Judgements.empty)
    num_given: int | None = None

    def __len__(self) -> int:
        return len(self.comparisons)

    @property
    def says_nothing(self) -> bool:
        """Whether there is neither a comparison nor a judgement."""
        return not len(self.comparisons) and not len(self.judgements)

    @property
    def given(self) -> Comparisons:
        """The comparisons that are not implied by the judgements."""
        return self.comparisons if self.num_given is None else self.comparisons.take(np.arange(self.num_given))

    @property
    def told_apart(self) -> BoolArray:
        """Which comparisons say that one of two responses to the same prompt is better than the other [N].

        Judgements imply others as well: thumbs and ratings compare responses to different prompts, and a tie goes both
        ways. They have a meaning as numbers, and none to a person who reads them.
        """
        rows, prompts = self.comparisons, self.responses.prompt_rows
        ends = np.concatenate([rows.chosen, rows.rejected]), np.concatenate([rows.rejected, rows.chosen])
        said, reverse = np.split(number_rows(np.tile(rows.user, 2), *ends), 2)
        mask: BoolArray = (prompts[rows.chosen] == prompts[rows.rejected]) & ~np.isin(said, reverse)
        return mask

    @property
    def speakers(self) -> tuple[str, ...]:
        """Ids of the users who have compared or judged something, in the order of the table."""
        rows = np.unique(np.concatenate([self.comparisons.user, self.judgements.user]))
        return tuple(self.users.ids[row] for row in rows.tolist())

    def of_user(self, user_id: str) -> ComparisonSet:
        """Return what one user says; nothing where the user is not there. The responses stay as they are."""
        row = self.users.rows.get(user_id, -1)
        group = self.users.groups[row] if row >= 0 else None
        own = self._of(self.comparisons.user == row, self.judgements.user == row)
        users, responses = np.zeros(len(self.users), dtype=np.int64), np.arange(len(self.responses))
        return evolve(
            own,
            users=UserTable([user_id], [group]),
            comparisons=own.comparisons.renumbered(users, responses),
            judgements=own.judgements.renumbered(users, responses),
        )

    def take(self, rows: IntArray | BoolArray) -> ComparisonSet:
        """Return the set with some of the comparisons (ascending rows or a mask), and all judgements.

        Where there are judgements, what they imply follows from all of them still.
        """
        return self._of(rows, np.ones(len(self.judgements), dtype=np.bool_))

    def _of(self, rows: IntArray | BoolArray, judged: BoolArray) -> ComparisonSet:
        given = self.num_given
        if given is not None:
            given = int(np.count_nonzero(np.arange(len(self))[rows] < given))
        return evolve(
            self, comparisons=self.comparisons.take(rows), judgements=self.judgements.take(judged), num_given=given
        )


@final
@frozen(eq=False)
class PreferenceData:
    """A data set: users, responses and the comparisons of each split.

    Attributes:
        name: short name, for tables.
        users: all users, seen and unseen.
        responses: all responses of all splits.
        splits: comparisons by split name (see `SPLITS`); a split without comparisons may be missing.
        provenance: where the data came from: source, options, counts, licence, versions; plain JSON values.
        judgements: ties, thumbs and ratings by split name.
    """

    name: str
    users: UserTable
    responses: ResponseTable
    splits: Mapping[str, Comparisons]
    provenance: Mapping[str, Any] = field(factory=dict)
    judgements: Mapping[str, Judgements] = field(factory=dict)

    def split(self, name: str) -> ComparisonSet:
        """Return one split with the tables of the data set; empty where the data set has no such split.

        What judgements imply as comparisons (`copl.evidence.implied`) follows those that are given.
        """
        if name in self.judgements:
            return self._judged[name]
        return ComparisonSet(self.users, self.responses, self.splits.get(name, Comparisons.empty()))

    @cached_property
    def _judged(self) -> Mapping[str, ComparisonSet]:
        """The splits that have judgements, with what these imply."""
        from copl.evidence import with_implied

        return {
            name: with_implied(self.users, self.responses, self.splits.get(name, Comparisons.empty()), judged)
            for name, judged in self.judgements.items()
        }

    def digest(self, *splits: str) -> str:
        """Return a hash of the named splits, with the ids and keys of all users and responses."""
        digest = hashlib.sha256()
        for names in (self.users.ids, self.responses.keys):
            digest.update("\x00".join(names).encode("utf-8", "surrogatepass"))
            digest.update(b"\x01")
        for split in splits:
            rows = self.split(split).comparisons
            digest.update(split.encode())
            for column in (rows.user, rows.chosen, rows.rejected, rows.weight):
                digest.update(column.tobytes())
            if np.isfinite(rows.time).any():
                digest.update(rows.time.tobytes())
            for values in self.judgements.get(split, Judgements.empty()).columns():
                digest.update(values.tobytes())
        return digest.hexdigest()

    def present(self) -> Iterator[str]:
        """Yield the names of the splits that hold comparisons, in the order of `SPLITS`."""
        return (name for name in SPLITS if len(self.splits.get(name, ())) > 0)

    def evidence(self) -> Iterator[str]:
        """Yield the names of the splits that hold comparisons or judgements, in the order of `SPLITS`."""
        parts = (self.splits, self.judgements)
        return (name for name in SPLITS if any(len(part.get(name, ())) for part in parts))


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
        newcomer_pass: how to embed a user who was not there in training, where the encoder can (`copl.passes`).
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
class ScoreRequests:
    """Pairs of a user and a response to be scored.

    Attributes:
        users: the users referred to.
        responses: the responses referred to.
        user: row of the user of each request [N].
        response: row of the response of each request [N].
    """

    users: UserTable
    responses: ResponseTable
    user: IntArray = field(converter=int_array)
    response: IntArray = field(converter=int_array)

    def __len__(self) -> int:
        return len(self.user)


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
@frozen
class Measurement:
    """One number of an evaluation.

    Attributes:
        split: the split measured on.
        subset: "all", or the part of the split: "controversial", "common", a group, a number of comparisons.
        metric: name of the metric.
        value: the estimate.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        count: number of comparisons (or users, for metrics over users) it was taken over.
    """

    split: str
    subset: str
    metric: str
    value: float
    low: float
    high: float
    count: int


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
