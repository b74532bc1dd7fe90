"""The small inputs the kit makes: two groups of users who like opposite responses, so that there is something to find.

A user of group +1 prefers the response of trait +1 in a pair of one trait each; a user of group -1 the other. Who
chooses on what is drawn by the generator of the source `planted`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs
import numpy as np
import torch

from copl.bradley_terry import correct
from copl.data.sources.planted import PlantedTruth
from copl.records import (
    Comparisons,
    ComparisonSet,
    NodeEmbeddings,
    PreferenceData,
    PreferenceGraph,
    ResponseTable,
    UserTable,
)

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray


@final
@attrs.frozen(eq=False)
class Planted:
    """Users and responses in two camps.

    Attributes:
        group: +1 or -1 of each user [U].
        trait: +1 or -1 of each response [R].
    """

    group: IntArray
    trait: IntArray

    @classmethod
    def make(cls, num_users: int = 24, num_responses: int = 16) -> Planted:
        """Return camps of equal size, users and responses alternating."""
        return cls(1 - 2 * (np.arange(num_users) % 2), 1 - 2 * (np.arange(num_responses) % 2))

    @property
    def users(self) -> UserTable:
        return UserTable(
            [f"user-{row}" for row in range(len(self.group))], ["plus" if g > 0 else "minus" for g in self.group]
        )

    @property
    def responses(self) -> ResponseTable:
        """Texts that show their trait; two responses to each prompt."""
        words = {1: "a brief plain answer", -1: "a long technical explanation with many details"}
        return ResponseTable(
            [f"question {row // 2}" for row in range(len(self.trait))],
            [f"{words[int(trait)]} number {row // 2}" for row, trait in enumerate(self.trait)],
        )

    def compare(self, users: IntArray, per_user: int, rng: np.random.Generator) -> Comparisons:
        """Return `per_user` comparisons of each user, a response of each trait in each, no pair twice."""
        plus, minus = np.flatnonzero(self.trait > 0), np.flatnonzero(self.trait < 0)
        pairs = np.arange(len(plus) * len(minus))
        truth = PlantedTruth(
            first=plus[pairs // len(minus)],
            second=minus[pairs % len(minus)],
            labels=np.tile([True, False], (len(pairs), 1)),
            user_groups=np.where(self.group > 0, 0, 1),
        )
        counts = np.full(len(users), per_user)
        return truth.compare(users, counts, pairs, np.ones(len(pairs)), rng)[0]


@final
@attrs.frozen(eq=False)
class GraphCase:
    """A preference graph with comparisons held out of it."""

    graph: PreferenceGraph
    heldout: Comparisons


def planted_graph(seed: int = 0) -> GraphCase:
    """Return a graph whose two groups any encoder should find."""
    planted, rng = Planted.make(), np.random.default_rng(seed)
    everyone = np.arange(len(planted.group))
    pairs = planted.compare(everyone, 14, rng)
    place = np.tile(np.arange(14), len(everyone))
    graph = PreferenceGraph(
        planted.users.ids,
        planted.responses.keys,
        pairs.take(place < 9),
        pairs.take((place >= 9) & (place < 11)),
        random_features(len(planted.trait), seed),
    )
    return GraphCase(graph, pairs.take(place >= 11))


def random_features(num_responses: int, seed: int = 0) -> torch.Tensor:
    """Return features [R, 6] of texts that say nothing of the camps."""
    return torch.randn(num_responses, 6, generator=torch.Generator().manual_seed(seed))


def bare_graph(num_users: int, num_responses: int, comparisons: Comparisons) -> PreferenceGraph:
    """Return a graph with neither validation comparisons nor response features."""
    return PreferenceGraph(
        tuple(f"user-{row}" for row in range(num_users)),
        tuple(f"response-{row}" for row in range(num_responses)),
        comparisons,
    )


def trained_embeddings(planted: Planted, dim: int = 8, seed: int = 0) -> NodeEmbeddings:
    """Return embeddings in which the two camps lie on opposite sides, as a good encoder leaves them."""
    rng = np.random.default_rng(seed)
    axis = np.ones(dim) / np.sqrt(dim)

    def place(sign: IntArray) -> torch.Tensor:
        return torch.tensor(sign[:, None] * axis + 0.1 * rng.normal(size=(len(sign), dim)), dtype=torch.float32)

    return NodeEmbeddings(
        planted.users.ids,
        planted.responses.keys,
        place(planted.group),
        place(planted.trait),
        torch.zeros(len(planted.trait)),
        planted.compare(np.arange(len(planted.group)), 8, rng),
    )


def newcomers(
    planted: Planted, per_user: int = 4, seed: int = 1, *, num_users: int = 6
) -> tuple[ComparisonSet, ComparisonSet]:
    """Return the support set and as many held-out comparisons of users who were not there in training, half a camp."""
    group = Planted(1 - 2 * (np.arange(num_users) % 2), planted.trait)
    users = UserTable([f"newcomer-{row}" for row in range(num_users)], group.users.groups)
    pairs = group.compare(np.arange(num_users), 2 * per_user, np.random.default_rng(seed))
    place = np.tile(np.arange(2 * per_user), num_users)
    return (
        ComparisonSet(users, planted.responses, pairs.take(place < per_user)),
        ComparisonSet(users, planted.responses, pairs.take(place >= per_user)),
    )


@final
@attrs.frozen(eq=False)
class Crowd:
    """Two camps, one of twice as many users as the other, so that what most of them want tells which is the larger.

    Whoever knows the camp of a user is right about every comparison; whoever knows no users is right about half, the
    camps counted alike.

    Attributes:
        graph: the preference graph.
        heldout: comparisons of its users, as many of either camp.
        support: what newcomers say; half of them are of either camp.
        asked: comparisons that newcomers are judged by.
    """

    graph: PreferenceGraph
    heldout: Comparisons
    support: ComparisonSet
    asked: ComparisonSet


def planted_crowd(seed: int = 0, num_users: int = 120, num_responses: int = 60) -> Crowd:
    """Return a crowd of users with six comparisons each, and forty newcomers who say as much."""
    small = np.arange(num_users) % 3 == 0
    planted = Planted(np.where(small, -1, 1), Planted.make(num_users, num_responses).trait)
    pairs = planted.compare(np.arange(num_users), 11, np.random.default_rng(seed))
    place = np.tile(np.arange(11), num_users)
    asked = (place >= 7) & (np.repeat(small, 11) | (place < 9))  # twice as many of each of the smaller camp
    graph = PreferenceGraph(
        planted.users.ids,
        planted.responses.keys,
        pairs.take(place < 6),
        pairs.take(place == 6),
        random_features(num_responses, seed),
    )
    return Crowd(graph, pairs.take(asked), *newcomers(planted, 6, seed + 1, num_users=40))


def planted_data(seed: int = 0) -> PreferenceData:
    """Return a tiny data set with every split; the last six users are unseen."""
    planted, rng = Planted.make(18, 16), np.random.default_rng(seed)
    everyone = np.arange(18)
    pairs = planted.compare(everyone, 10, rng)
    place, seen = np.tile(np.arange(10), 18), np.repeat(everyone < 12, 10)
    warm = (pairs.chosen < 12) & (pairs.rejected < 12)
    splits = {
        "train": pairs.take(seen & warm & (place < 7)),
        "validation": pairs.take(seen & warm & (place == 7)),
        "test": pairs.take(seen & warm & (place > 7)),
        "cold": pairs.take(seen & ~warm),
        "support": pairs.take(~seen & (place < 6)),
        "heldout": pairs.take(~seen & (place >= 6)),
    }
    return PreferenceData("planted", planted.users, planted.responses, splits, {"source": "copl.testing"})


def margins(embeddings: NodeEmbeddings, users: torch.Tensor, pairs: Comparisons) -> FloatArray:
    """Return the margins [N] of `pairs`; `users` are the embeddings of their user rows."""
    chosen, rejected = torch.from_numpy(pairs.chosen), torch.from_numpy(pairs.rejected)
    difference = (embeddings.responses[chosen] - embeddings.responses[rejected]).double()
    bias = (embeddings.response_bias[chosen] - embeddings.response_bias[rejected]).double()
    own: FloatArray = ((users[torch.from_numpy(pairs.user)].double() * difference).sum(dim=1) + bias).numpy()
    return own


def accuracy(embeddings: NodeEmbeddings, users: torch.Tensor, pairs: Comparisons) -> float:
    """Return the share of `pairs` whose margin is positive; a margin of zero counts half."""
    return float(correct(margins(embeddings, users, pairs)).mean())
