from __future__ import annotations

import numpy as np
import pytest

from copl.methods.parts.ageing import discounted, faded, half_lives
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable
from copl.records.dataset import with_implied
from copl.records.judgements import THUMB, Judgements


def test_older_evidence_counts_less() -> None:
    day = 86_400.0
    tables = UserTable.ungrouped(["u"]), ResponseTable(["p"] * 3, ["a", "b", "c"])
    rows = Comparisons([0, 0, 0], [0, 1, 2], [1, 2, 0], time=np.array([0.0, 10 * day, np.nan]))
    data = PreferenceData("x", *tables, {"train": rows, "test": rows})
    less = discounted(data, half_life=5.0)
    assert less.splits["train"].weight.tolist() == pytest.approx([0.25, 1.0, 1.0])
    assert less.splits["test"] is rows
    assert half_lives(data) == (10.0, 5.0, 2.5, 1.25, 0.625)
    assert half_lives(PreferenceData("x", *tables, {"train": Comparisons([0], [0], [1])})) == ()


def timed(kind: int, days: list[float], values: list[float], user: list[int] | None = None) -> Judgements:
    count = len(days)
    time = np.array(days) * 86_400.0
    owner = [0] * count if user is None else user
    return Judgements([kind] * count, owner, np.arange(count), [-1] * count, values, np.ones(count), time)


def test_comparisons_and_judgements_grow_old_together() -> None:
    tables = UserTable.ungrouped(["u"]), ResponseTable(["p"] * 3, ["a", "b", "c"])
    given = Comparisons([0], [0], [1], time=np.array([0.0]))
    judged = timed(THUMB, [5.0, 10.0], [1.0, -1.0])
    data = PreferenceData("x", *tables, {"train": given}, {}, {"train": judged})
    less = discounted(data, half_life=5.0)
    assert less.splits["train"].weight.tolist() == pytest.approx([0.25])
    assert less.judgements["train"].weight.tolist() == pytest.approx([0.5, 1.0])
    said = faded(data.split("train"), half_life=5.0)
    assert said.given.weight.tolist() == pytest.approx([0.25])
    assert said.judgements.weight.tolist() == pytest.approx([0.5, 1.0])
    assert said.comparisons.weight.tolist() == pytest.approx([0.25, 0.5**0.5])  # of one up and one down


def test_nobody_elses_words_make_older_what_a_newcomer_says() -> None:
    tables = UserTable.ungrouped(["u", "v"]), ResponseTable(["p"] * 4, ["a", "b", "c", "d"])
    said = with_implied(
        *tables, Comparisons.empty(), timed(THUMB, [0, 5, 50, 50], [1.0, -1.0, 1.0, -1.0], [0, 0, 1, 1])
    )
    assert faded(said, half_life=5.0).judgements.weight.tolist() == pytest.approx([0.5, 1.0, 1.0, 1.0])
    alone = faded(said.of_user("u"), half_life=5.0)
    assert alone.comparisons.weight.tolist() == faded(said, half_life=5.0).of_user("u").comparisons.weight.tolist()


def test_what_says_nothing_goes_on_to_say_nothing() -> None:
    tables = UserTable.ungrouped(["u"]), ResponseTable(["p"] * 2, ["a", "b"])
    given = Comparisons([0, 0], [0, 1], [1, 0], [0.0, 1.0], time=np.array([0.0, 0.0]))
    assert discounted(PreferenceData("x", *tables, {"train": given}), 1.0).splits["train"].weight.tolist() == [0.0, 1.0]
