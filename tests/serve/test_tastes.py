"""What there is to ask users about: pairs of responses to one prompt."""

from __future__ import annotations

from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable
from copl.records.judgements import THUMB, Judgements
from copl.serve.tastes import pairs_to_ask


def test_nobody_is_asked_which_of_two_answers_to_different_prompts_is_better() -> None:
    users, table = UserTable.ungrouped(["ann"]), ResponseTable(["p", "p", "q", "q"], ["0", "1", "2", "3"])
    thumbs = Judgements([THUMB] * 3, [0] * 3, [0, 1, 2], [-1] * 3, [1.0, -1.0, -1.0])
    data = PreferenceData("toy", users, table, {"train": Comparisons([0], [3], [2])}, {}, {"train": thumbs})
    assert len(data.split("train")) == 3
    assert sorted(pairs_to_ask(data)) == [("p", "0", "1"), ("q", "2", "3")]
