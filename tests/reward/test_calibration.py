"""Levels and spreads of rewards: by hand, and of a user to whom everything is the same but for rounding."""

from __future__ import annotations

import numpy as np

from copl.records import FloatArray, ResponseTable, ScoreRequests, UserTable
from copl.reward.calibration import levels_and_spreads

REFERENCE = ResponseTable(["Tea?"] * 4, ["a", "b", "c", "d"])


def test_levels_and_spreads_are_those_of_the_reference_responses() -> None:
    rewards = np.array([[1.0, 1.0, 3.0, 3.0], [-4.0, 0.0, 4.0, 0.0]])

    def scores(requests: ScoreRequests) -> FloatArray:
        return rewards[requests.user, requests.response]

    levels, spreads = levels_and_spreads(scores, UserTable.ungrouped(["ann", "bob"]), REFERENCE)
    assert levels.tolist() == [2.0, 0.0]
    np.testing.assert_allclose(spreads, [1.0, 8**0.5])


def test_what_differs_by_single_precision_alone_is_not_spread_out() -> None:
    equal = np.float32(3.7) * (1 + np.array([0, 1, -1, 1], dtype=np.float32) * np.finfo(np.float32).eps)

    def scores(requests: ScoreRequests) -> FloatArray:
        return equal[requests.response].astype(np.float64)

    assert len({*equal.tolist()}) > 1
    _, spreads = levels_and_spreads(scores, UserTable.ungrouped(["ann"]), REFERENCE)
    assert spreads.tolist() == [1.0]
