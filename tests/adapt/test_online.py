"""Users whose comparisons come one by one: the same as all at once, and nothing trained is touched."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.adapt.online import RunningEstimate
from copl.adapt.support import match
from copl.methods.parts.ageing import faded
from copl.options import parse_options
from copl.plugins import load
from copl.records import Comparisons, ComparisonSet, NodeEmbeddings, UserTable
from copl.records.dataset import with_implied
from copl.records.judgements import RATING, THUMB, TIE, Judgements

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


DAY = 86_400.0


def words(support: ComparisonSet, user: str, judged: Judgements) -> ComparisonSet:
    return with_implied(UserTable.ungrouped([user]), support.responses, Comparisons.empty(), judged)


def thumbs(values: list[float], times: list[float] | None = None) -> Judgements:
    """Thumbs for the first responses: those of even number are what one group likes."""
    count = len(values)
    time = np.full(count, np.nan) if times is None else np.array(times)
    return Judgements([THUMB] * count, [0] * count, np.arange(count), [-1] * count, values, np.ones(count), time)


KINDS = {
    "thumbs": thumbs([1.0, -1.0, 1.0, -1.0]),
    "ratings": Judgements([RATING] * 3, [0] * 3, [0, 1, 2], [-1] * 3, [4.0, 1.0, 5.0]),
    "ties": Judgements([TIE] * 2, [0] * 2, [0, 2], [1, 3], [0.0] * 2),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", ["empirical", "posterior", "mean"])
def test_judgements_one_by_one_are_as_all_at_once(name: str, kind: str, planted_problem: Any) -> None:
    support, trained = planted_problem()
    judged = KINDS[kind]
    expected = strategy(name).adapt(words(support, "new", judged), trained)
    user = RunningEstimate("new", trained, strategy(name))
    for row in range(len(judged)):
        found = user.add(words(support, "new", judged.take(np.array([row]))))
    torch.testing.assert_close(found.embeddings, expected.embeddings, rtol=1e-5, atol=1e-6)
    assert found.how == expected.how == (name,)


def test_one_thumb_alone_leaves_the_population_and_the_user_is_there(planted_problem: Any) -> None:
    support, trained = planted_problem()
    said = words(support, "new", thumbs([1.0]))
    assert not len(said)
    assert strategy("empirical").adapt(said, trained).user_ids == ("new",)
    assert RunningEstimate("new", trained, strategy("empirical")).add(said).how == ("population",)


def test_who_changes_their_mind_is_heard(planted_problem: Any) -> None:
    support, trained = planted_problem()
    user = RunningEstimate("new", trained, strategy("empirical"))
    user.add(words(support, "new", thumbs([1.0, -1.0])))
    turned = user.add(words(support, "new", thumbs([-1.0, 1.0])))
    expected = strategy("empirical").adapt(words(support, "new", thumbs([-1.0, 1.0])), trained)
    torch.testing.assert_close(turned.embeddings, expected.embeddings)


ONE, OTHER = np.array([0]), np.array([1])


def compared(support: ComparisonSet, user: str, *, turned: bool, time: float = np.nan) -> ComparisonSet:
    """A comparison of the first two responses, one way or the other."""
    chosen, rejected = (OTHER, ONE) if turned else (ONE, OTHER)
    return ComparisonSet(
        UserTable.ungrouped([user]), support.responses, Comparisons([0], chosen, rejected, time=np.array([time]))
    )


@pytest.mark.parametrize("times", [(np.nan, np.nan), (10.0, 20.0), (np.nan, 20.0)])
def test_a_pair_decided_again_counts_as_it_was_decided_last(times: tuple[float, float], planted_problem: Any) -> None:
    support, trained = planted_problem()
    expected = strategy("empirical").adapt(compared(support, "new", turned=True), trained)
    user = RunningEstimate("new", trained, strategy("empirical"))
    for turned, time in zip((False, True), times, strict=True):
        user.add(compared(support, "new", turned=turned, time=time))
    torch.testing.assert_close(user.adapted.embeddings, expected.embeddings)
    user.add(words(support, "new", Judgements([TIE], [0], ONE, OTHER, [0.0], time=[30.0])))
    tied = strategy("empirical").adapt(words(support, "new", Judgements([TIE], [0], ONE, OTHER, [0.0])), trained)
    torch.testing.assert_close(user.adapted.embeddings, tied.embeddings)


def test_a_word_of_before_changes_nothing(planted_problem: Any) -> None:
    support, trained = planted_problem()
    user = RunningEstimate("new", trained, strategy("empirical"))
    expected = user.add(compared(support, "new", turned=False, time=20.0)).embeddings
    torch.testing.assert_close(user.add(compared(support, "new", turned=True, time=10.0)).embeddings, expected)


@pytest.mark.parametrize(
    ("trained_at", "said_at", "turns"), [(np.nan, np.nan, True), (5.0, 9.0, True), (9.0, 5.0, False)]
)
def test_what_a_seen_user_says_now_takes_the_place_of_what_training_knew(
    trained_at: float, said_at: float, turns: bool, planted_problem: Any
) -> None:
    """As if training had known it the other way round; what is older than training says nothing."""
    support, trained = planted_problem()
    own = np.flatnonzero(trained.comparisons.user == 3)
    first = int(own[0])
    time = np.full(len(trained.comparisons), trained_at)
    trained = attrs.evolve(trained, comparisons=attrs.evolve(trained.comparisons, time=time))
    keys = list(trained.response_keys)
    rows = {support.responses.keys[row]: row for row in range(len(support.responses))}
    chosen, rejected = (rows[keys[end[first]]] for end in (trained.comparisons.chosen, trained.comparisons.rejected))
    table = UserTable.ungrouped(["seen 3"])
    said = Comparisons([0], [rejected], [chosen], time=[said_at])
    heard = match(ComparisonSet(table, support.responses, said), trained)
    ends = set(zip(heard.chosen.tolist(), heard.rejected.tolist(), strict=True))
    pair = int(trained.comparisons.chosen[first]), int(trained.comparisons.rejected[first])
    assert len(heard.newcomer) == len(own)
    assert ((pair[1], pair[0]) in ends, pair in ends) == (turns, not turns)


def test_judgements_of_others_are_refused(planted_problem: Any) -> None:
    support, trained = planted_problem()
    with pytest.raises(ValueError, match="new 0"):
        RunningEstimate("new 0", trained, strategy("empirical")).add(words(support, "other", thumbs([1.0])))


def test_what_is_older_counts_less_also_one_by_one(planted_problem: Any) -> None:
    support, trained = planted_problem()
    judged = thumbs([1.0, -1.0, -1.0, 1.0], [0.0, 0.0, 40 * DAY, 40 * DAY])
    user = RunningEstimate("new", trained, strategy("empirical"), weigh=lambda said: faded(said, 2.0))
    for row in range(4):
        found = user.add(words(support, "new", judged.take(np.array([row]))))
    said = words(support, "new", judged)
    expected = strategy("empirical").adapt(faded(said, 2.0), trained)
    torch.testing.assert_close(found.embeddings, expected.embeddings, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found.embeddings, strategy("empirical").adapt(said, trained).embeddings, atol=0.1)
