"""Adaptation strategies: the kit passes a good toy and catches a deliberately broken one of each fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve

from copl.records import (
    AdaptedUsers,
    ComparisonSet,
    NodeEmbeddings,
)

COUNTER = itertools.count()


class ToyAdapter:
    """Votes on the responses, weighed by nothing: the signed sum of what the newcomer chose."""

    def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
        rows = [trained.response_rows.get(key, -1) for key in support.responses.keys]
        places = torch.zeros(len(support.users), trained.dim)
        known = np.zeros(len(support.users), dtype=np.int64)
        pairs = support.comparisons
        for u, c, r in zip(pairs.user, pairs.chosen, pairs.rejected, strict=True):
            if rows[c] >= 0 and rows[r] >= 0:
                places[u] += trained.responses[rows[c]] - trained.responses[rows[r]]
                known[u] += 1
        present = np.unique(pairs.user)
        ids = tuple(support.users.ids[row] for row in present)
        return AdaptedUsers(ids, places[present], ("votes",) * len(ids), known[present], known[present] / 100)


def broken_adapter(change: Callable[..., Any]) -> Callable[[Any], ToyAdapter]:
    class Broken(ToyAdapter):
        def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
            adapted: AdaptedUsers = change(super().adapt(support, trained), support, trained)
            return adapted

    return lambda options: Broken()


def test_a_good_adapter_passes(kit: Any) -> None:
    assert kit.not_passed(kit.check("adapter", lambda options: ToyAdapter())) == set()


def _normalise_trained(a: AdaptedUsers, s: ComparisonSet, t: NodeEmbeddings) -> AdaptedUsers:
    t.users.div_(t.users.norm(dim=1, keepdim=True))
    return a


def _first(a: AdaptedUsers) -> AdaptedUsers:
    return AdaptedUsers(a.user_ids[:1], a.embeddings[:1], a.how[:1], a.num_neighbours[:1], a.confidence[:1])


def _one_more(a: AdaptedUsers, user: str) -> AdaptedUsers:
    """Answer for `user`, too."""
    return AdaptedUsers(
        (*a.user_ids, user),
        torch.cat([a.embeddings, torch.zeros(1, a.embeddings.shape[1])]),
        (*a.how, "votes"),
        np.append(a.num_neighbours, 0),
        np.append(a.confidence, 0.0),
    )


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda a, s, t: a.embeddings, "adapt returned Tensor, not AdaptedUsers"),
        (lambda a, s, t: _first(a), "no embedding for newcomer-1, newcomer-2"),
        (lambda a, s, t: _one_more(a, a.user_ids[0]) if len(a.user_ids) else a, "a newcomer is answered twice"),
        (lambda a, s, t: _one_more(a, "stranger"), "embeddings for stranger, who were not asked for"),
        (
            lambda a, s, t: evolve(a, embeddings=a.embeddings + next(COUNTER)),
            "two calls with the same support set differ",
        ),
        (lambda a, s, t: evolve(a, user_ids=tuple(f"{i}x" for i in a.user_ids)), "no embedding for newcomer-0"),
        (lambda a, s, t: evolve(a, embeddings=a.embeddings[:, :3]), "embeddings must be [6, 8], got [6, 3]"),
        (lambda a, s, t: evolve(a, embeddings=a.embeddings / 0), "embeddings are not finite"),
        (lambda a, s, t: evolve(a, confidence=a.confidence + 2), "confidence must lie in 0 ... 1"),
        (lambda a, s, t: evolve(a, how=("",) * len(a.how)), "how must say"),
        (lambda a, s, t: evolve(a, how=()), "how has 0 values for 6 newcomers"),
        (lambda a, s, t: evolve(a, num_neighbours=a.num_neighbours - 9), "num_neighbours is negative"),
        (lambda a, s, t: evolve(a, embeddings=a.embeddings - a.embeddings.mean(dim=0)), "other newcomers in the batch"),
        (
            lambda a, s, t: evolve(a, embeddings=a.embeddings + s.comparisons.chosen @ np.arange(len(s))),
            "embeddings change with the order of the rows",
        ),
        (_normalise_trained, "adapt changed its arguments"),
        (lambda a, s, t: evolve(a, embeddings=a.embeddings + torch.rand(1)), "random state of torch was changed"),
        (lambda a, s, t: evolve(a, embeddings=-a.embeddings), "only 0% of held-out comparisons right"),
    ],
)
def test_a_broken_adapter_is_caught(kit: Any, change: Callable[..., Any], finding: str) -> None:
    assert finding in kit.caught(kit.check("adapter", broken_adapter(change)))


def test_an_adapter_that_fails_on_unknown_responses_is_caught(kit: Any) -> None:
    class Fragile(ToyAdapter):
        def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
            assert all(trained.response_rows[key] >= 0 for key in support.responses.keys)
            return super().adapt(support, trained)

    results = kit.check("adapter", lambda options: Fragile())
    assert kit.not_passed(results) == {"a newcomer whose responses were never trained on gets an embedding too"}
