"""What is learnt from and what is held out: users keep a comparison, unless there would be nothing to judge by."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from copl.graph.training import ComparisonTensors, Judgement, held_out, learnable
from copl.records import Comparisons, PreferenceGraph


def graph_of(*, per_user: list[int], validation: int = 0) -> PreferenceGraph:
    user = np.repeat(np.arange(len(per_user)), per_user)
    rows = Comparisons(user, 2 * np.arange(len(user)), 2 * np.arange(len(user)) + 1)
    others = Comparisons(np.zeros(validation, dtype=np.int64), np.arange(validation), np.arange(validation) + 1)
    responses = tuple(f"r{n}" for n in range(max(2 * len(user), validation + 1)))
    return PreferenceGraph(tuple(f"u{n}" for n in range(len(per_user))), responses, rows, others)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=60), st.integers(0, 30), st.integers(0, 3))
def test_what_is_held_out_is_not_learnt_from_and_is_enough_to_judge_by(per_user, validation, seed):
    graph = graph_of(per_user=per_user, validation=validation)
    train, held = held_out(graph, seed)
    own = held.take(np.arange(len(held)) >= validation) if validation else held
    assert sorted([*train.chosen, *own.chosen]) == graph.comparisons.chosen.tolist()
    assert len(held) >= max(validation, len(train) // 10)


def test_users_keep_one_comparison_where_others_can_spare_enough():
    graph = graph_of(per_user=[1] * 20 + [10] * 5)
    train, held = held_out(graph, seed=0)
    assert len(held) == 7
    assert set(train.user.tolist()) == set(range(25))


def test_where_everybody_said_one_thing_some_are_held_out_all_the_same():
    graph = graph_of(per_user=[1] * 50)
    train, held = held_out(graph, seed=0)
    assert (len(train), len(held)) == (45, 5)
    assert len(learnable(graph, seed=0)[1]) == 0  # what learns alone stops by other means


def test_a_margin_of_zero_is_half_right_while_training_as_it_is_in_tables():
    rows = ComparisonTensors.of(Comparisons([0] * 4, np.arange(4), np.arange(4) + 1))
    assert Judgement.of(rows, torch.tensor([2.0, 0.0, 0.0, -1.0])).accuracy == 0.5
    assert Judgement.of(rows, torch.zeros(4)).accuracy == 0.5
