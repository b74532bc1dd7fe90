"""What a plugin package tests: that it keeps the contract, and that its own mathematics is right."""

from __future__ import annotations

import numpy as np
import pytest

from copl.plugins import load
from copl.records import Comparisons, PreferenceGraph
from copl.system.progress import SilentProgress
from copl.testing import CheckResult, check_component
from copl_svd import SvdEncoder, SvdOptions


@pytest.mark.parametrize("result", check_component(load().registry("encoder").get("svd"), "encoder"), ids=str)
def test_keeps_the_contract_of_encoders(result: CheckResult) -> None:
    assert result.passed, result.detail


def test_margins_are_in_proportion_to_the_normalised_matrix_when_every_direction_is_kept() -> None:
    # users 0 and 1 disagree about a pair; user 2 knows another response
    graph = PreferenceGraph(
        ("ann", "bob", "cleo"), ("x", "y", "z"), Comparisons([0, 1, 2, 2], [0, 1, 0, 2], [1, 0, 1, 1])
    )
    signed = np.array([[1, -1, 0], [-1, 1, 0], [1, -2, 1]])
    user_degree, response_degree = np.array([2, 2, 4]), np.array([3, 4, 1])
    expected = signed / np.sqrt(user_degree)[:, None] / np.sqrt(response_degree)
    found = SvdEncoder(SvdOptions(embedding_dim=3)).fit(graph, seed=0, progress=SilentProgress())
    margins = (found.users @ found.responses.T).numpy()
    scale = np.linalg.norm(margins) / np.linalg.norm(expected)  # of log-odds
    np.testing.assert_allclose(margins / scale, expected, atol=1e-6)
    assert np.log2(scale) == pytest.approx(round(np.log2(scale)), abs=1e-5)


def test_one_direction_is_the_best_approximation_of_rank_one() -> None:
    rng = np.random.default_rng(0)
    pairs = np.array([rng.permutation(9)[:2] for _ in range(60)])
    graph = PreferenceGraph(
        tuple(map(str, range(12))),
        tuple(map(str, range(9))),
        Comparisons(rng.integers(0, 12, 60), pairs[:, 0], pairs[:, 1]),
    )
    whole = SvdEncoder(SvdOptions(embedding_dim=9)).fit(graph, seed=0, progress=SilentProgress())
    matrix = (whole.users @ whole.responses.T).numpy()
    left, values, right = np.linalg.svd(matrix)
    one = SvdEncoder(SvdOptions(embedding_dim=1)).fit(graph, seed=0, progress=SilentProgress())
    best, found = values[0] * np.outer(left[:, 0], right[0]), (one.users @ one.responses.T).numpy()
    np.testing.assert_allclose(found / np.linalg.norm(found), best / np.linalg.norm(best), atol=1e-4)
