"""Checks of adaptation strategies."""

from __future__ import annotations

from typing import Any, final

import attrs
import numpy as np
import torch

from copl.records import AdaptedUsers, Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable
from copl.testing.check import (
    Check,
    CheckResult,
    CheckWarning,
    fingerprint_of,
    global_randomness_untouched,
    require,
    run_checks,
)
from copl.testing.common import Described
from copl.testing.planted import Planted, accuracy, newcomers, trained_embeddings


@final
@attrs.frozen(eq=False)
class _Subject:
    described: Described
    trained: NodeEmbeddings
    support: ComparisonSet
    heldout: ComparisonSet

    def build(self) -> Any:
        return self.described.component.build(self.described.options())

    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        adapted: AdaptedUsers = self.build().adapt(support, self.trained)
        return adapted


def _require_valid(adapted: AdaptedUsers, support: ComparisonSet, trained: NodeEmbeddings) -> None:
    require(isinstance(adapted, AdaptedUsers), f"adapt returned {type(adapted).__name__}, not AdaptedUsers")
    asked = {support.users.ids[row] for row in np.unique(support.comparisons.user)}
    answered = adapted.user_ids
    missing = sorted(asked - set(answered))
    require(not missing, f"no embedding for {', '.join(missing)}, who have comparisons")
    require(len(set(answered)) == len(answered), "a newcomer is answered twice")
    strangers = sorted(set(answered) - set(support.users.ids))
    require(not strangers, f"embeddings for {', '.join(strangers)}, who were not asked for")
    shape, expected = list(adapted.embeddings.shape), [len(answered), trained.dim]
    require(shape == expected, f"embeddings must be {expected}, got {shape}")
    require(bool(torch.isfinite(adapted.embeddings).all()), "embeddings are not finite")
    for name in ("how", "num_neighbours", "confidence"):
        length = len(getattr(adapted, name))
        require(length == len(answered), f"{name} has {length} values for {len(answered)} newcomers")
    require(all(adapted.how), "how must say for every newcomer how the embedding was obtained")
    inside = np.all((np.asarray(adapted.confidence) >= 0) & (np.asarray(adapted.confidence) <= 1))
    require(bool(inside), f"confidence must lie in 0 ... 1, got {adapted.confidence}")
    require(bool(np.all(np.asarray(adapted.num_neighbours) >= 0)), "num_neighbours is negative")


def _by_id(adapted: AdaptedUsers) -> dict[str, torch.Tensor]:
    return dict(zip(adapted.user_ids, adapted.embeddings, strict=True))


def _require_same(one: AdaptedUsers, other: AdaptedUsers, message: str) -> None:
    first, second = _by_id(one), _by_id(other)
    require(all(torch.allclose(first[user], second[user], atol=1e-4) for user in second), message)


def answers_everybody(subject: _Subject) -> None:
    """every newcomer with comparisons gets a finite embedding, with how, neighbours and confidence"""
    _require_valid(subject.adapt(subject.support), subject.support, subject.trained)


def is_in_no_order(subject: _Subject) -> None:
    """the order of comparisons and users does not matter"""
    support, rng = subject.support, np.random.default_rng(5)
    order, users = rng.permutation(len(support)), rng.permutation(len(support.users))
    rows = support.comparisons.take(order)
    shuffled = ComparisonSet(
        UserTable([support.users.ids[row] for row in users], [support.users.groups[row] for row in users]),
        support.responses,
        attrs.evolve(rows, user=np.argsort(users)[rows.user]),
    )
    _require_same(subject.adapt(support), subject.adapt(shuffled), "embeddings change with the order of the rows")


def looks_at_one_newcomer_at_a_time(subject: _Subject) -> None:
    """a newcomer's embedding does not depend on who else is adapted"""
    together = subject.adapt(subject.support)
    alone = ComparisonSet(
        subject.support.users,
        subject.support.responses,
        subject.support.comparisons.take(subject.support.comparisons.user == 0),
    )
    only = subject.adapt(alone)
    first = subject.support.users.ids[0]
    require(
        torch.allclose(_by_id(together)[first], _by_id(only)[first], atol=1e-4),
        "an embedding changes with the other newcomers in the batch",
    )


def leaves_the_world_alone(subject: _Subject) -> None:
    """adapt changes neither what is trained, nor the support set, nor the global random state; it repeats itself"""
    fresh = _subject(subject.described)  # earlier checks may have changed theirs already
    before = fingerprint_of((fresh.trained, fresh.support))
    strategy = fresh.build()
    with global_randomness_untouched():
        first = strategy.adapt(fresh.support, fresh.trained)
        second = strategy.adapt(fresh.support, fresh.trained)
    require(fingerprint_of((fresh.trained, fresh.support)) == before, "adapt changed its arguments")
    _require_same(first, second, "two calls with the same support set differ")


def unknown_responses(subject: _Subject) -> None:
    """a newcomer whose responses were never trained on gets an embedding too"""
    support = ComparisonSet(
        UserTable.ungrouped(["newcomer"]), ResponseTable(["new"] * 2, ["yes", "no"]), Comparisons([0], [0], [1])
    )
    _require_valid(subject.adapt(support), support, subject.trained)


def one_odd_comparison(subject: _Subject) -> None:
    """one comparison is enough; contradictory and repeated ones are no problem"""
    responses = subject.support.responses
    for chosen, rejected in (([0], [1]), ([0, 1], [1, 0]), ([0, 0], [1, 1])):
        rows = Comparisons([0] * len(chosen), chosen, rejected)
        support = ComparisonSet(UserTable.ungrouped(["newcomer"]), responses, rows)
        _require_valid(subject.adapt(support), support, subject.trained)


def nobody(subject: _Subject) -> None:
    """no newcomers at all are no problem"""
    support = ComparisonSet(UserTable.ungrouped([]), subject.support.responses, Comparisons.empty())
    _require_valid(subject.adapt(support), support, subject.trained)


def finds_the_group(subject: _Subject) -> None:
    """newcomers land in the group they agree with"""
    places = _by_id(subject.adapt(subject.support))
    users = torch.stack([places[user].float() for user in subject.heldout.users.ids])
    share = accuracy(subject.trained, users, subject.heldout.comparisons)
    if share < 0.75:
        raise CheckWarning(f"only {share:.0%} of held-out comparisons right where all can be (chance is 50 %)")


_CHECKS: list[Check[_Subject]] = [
    answers_everybody,
    is_in_no_order,
    looks_at_one_newcomer_at_a_time,
    leaves_the_world_alone,
    unknown_responses,
    one_odd_comparison,
    nobody,
    finds_the_group,
]


def _subject(described: Described) -> _Subject:
    planted = Planted.make()
    support, heldout = newcomers(planted)
    return _Subject(described, trained_embeddings(planted), support, heldout)


def check_adapter(described: Described) -> list[CheckResult]:
    """Check an adaptation strategy on planted newcomers."""
    return run_checks(_CHECKS, _subject(described))
