"""Expected information of a question, by hand and by counting."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.adapt.online import RunningEstimate
from copl.adapt.questions import expected_information
from copl.adapt.strategies.catalogue import EmpiricalOptions
from copl.adapt.strategies.empirical import Empirical
from copl.records import Comparisons, ComparisonSet, ResponseTable


def bits(p: float) -> float:
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q)


def test_information_by_hand() -> None:
    shares = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).double()
    answers = torch.tensor([[1.0, 0.9, 0.5], [0.0, 0.1, 0.5]]).double()  # of two points, to three questions
    found = expected_information(shares, torch.logit(answers, eps=1e-15), torch.zeros(3))
    # told apart for certain; nearly; not at all. Who is known has nothing to tell.
    assert found[0].tolist() == pytest.approx([1.0, 1.0 - bits(0.9), 0.0])
    assert found[1].tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30)
def test_information_is_what_the_posterior_gains_on_average(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares, answers = rng.dirichlet(np.ones(4)), rng.random(4)

    def entropy(p: Any) -> float:
        return float(-(p * np.log2(np.maximum(p, 1e-300))).sum())

    yes = float(shares @ answers)
    after = [shares * answers / yes, shares * (1 - answers) / (1 - yes)]
    expected = entropy(shares) - yes * entropy(after[0]) - (1 - yes) * entropy(after[1])
    found = expected_information(
        torch.tensor(shares)[None], torch.logit(torch.tensor(answers))[:, None], torch.zeros(1)
    )
    assert float(found[0, 0]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("variance", [0.3, 2.0])
def test_a_taste_that_is_not_known_is_worth_asking_for(variance: float) -> None:
    """One point, so all there is to learn is the taste: by a sum over many of its values."""
    deviation = np.linspace(-8, 8, 4001)
    weight = np.exp(-(deviation**2) / 2)
    weight /= weight.sum()
    chance = 1 / (1 + np.exp(-(0.7 + variance**0.5 * deviation)))
    doubt = sum(w * bits(p) for w, p in zip(weight.tolist(), chance.tolist(), strict=True))
    expected = bits(float(weight @ chance)) - doubt
    found = expected_information(
        torch.ones(1, 1).double(), torch.tensor([[0.7, 0.7]]).double(), torch.tensor([variance, 0.0]).double()
    )
    assert float(found[0, 0]) == pytest.approx(expected, rel=1e-3)
    assert float(found[0, 1]) == 0.0


def test_a_user_called_like_a_question_has_no_part_in_it(planted_problem: Any) -> None:
    support, trained = planted_problem()
    questions = ComparisonSet(support.users, support.responses, Comparisons([0, 0], [0, 2], [1, 3]))
    alike = attrs.evolve(trained, user_ids=("question 0", "question 1", *trained.user_ids[2:]))
    found, expected = (
        RunningEstimate("new 0", model, Empirical(EmpiricalOptions())).information(questions)
        for model in (alike, trained)
    )
    np.testing.assert_array_equal(found, expected)


def test_what_is_asked_splits_the_groups(planted_problem: Any) -> None:
    """Pairs on which the groups differ are worth most of a bit before, and little once the group is known."""
    support, trained = planted_problem()
    questions = ComparisonSet(
        support.users, support.responses, Comparisons([0, 0, 0], [0, 0, 2], [1, 2, 3])
    )  # the groups agree on 0 or 2: both are liked by the same
    user = RunningEstimate("new 0", trained, Empirical(EmpiricalOptions(sharpness=4.0)))
    before = user.information(questions)
    assert before[0] > 0.5
    assert before[2] > 0.5
    assert before[1] < 0.2
    user.add(ComparisonSet(support.users, support.responses, support.comparisons.take(support.comparisons.user == 0)))
    after = user.information(questions)
    assert (after[[0, 2]] < before[[0, 2]] / 4).all()


def test_a_pair_nobody_knows_tells_nothing(planted_problem: Any) -> None:
    support, trained = planted_problem()
    table = ResponseTable([*support.responses.prompts, "new", "new"], [*support.responses.texts, "yes", "no"])
    last = len(table) - 1
    questions = ComparisonSet(support.users, table, Comparisons([0, 0, 0], [last, 0, 0], [last - 1, 1, 0]))
    found = RunningEstimate("new 0", trained, Empirical(EmpiricalOptions())).information(questions)
    assert found[0] == found[2] == 0.0  # unknown responses; the same response twice
    assert found[1] > 0
