"""The benchmark of how much data is needed: cells that contain one another, its tables and its picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from benchmarks import data_need
from benchmarks.data_need import Point, behind, part_of, points, table_of, whole
from benchmarks.data_need_picture import heat_maps


def test_cells_take_some_users_and_their_first_comparisons() -> None:
    data = whole(1.0, 0)
    small, large = (part_of(data, Point(1.0, users, each, 0), 0) for users, each in ((10, 8), (30, 16)))
    assert [len(small.split(name)) for name in ("train", "validation")] == [70, 10]
    seen = {small.users.ids[row] for row in np.unique(small.splits["train"].user)}
    assert seen < {large.users.ids[row] for row in np.unique(large.splits["train"].user)}
    said = [
        {
            (part.users.ids[u], part.responses.keys[c], part.responses.keys[r])
            for name in ("train", "validation")
            for u, c, r in zip(
                *(getattr(part.splits[name], end) for end in ("user", "chosen", "rejected")), strict=True
            )
        }
        for part in (small, large)
    ]
    assert said[0] < said[1]
    assert len(said[0]) == 80
    assert np.bincount(small.splits["support"].user)[-60:].tolist() == [8] * 60  # newcomers say as much
    other = part_of(data, Point(1.0, 10, 8, 1), 0)
    assert not seen & {other.users.ids[row] for row in np.unique(other.splits["train"].user)}


def test_what_has_to_be_read_is_bounded_where_texts_are_not_shared() -> None:
    found = list(points((10, 1000), (1, 32), (1.0, 0.0)))
    assert {(p.num_users, p.num_each) for p in found if p.sharing == 0.0} == {(10, 1), (10, 32), (1000, 1)}
    assert {(p.num_users, p.num_each) for p in found if p.sharing == 1.0} == {(10, 1), (10, 32), (1000, 1), (1000, 32)}


def result(own: float, ahead: float, low: float) -> data_need.Result:
    values = {key: [own, own, own] for key in data_need.SPLITS}
    others = dict.fromkeys(data_need.SPLITS, [own - ahead] * 3)
    worse = dict.fromkeys(data_need.SPLITS, [own - ahead - 0.1] * 3)
    differences = {key: [ahead, low, ahead + 0.1] for key in data_need.SPLITS}
    return {
        "copl": values,
        "consensus": worse,
        "btl": others,
        "ahead of btl": differences,
        "ahead of consensus": {key: [0.5, 0.4, 0.6] for key in data_need.SPLITS},
    }


GRID = {(1.0, 10, 2): result(0.55, -0.05, -0.1), (1.0, 10, 8): result(0.7, 0.1, 0.05)}


def test_the_table_stands_beside_the_better_reference_and_says_where_it_is_ahead() -> None:
    table = table_of(GRID, 1.0, "test")
    assert table.header == ("", "2 each", "8 each")
    assert table.rows == (("10 users", ".550 / .600", "**.700** / .600"),)


def test_where_it_is_behind_is_said() -> None:
    said = behind(GRID)
    assert len(said) == 3
    assert said[0] == "10 users with 2 each who share all, seen users: -.050 (-.100 to +.050) from `btl`."


def test_the_picture_has_a_cell_for_each_gain_and_a_dot_where_there_is_none() -> None:
    gains = {("share all", "seen users"): {(10, 2): -0.05, (30, 8): 0.2}, ("share all", "unseen users"): {}}
    picture = ET.fromstring(heat_maps(gains))
    space = "{http://www.w3.org/2000/svg}"
    assert [shape.get("class") for shape in picture.iter(f"{space}rect")] == ["bad", "good"]
    assert len(list(picture.iter(f"{space}circle"))) == 2 + 4
    assert {"-5", "20"} <= {text.text for text in picture.iter(f"{space}text")}
