"""Measures of what users are shown, on utilities made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from copl.evaluate.policy import (
    ANSWERS,
    BETTER_OFF,
    CONTROLLED,
    GAIN,
    UNREAD,
    WORST,
    ShownAnswers,
    measure_answers,
    newcomers_table,
    policy_table,
)
from copl.records import Measurement

# two users, two prompts, three candidates: mean and best are 2 and 4, 1 and 2; 2 and 3, 0 and 0
CANDIDATES = np.array([[[0.0, 2, 4], [1, 0, 2]], [[1.0, 2, 3], [0, 0, 0]]])
LENGTHS = np.array([[10.0, 20, 30], [30, 10, 20]])


def answers(choice: Any, **changes: Any) -> ShownAnswers:
    places = np.array(choice)[..., None]
    lengths = np.broadcast_to(LENGTHS, CANDIDATES.shape)
    shown = ShownAnswers(
        shown=np.take_along_axis(CANDIDATES, places, 2)[..., 0],
        unpersonalised=CANDIDATES[:, :, 0],
        candidates=CANDIDATES,
        length=np.take_along_axis(lengths, places, 2)[..., 0],
        lengths=LENGTHS,
        groups=("a", "b"),
    )
    return evolve(shown, **changes)


def measured(shown: ShownAnswers) -> dict[str, Measurement]:
    return {m.metric: m for m in measure_answers(shown, "cold", "all", seed=0)}


def test_the_gain_is_zero_for_a_random_candidate_and_one_for_the_best() -> None:
    best = measured(answers([[2, 2], [2, 0]]))
    assert (best[GAIN].value, best[WORST].value, best[BETTER_OFF].value) == (1, 1, 1)
    assert best[CONTROLLED].value == pytest.approx(1)
    # u0: 4 - 2 and 0 - 1 of 2 and 1; u1: 2 - 2 and 0 of 1 and 0
    some = measured(answers([[2, 1], [1, 2]]))
    assert some[GAIN].value == pytest.approx((2 - 1 + 0 + 0) / (2 + 1 + 1 + 0))
    assert some[WORST].value == pytest.approx(0 / 1)  # that of group b; group a has 1/3
    assert some[GAIN].count == 4


def test_a_user_is_better_off_by_the_sum_over_the_prompts() -> None:
    # unpersonalised is the first candidate: 0 + 1 and 1 + 0
    assert measured(answers([[1, 1], [0, 0]]))[BETTER_OFF].value == 0.5  # 2 + 0 > 1, and the same
    assert measured(answers([[0, 1], [0, 0]]))[BETTER_OFF].value == 0
    assert measured(answers([[0, 1], [0, 0]]))[BETTER_OFF].count == 2


def test_everybody_of_a_few_is_no_certainty() -> None:
    """Two users of whom both are better off, or nothing can be read: .025^(1/2) to 1. The same choice is no sample."""
    best = measured(answers([[2, 2], [2, 0]], unpersonalised=np.array([[0.0, 1], [1, 0]]) - 1))
    assert (best[BETTER_OFF].value, best[BETTER_OFF].low) == (1, pytest.approx(0.025**0.5))
    same = measured(answers([[0, 0], [0, 0]]))
    assert (same[BETTER_OFF].low, same[BETTER_OFF].value, same[BETTER_OFF].high) == (0, 0, 0)
    (unread,) = measure_answers(answers([[0, 0], [0, 0]], shown=np.full((2, 2), np.nan)), "cold", "all", seed=0)
    assert (unread.metric, unread.low, unread.high) == (UNREAD, pytest.approx(0.025**0.5), 1)


def test_what_length_explains_does_not_count() -> None:
    # one user who likes length alone, and one whose second facet is worth 1, whatever the length
    lengths = np.array([[1.0, 2, 3, 4]])
    candidates = np.array([[[1.0, 2, 3, 4]], [[1.0, 0, 0, 1]]])
    longest = ShownAnswers(
        candidates[:, :, 3], candidates[:, :, 0], candidates, np.full((2, 1), 4.0), lengths, (None, None)
    )
    found = measured(longest)
    # by length the first user gets nothing more; the second has no slope, and gets the best
    assert found[CONTROLLED].value == pytest.approx(1.0)
    other = evolve(longest, shown=candidates[:, :, 1], length=np.full((2, 1), 2.0))
    assert measured(other)[CONTROLLED].value == pytest.approx(-1.0)  # 0 of 0, and -.5 of .5
    assert measured(other)[GAIN].value == pytest.approx((-0.5 - 0.5) / (1.5 + 0.5))
    assert WORST not in found  # nobody is in a group


def test_what_cannot_be_read_is_left_out_and_counted() -> None:
    shown = answers([[2, 2], [2, 0]])
    shown.shown[0, 0] = np.nan
    found = measured(shown)
    assert (found[GAIN].value, found[GAIN].count) == (1, 3)
    assert (found[UNREAD].value, found[UNREAD].count) == (0.25, 4)
    shown.shown[:] = np.nan
    assert set(measured(shown)) == {UNREAD}


def test_there_is_nothing_to_measure_where_all_candidates_are_worth_the_same() -> None:
    assert measured(answers([[0, 0], [0, 0]], candidates=np.zeros((2, 2, 3)))) == {}
    nobody = ShownAnswers(*(np.zeros(s) for s in ((0, 2), (0, 2), (0, 2, 3), (0, 2), (2, 3))), ())
    assert measured(nobody) == {}


@given(seed=st.integers(0, 2**32 - 1), users=st.integers(1, 8), prompts=st.integers(1, 6))
def test_every_value_lies_in_its_interval(seed: int, users: int, prompts: int) -> None:
    rng = np.random.default_rng(seed)
    candidates, lengths = rng.normal(size=(users, prompts, 4)), rng.integers(1, 99, size=(prompts, 4)).astype(float)
    choice = rng.integers(4, size=(users, prompts, 1))
    shown = ShownAnswers(
        np.take_along_axis(candidates, choice, 2)[..., 0],
        candidates[:, :, 0],
        candidates,
        np.take_along_axis(np.broadcast_to(lengths, candidates.shape), choice, 2)[..., 0],
        lengths,
        tuple("ab"[row % 2] for row in range(users)),
    )
    for m in measure_answers(shown, "cold", "all", seed=0):
        assert np.isfinite([m.low, m.value, m.high]).all()
        assert m.low <= m.value <= m.high


def test_intervals_are_wider_where_few_prompts_were_asked() -> None:
    rng = np.random.default_rng(0)

    def reach(prompts: int) -> float:
        worth = rng.normal(size=(1, prompts, 4)).repeat(60, axis=0)  # all users agree, so prompts are all there is
        lengths = np.arange(4.0)[None].repeat(prompts, axis=0)
        shown = ShownAnswers(worth[:, :, 0], worth[:, :, 1], worth, np.zeros((60, prompts)), lengths, (None,) * 60)
        gain = measured(shown)[GAIN]
        return gain.high - gain.low

    assert reach(5) > 1.5 * reach(80)


def gain(split: str, subset: str, value: float, metric: str = GAIN) -> Measurement:
    return Measurement(split, subset, metric, value, value, value, 1)


def test_tables() -> None:
    results = {
        "none": [gain("cold", "all", 0.0)],
        "mine": [
            gain("cold", "all", 0.5),
            gain("cold", "all", 0.75, BETTER_OFF),
            *(gain("heldout", f"{ANSWERS}{count}", count / 10) for count in (8, 0, 2)),
        ],
    }
    table = policy_table(results)
    assert table.header == ("what is shown", "new prompts: utility gain", "new prompts: better off")
    assert table.rows[0] == ("none", ".000 (.000-.000)", "")
    assert table.rows[1] == ("mine", ".500 (.500-.500)", ".750 (.750-.750)")
    newcomers = newcomers_table(results)
    assert newcomers.header == ("answers given", "0", "2", "8")
    assert [row[0] for row in newcomers.rows] == ["mine"]
