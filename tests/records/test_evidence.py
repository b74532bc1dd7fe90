"""Values derived by hand from the formulas of the papers that `copl.records.evidence` names."""

from __future__ import annotations

from itertools import permutations
from math import atanh, exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable
from copl.records.evidence import (
    LeftOut,
    choice_weight,
    implied,
    on_levels,
    ranking_weight,
    thumbs_of,
)
from copl.records.judgements import BOTH_BAD, RATING, THUMB, TIE, Judgements


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def judged(kind: int, rows: list[tuple[int, int, int, float]], weight: float = 1.0) -> Judgements:
    """Judgements of one kind: user, response, other, value."""
    user, response, other, value = zip(*rows, strict=True)
    return Judgements([kind] * len(rows), user, response, other, value, np.full(len(rows), weight))


def log_chance(margin: float, low: float, high: float) -> float:
    """The log of the chance that a margin with logistic noise falls between two bounds."""
    return log(sigmoid(high - margin) - sigmoid(low - margin))


def curvature(margin: float, low: float, high: float, step: float = 1e-3) -> float:
    values = [log_chance(margin + k * step, low, high) for k in (-1, 0, 1)]
    return (2 * values[1] - values[0] - values[2]) / step**2


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_pairs_of_a_ranking_carry_the_information_of_plackett_luce(count: int) -> None:
    """The mean square of the derivatives by the first score, over all rankings, at equal scores."""

    def derivative(order: tuple[int, ...]) -> float:
        """Of the log of the chance of a ranking: at each choice among k, one if it was chosen, less 1 / k."""
        place = order.index(0)
        return (
            1
            - sum(1 / (count - stage) for stage in range(min(place, count - 2) + 1))
            + (-1.0 if place == count - 1 else 0.0)
        )

    rankings = list(permutations(range(count)))
    information = sum(derivative(order) ** 2 for order in rankings) / len(rankings)
    # a comparison with each of the others, each of information 1/4
    assert ranking_weight(count) * (count - 1) / 4 == pytest.approx(information)


def test_weights_by_hand() -> None:
    assert [ranking_weight(n) for n in (2, 3, 4)] == pytest.approx([1, 7 / 9, 23 / 36])
    assert [choice_weight(n) for n in (2, 3)] == pytest.approx([1, 2 / 3])


def test_a_tie_is_two_opposite_comparisons_as_curved_as_it() -> None:
    pairs = implied(judged(TIE, [(0, 1, 2, 0.0)], weight=2.0), num_comparisons=3)
    assert [(pairs.chosen[n], pairs.rejected[n]) for n in (0, 1)] == [(1, 2), (2, 1)]
    share = 1 / 4
    assert pairs.weight.tolist() == pytest.approx([2 * (1 - share**2)] * 2)
    # Rao and Kupper's strengths pi and threshold eta: a tie has the chance
    # (eta^2 - 1) pi_i pi_j / ((pi_i + eta pi_j) (pi_j + eta pi_i)), which is the share where they are equal
    bound = 2 * atanh(share)
    eta = exp(bound)
    assert (eta**2 - 1) / (1 + eta) ** 2 == pytest.approx(share)
    assert exp(log_chance(0.0, -bound, bound)) == pytest.approx(share)
    # of weight w, two comparisons of equals are curved w / 4 each
    assert (1 - share**2) * 2 / 4 == pytest.approx(curvature(0.0, -bound, bound), rel=1e-5)


def test_thumbs_of_a_user_are_set_against_each_other() -> None:
    thumbs = judged(THUMB, [(0, 5, -1, 1.0), (0, 6, -1, -1.0), (1, 7, -1, 1.0), (1, 8, -1, 1.0)])
    pairs = implied(thumbs)
    # one up and one down: the conditional chance is that of one comparison; the other user says the same of both
    assert (pairs.user.tolist(), pairs.chosen.tolist(), pairs.rejected.tolist()) == ([0], [5], [6])
    assert pairs.weight.tolist() == [1.0]
    assert LeftOut.of(thumbs) == LeftOut(1, 2)


