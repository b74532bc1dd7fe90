"""Responses that nobody has annotated, taken for the most similar ones."""

from __future__ import annotations

import numpy as np
import torch

from copl.adapt.lookalikes import Lookalikes
from copl.adapt.online import RunningEstimate
from copl.adapt.strategies.empirical import Empirical, EmpiricalOptions
from copl.records import Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable

# Texts are points in the plane; "new right" is close to "right".
PLACES = {
    "right": (1.0, 0.0),
    "left": (-1.0, 0.0),
    "up": (0.0, 1.0),
    "down": (0.0, -1.0),
    "new right": (2.0, 0.2),
    "new left": (-3.0, 0.1),
    "nowhere": (0.0, 0.0),
}
KNOWN = ["right", "left", "up", "down"]


def table(*texts: str) -> ResponseTable:
    return ResponseTable(["where?"] * len(texts), texts)


def read(responses: ResponseTable) -> torch.Tensor:
    return torch.tensor([PLACES[text] for text in responses.texts])


def trained() -> NodeEmbeddings:
    users = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0]])
    responses = read(table(*KNOWN))
    return NodeEmbeddings(
        ("a", "b", "c"), table(*KNOWN).keys, users, responses, torch.zeros(4), Comparisons([0, 1], [0, 1], [1, 0])
    )


def lookalikes() -> Lookalikes:
    return Lookalikes(table(*KNOWN), read(table(*KNOWN)), read)


def asked(chosen: str, rejected: str) -> ComparisonSet:
    return ComparisonSet(UserTable.ungrouped(["new"]), table(chosen, rejected), Comparisons([0], [0], [1]))


def test_an_unknown_response_becomes_the_most_similar_one() -> None:
    found, changed = lookalikes().translate(asked("new right", "left"), trained())
    assert changed.tolist() == [True]
    texts = found.responses.texts
    assert (texts[found.comparisons.chosen[0]], texts[found.comparisons.rejected[0]]) == ("right", "left")
    cosine = 2.0 / np.hypot(2.0, 0.2)
    np.testing.assert_allclose(found.comparisons.weight, [np.sqrt(cosine)], rtol=1e-6)


def test_known_responses_and_those_like_nothing_stay() -> None:
    for pair in (("right", "up"), ("nowhere", "up")):
        found, changed = lookalikes().translate(asked(*pair), trained())
        assert changed.tolist() == [False]
        texts = found.responses.texts
        assert (texts[found.comparisons.chosen[0]], texts[found.comparisons.rejected[0]]) == pair
        assert found.comparisons.weight.tolist() == [1.0]


def test_a_newcomer_who_shares_no_text_with_anybody_is_placed() -> None:
    user = RunningEstimate("new", trained(), Empirical(EmpiricalOptions()), lookalikes())
    found = user.add(asked("new right", "new left"))
    assert found.how == ("empirical, by similar texts",)
    plain = Empirical(EmpiricalOptions()).adapt(asked("right", "left"), trained())
    assert 0 < float(found.embeddings[0, 0]) <= float(plain.embeddings[0, 0])
    without = RunningEstimate("new", trained(), Empirical(EmpiricalOptions())).add(asked("new right", "new left"))
    assert without.how == ("population",)


def test_questions_about_similar_texts_tell_something() -> None:
    user = RunningEstimate("new", trained(), Empirical(EmpiricalOptions()), lookalikes())
    assert user.information(asked("new right", "new left"))[0] > 0.1
    assert user.information(asked("nowhere", "nowhere"))[0] == 0.0


def test_nothing_to_translate() -> None:
    empty = ComparisonSet(UserTable.ungrouped([]), table(), Comparisons.empty())
    found, changed = lookalikes().translate(empty, trained())
    assert len(found) == len(changed) == 0
