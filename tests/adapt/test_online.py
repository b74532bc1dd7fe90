"""Users whose comparisons come one by one: the same as all at once, and nothing trained is touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.adapt.online import RunningEstimate
from copl.options import parse_options
from copl.plugins import load
from copl.records import ComparisonSet, NodeEmbeddings, UserTable

COMPONENTS = {r.component.name: r.component for r in load().registry("adapter") if r.package == "copl"}


def strategy(name: str, **options: Any) -> Any:
    component = COMPONENTS[name]
    return component.build(parse_options(component.options, options, where=name))


def of_user(support: ComparisonSet, row: int) -> ComparisonSet:
    rows = support.comparisons
    return ComparisonSet(support.users, support.responses, rows.take(rows.user == row))


def one_by_one(support: ComparisonSet) -> list[ComparisonSet]:
    rows = support.comparisons
    return [ComparisonSet(support.users, support.responses, rows.take(np.array([place]))) for place in range(len(rows))]


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_one_by_one_is_as_all_at_once(name: str, planted_problem: Any) -> None:
    support, trained = planted_problem()
    expected = strategy(name).adapt(of_user(support, 2), trained)
    user = RunningEstimate("new 2", trained, strategy(name))
    assert user.adapted.how == ("population",)
    for part in one_by_one(of_user(support, 2)):
        found = user.add(part)
    assert found.user_ids == expected.user_ids == ("new 2",)
    torch.testing.assert_close(found.embeddings, expected.embeddings, rtol=1e-5, atol=1e-6)
    assert found.how == expected.how
    assert found.num_neighbours.tolist() == expected.num_neighbours.tolist()
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-6)


@given(seed=st.integers(0, 1000), order=st.permutations(range(4)))
@settings(max_examples=20)
def test_the_order_of_comparisons_does_not_matter(seed: int, order: list[int], planted_problem: Any) -> None:
    support, trained = planted_problem(seed)
    parts = one_by_one(of_user(support, 1))
    users = [RunningEstimate("new 1", trained, strategy("empirical")) for _ in range(2)]
    for place in range(4):
        users[0].add(parts[place])
        users[1].add(parts[order[place]])
    torch.testing.assert_close(users[0].adapted.embeddings, users[1].adapted.embeddings, rtol=1e-5, atol=1e-6)


def test_nothing_trained_is_touched(planted_problem: Any) -> None:
    support, trained = planted_problem()
    before = [trained.users.clone(), trained.responses.clone(), trained.response_bias.clone()]
    users = [RunningEstimate(f"new {row}", trained, strategy("empirical")) for row in range(6)]
    for row, user in enumerate(users):
        user.add(of_user(support, row))
    after = [trained.users, trained.responses, trained.response_bias]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    together = strategy("empirical").adapt(support, trained)
    for row, user in enumerate(users):  # nor does one newcomer touch another
        torch.testing.assert_close(user.adapted.embeddings[0], together.embeddings[row], rtol=1e-5, atol=1e-6)


def test_comparisons_that_say_nothing_leave_the_population(planted_problem: Any) -> None:
    support, trained = planted_problem()
    stranger = ComparisonSet(support.users, support.responses, support.comparisons.take(np.arange(0)))
    user = RunningEstimate("new 0", trained, strategy("empirical"))
    found = user.add(stranger)
    assert (found.how, found.confidence.tolist()) == (("population",), [0.0])
    torch.testing.assert_close(found.embeddings[0], trained.users.mean(dim=0))


def test_a_seen_user_starts_where_training_left_them(planted_problem: Any) -> None:
    support, trained = planted_problem()
    user = RunningEstimate("seen 3", trained, strategy("empirical"))
    torch.testing.assert_close(user.adapted.embeddings[0], trained.users[3])
    assert user.adapted.how == ("trained",)
    assert user.adapted.confidence[0] > 0.5
    more = ComparisonSet(UserTable.ungrouped(["seen 3"]), support.responses, of_user(support, 0).comparisons)
    turned = user.add(more)  # four comparisons of the other group, after six of their own in training
    assert turned.how == ("empirical",)
    assert turned.confidence[0] < RunningEstimate("seen 3", trained, strategy("empirical")).adapted.confidence[0]


def test_comparisons_of_others_are_refused(planted_problem: Any) -> None:
    support, trained = planted_problem()
    user = RunningEstimate("new 0", trained, strategy("empirical"))
    with pytest.raises(ValueError, match="new 0"):
        user.add(of_user(support, 1))
    with pytest.raises(ValueError, match="new 0"):
        user.add(support)


def test_what_a_seen_user_said_in_training_is_not_outweighed_by_one_new_comparison(planted_problem: Any) -> None:
    """Seen users keep the order of what they chose in training, though they now choose for once as the others do."""
    support, trained = planted_problem()
    against = of_user(support, 0).comparisons.take(np.array([0]))
    kept = []
    for row in range(1, 40, 2):  # seen users of the other group
        seen = ComparisonSet(UserTable.ungrouped([f"seen {row}"]), support.responses, against)
        user = strategy("empirical").adapt(seen, trained).embeddings[0]
        own = trained.comparisons.take(trained.comparisons.user == row)
        difference = trained.responses[torch.from_numpy(own.chosen)] - trained.responses[torch.from_numpy(own.rejected)]
        kept.append(float((difference @ user > 0).double().mean()))
    assert np.mean(kept) >= 15 / 16


def test_an_isinstance_check_is_no_surprise_for_foreign_strategies(planted_problem: Any) -> None:
    """A strategy of somebody else's is asked with all comparisons, whatever it is."""
    support, trained = planted_problem()

    class Foreign:
        seen: tuple[int, ...] = ()

        def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> Any:
            self.seen = (*self.seen, len(support))
            return strategy("mean").adapt(support, trained)

    foreign = Foreign()
    user = RunningEstimate("new 0", trained, foreign)
    for part in one_by_one(of_user(support, 0)):
        user.add(part)
    assert foreign.seen == (1, 2, 3, 4)
