"""What the graph says of responses, met and new."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from copl.adapt.lookalikes import Lookalikes
from copl.adapt.strategies.mean import COMPONENTS
from copl.methods.parts.user_space import UserSpace
from copl.records import Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, ScoreRequests, UserTable

NUM = 12
PROMPTS = ["p"] * NUM
TEXTS = [f"t{n}" for n in range(NUM)]


def features_of(responses: ResponseTable) -> torch.Tensor:
    """Text n lies at the angle n: those of even and of odd numbers apart from one another."""
    number = torch.tensor([float(text[1:]) for text in responses.texts])
    return torch.stack([number / NUM, 4 * (number.round() % 2), torch.zeros_like(number)], dim=1)


@pytest.fixture
def space() -> UserSpace:
    """Two users: the first likes texts of even, the other those of odd numbers."""
    table = ResponseTable(PROMPTS, TEXTS)
    sign = torch.tensor([1.0 if n % 2 == 0 else -1.0 for n in range(NUM)])
    even, odd = np.arange(0, NUM, 2), np.arange(1, NUM, 2)
    comparisons = Comparisons(
        np.repeat([0, 1], len(even)), np.concatenate([even, odd]), np.concatenate([odd, even]), np.ones(NUM)
    )
    trained = NodeEmbeddings(
        ("even", "odd"), table.keys, torch.tensor([[1.0], [-1.0]]), sign[:, None], torch.zeros(NUM), comparisons
    )
    found = UserSpace(trained, COMPONENTS[0].build(COMPONENTS[0].options()))
    found.match_texts(Lookalikes(table, features_of(table), features_of))
    return found


def requests(texts: list[str]) -> ScoreRequests:
    user = np.repeat([0, 1], len(texts))
    return ScoreRequests(
        UserTable.ungrouped(["even", "odd"]),
        ResponseTable(["p"] * len(texts), texts),
        user,
        np.tile(np.arange(len(texts)), 2),
    )


def test_a_new_response_counts_as_average_until_it_is_embedded_by_its_text(space: UserSpace) -> None:
    asked = requests(["t4", "t6.2"])
    scores, met = space.scores(asked, None)
    assert scores.tolist() == [1.0, 0.0, -1.0, 0.0]
    assert met.tolist() == [True, False, True, False]
    regression, _ = space.regress_on_texts(_pairs())
    space.embed_by_texts(regression)
    scores, met = space.scores(asked, None)
    assert scores[0] == 1.0
    assert 0.5 < scores[1] < 1.0  # like the even ones, though not as surely as one of them
    assert scores[3] == pytest.approx(-scores[1])
    assert met.tolist() == [True, False, True, False]


def _pairs() -> ComparisonSet:
    rows = Comparisons(np.array([0, 1]), np.array([2, 3]), np.array([5, 0]), np.ones(2))
    return ComparisonSet(UserTable.ungrouped(["even", "odd"]), ResponseTable(PROMPTS, TEXTS), rows)


def test_margins_take_the_word_of_other_texts_where_a_response_is_new(space: UserSpace) -> None:
    pairs = _pairs()
    _, others = space.regress_on_texts(pairs)
    assert space.margins(pairs).tolist() == [2.0, 2.0]
    chosen_new = space.margins(pairs, others, np.array([[True, False], [False, False]]))
    assert chosen_new[0] == pytest.approx(float(others[2, 0]) + 1.0)
    assert chosen_new[1] == 2.0
    both = space.margins(pairs, others)
    assert both[0] == pytest.approx(float(others[2, 0] - others[5, 0]))
    assert both[0] > 1.0


def test_responses_that_were_not_trained_have_no_say_in_the_regression(space: UserSpace) -> None:
    rows = Comparisons(np.array([0]), np.array([0]), np.array([1]), np.ones(1))
    strange = ComparisonSet(UserTable.ungrouped(["even"]), ResponseTable(["p", "p"], ["t0", "t99"]), rows)
    _, with_strange = space.regress_on_texts(strange)
    nobody = ComparisonSet(strange.users, strange.responses, rows.take(np.array([], dtype=np.int64)))
    _, without = space.regress_on_texts(nobody)
    assert with_strange.tolist() == without.tolist()
    assert space.margins(strange).tolist() == [1.0]  # the other one counts as average
