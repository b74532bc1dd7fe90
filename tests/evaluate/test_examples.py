"""Examples of a report: two users, two texts, and a model that was right about both."""

from __future__ import annotations

import numpy as np

from copl.evaluate.examples import Example, examples
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable
from copl.records.judgements import THUMB, TIE, Judgements

RESPONSES = ResponseTable(("p", "p", "q", "q"), ("a", "b", "c", "d"))
USERS = UserTable.ungrouped(["ann", "ben", "cid"])


def data(**splits: Comparisons) -> PreferenceData:
    return PreferenceData("toy", USERS, RESPONSES, splits)


def test_two_users_who_want_opposite_texts_and_get_them() -> None:
    test = Comparisons([0, 1, 2], [0, 1, 0], [1, 0, 1])
    found = examples({"test": np.array([0.5, 0.2, 2.0])}, data(test=test))
    assert found == [Example("p", ("cid", "a"), ("ben", "b"), "test")]  # cid is the surest of those who want a


def test_where_the_model_is_wrong_about_one_there_is_none() -> None:
    test = Comparisons([0, 1], [0, 1], [1, 0])
    assert examples({"test": np.array([0.5, -0.2])}, data(test=test)) == []
    assert examples({"test": np.array([0.5, 0.0])}, data(test=test)) == []
    assert examples({}, data(test=test)) == []


def test_each_is_of_another_prompt_and_newcomers_come_first() -> None:
    heldout = Comparisons([0, 1], [2, 3], [3, 2])
    test = Comparisons([0, 1, 0, 1], [0, 1, 2, 3], [1, 0, 3, 2])
    margins = {"heldout": np.ones(2), "test": np.full(4, 9.0)}
    found = examples(margins, data(heldout=heldout, test=test))
    assert [(example.split, example.prompt) for example in found] == [("heldout", "q"), ("test", "p")]
    assert len(examples(margins, data(heldout=heldout, test=test), count=1)) == 1


def test_what_thumbs_and_ties_imply_is_no_example() -> None:
    up_and_down = Judgements([THUMB] * 4, [0, 0, 1, 1], [0, 2, 2, 0], [-1] * 4, [1.0, -1.0, 1.0, -1.0])
    alike = Judgements([TIE] * 2, [0, 1], [0, 0], [1, 1], [0.0, 0.0])
    for judged in (up_and_down, alike):
        known = PreferenceData("toy", USERS, RESPONSES, {}, {}, {"test": judged})
        assert examples({"test": np.ones(len(known.split("test")))}, known) == []