def test_ratings_weigh_what_their_levels_tell() -> None:
    # of three ratings 1, 2, 3: F is 1/3, 2/3, 1, so I = (1/3) ((1/3 - 1)^2 + 0 + (2/3)^2) = 8/27
    ratings = judged(RATING, [(0, 5, -1, 1.0), (0, 6, -1, 3.0), (0, 7, -1, 2.0)])
    pairs = implied(ratings)
    assert set(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)) == {(6, 5), (7, 5), (6, 7)}
    assert pairs.weight.tolist() == pytest.approx([2 * 3 * (8 / 27) / 3] * 3)


def test_many_ratings_are_compared_evenly() -> None:
    pairs = implied(judged(RATING, [(0, n, -1, float(n)) for n in range(40)]))
    assert (pairs.chosen > pairs.rejected).all()
    assert set(np.bincount(np.concatenate([pairs.chosen, pairs.rejected]))) == {8}
    # I of n levels is (n^2 - 1) / 3 n^2
    assert pairs.weight.sum() == pytest.approx(2 * 40 * (40**2 - 1) / (3 * 40**2))


def test_both_bad_is_a_tie_and_two_thumbs_down() -> None:
    said = Judgements.concat([judged(BOTH_BAD, [(0, 1, 2, 0.0)]), judged(THUMB, [(0, 3, -1, 1.0)])])
    assert thumbs_of(said).value.tolist() == [1.0, -1.0, -1.0]
    pairs = implied(said, num_comparisons=9)
    assert set(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)) == {(1, 2), (2, 1), (3, 1), (3, 2)}


def test_a_split_holds_what_its_judgements_imply() -> None:
    tables = UserTable.ungrouped(["u"]), ResponseTable(["p"] * 3, ["a", "b", "c"])
    given = {"train": Comparisons([0], [0], [1])}
    data = PreferenceData("x", *tables, given, {}, {"train": judged(TIE, [(0, 1, 2, 0.0)])})
    part = data.split("train")
    assert (len(part), part.num_given) == (3, 1)
    assert data.splits["train"].chosen.tolist() == [0]
    assert data.digest("train") != PreferenceData("x", *tables, given).digest("train")
    assert list(data.evidence()) == ["train"]


def test_levels_by_hand() -> None:
    # two users say up twice and down twice: shares below are (2 + 4 / 2) / (4 + 4) = 1/2, which is the fifth of nine
    rows = [(user, 10 + n, -1, value) for user in (0, 1) for n, value in enumerate((1.0, 1.0, -1.0, -1.0))]
    against = on_levels(judged(THUMB, rows), num_responses=20)
    ups = [(10, 24), (11, 24)] * 2
    downs = [(24, 12), (24, 13)] * 2
    assert sorted(zip(against.chosen.tolist(), against.rejected.tolist(), strict=True)) == sorted(ups + downs)
    assert against.weight.tolist() == [1.0] * 8


def test_thresholds_are_the_users_own() -> None:
    # one hardly ever likes anything, so what is liked stands high; the other likes nearly all
    rows = [(0, n, -1, 1.0 if n == 0 else -1.0) for n in range(40)]
    rows += [(1, n, -1, -1.0 if n == 0 else 1.0) for n in range(40)]
    against = on_levels(judged(THUMB, rows), num_responses=40)
    high, low = (
        int(against.rejected[(against.user == 0) & (against.chosen == 0)][0]),
        int(against.chosen[(against.user == 1) & (against.rejected == 0)][0]),
    )
    assert (high, low) == (48, 40)  # the highest and the lowest of nine levels


@given(st.floats(0.1, 30.0), st.floats(-50, 50))
def test_ratings_are_read_on_the_users_own_scale(spread: float, mean: float) -> None:
    values = np.arange(12.0)
    rows = [(0, n, -1, float(value)) for n, value in enumerate(values)]
    own = on_levels(judged(RATING, rows), num_responses=12)
    # far more than the prior's four by another user with another mean and spread
    alone = on_levels(judged(RATING, [(u, r, o, mean + spread * v) for u, r, o, v in rows]), num_responses=12)
    assert own.chosen.tolist() == alone.chosen.tolist()
    best, worst = own.take((own.chosen == 11) | (own.rejected == 11)), own.take((own.chosen == 0) | (own.rejected == 0))
    assert (best.chosen == 11).all()
    assert (worst.rejected == 0).all()
