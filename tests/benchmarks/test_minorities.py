"""The comparison of groups, in small: whose accuracy is whose."""

from __future__ import annotations

from benchmarks.minorities import LIMIT, fit_cell

OPTIONS = {"num_seen_users": 120, "num_pairs": 60, "num_train": 15, "group_shares": [8.0, 2.0]}


def test_consensus_serves_the_larger_group_and_the_limit_both() -> None:
    consensus, limit = (fit_cell(OPTIONS, 0, method) for method in ("none", LIMIT))
    assert consensus["larger"][0] > consensus["smaller"][0] + 0.15
    assert limit["smaller"][0] > consensus["smaller"][0] + 0.15
    assert consensus["smaller"][1] > consensus["all"][1] > 0  # fewer users, a wider interval
    for found in (consensus, limit):
        parts = [found[name] for name in ("smaller", "all", "larger")]
        assert min(parts[0][0], parts[2][0]) <= parts[1][0] <= max(parts[0][0], parts[2][0])
