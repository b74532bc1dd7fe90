from __future__ import annotations

import numpy as np

from copl.data.checking.split_ids import split_digests
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable


def data_set(users: list[str], texts: list[str], *rows: tuple[int, int, int]) -> PreferenceData:
    part = Comparisons(*map(list, zip(*rows, strict=True)))
    table = ResponseTable(["p"] * len(texts), texts)
    return PreferenceData("d", UserTable.ungrouped(users), table, {"train": part})


def test_order_and_numbering_do_not_matter() -> None:
    one = data_set(["u", "v"], ["a", "b", "c"], (0, 0, 1), (1, 2, 1))
    other = data_set(["v", "x", "u"], ["c", "b", "a"], (0, 0, 1), (2, 2, 1))
    assert split_digests(one) == split_digests(other)


def test_every_end_matters() -> None:
    base = data_set(["u", "v"], ["a", "b", "c"], (0, 0, 1), (1, 2, 1))
    others = [
        data_set(["u", "v"], ["a", "b", "c"], (0, 1, 0), (1, 2, 1)),
        data_set(["u", "v"], ["a", "b", "c"], (1, 0, 1), (1, 2, 1)),
        data_set(["u", "v"], ["a", "b", "c"], (1, 0, 1), (0, 2, 1)),
        data_set(["u", "v"], ["a", "b", "c"], (0, 0, 1), (1, 0, 1)),
        data_set(["u", "v"], ["a", "b", "c"], (0, 0, 1), (1, 2, 1), (1, 2, 1)),
        data_set(["u", "w"], ["a", "b", "c"], (0, 0, 1), (1, 2, 1)),
        data_set(["u", "v"], ["a", "b", "d"], (0, 0, 1), (1, 2, 1)),
    ]
    digests = {split_digests(data)["train"] for data in [base, *others]}
    assert len(digests) == len(others) + 1


def test_an_empty_data_set_has_none() -> None:
    empty = PreferenceData("d", UserTable([], []), ResponseTable([], []), {"train": Comparisons.empty()})
    assert split_digests(empty) == {}


def test_digests_are_the_same_on_every_machine() -> None:
    with np.errstate(all="raise"):
        digest = split_digests(data_set(["u"], ["a", "b"], (0, 0, 1)))["train"]
    assert digest == "bcc292ecc70b05922b6d373310407e86"
