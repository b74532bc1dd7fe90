from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.adapt.explain import explain
from copl.adapt.laplace import posterior_modes
from copl.adapt.support import match
from copl.records import Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable

TEXTS = [f"text {n}" for n in range(8)]
RESPONSES = ResponseTable(["p"] * len(TEXTS), TEXTS)


def trained(seed: int) -> NodeEmbeddings:
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(6), 4)
    first = rng.integers(8, size=len(user))
    rows = Comparisons(user, first, (first + rng.integers(1, 8, size=len(user))) % 8)
    tables = (torch.from_numpy(rng.normal(size=(count, 3))).float() for count in (6, 8))
    bias = torch.from_numpy(rng.normal(size=8)).float()
    return NodeEmbeddings(tuple(f"u{n}" for n in range(6)), RESPONSES.keys, *tables, bias, rows)


def said(user: str, pairs: list[tuple[int, int]]) -> ComparisonSet:
    chosen, rejected = zip(*pairs, strict=True) if pairs else ((0,), (0,))
    weight = [1.0] * len(pairs) or [0.0]
    count = len(weight)
    return ComparisonSet(UserTable.ungrouped([user]), RESPONSES, Comparisons([0] * count, chosen, rejected, weight))


def difference(space: NodeEmbeddings, one: int, other: int) -> torch.Tensor:
    table = torch.cat([space.responses, space.response_bias[:, None]], dim=1).double()
    return table[one] - table[other]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.integers(0, 7), st.integers(1, 7))
def test_the_parts_are_the_score(seed: int, one: int, step: int) -> None:
    space = trained(seed)
    pair = difference(space, one, (one + step) % 8)
    heard = match(said("u2", []), space)
    explained = explain("u2", heard, space, space.users[2], pair)
    score = float(space.users[2].double() @ pair[:-1] + pair[-1])
    assert explained.score == pytest.approx(score, abs=1e-6)
    assert sum(part.amount for part in explained.parts) == pytest.approx(score, abs=1e-6)
    assert explained.num_answers == 4
    own = [part for part in explained.parts if part.source == "own answer"]
    rows = space.comparisons.take(space.comparisons.user == 2)
    assert sorted((part.chosen, part.rejected) for part in own) == sorted(
        (RESPONSES.keys[c], RESPONSES.keys[r])
        for c, r in zip(rows.chosen.tolist(), rows.rejected.tolist(), strict=True)
    )
    assert "u2" not in [part.user for part in explained.parts]


def test_who_is_what_their_answers_say_is_explained_by_these_alone() -> None:
    space = trained(3)
    heard = match(said("new", [(0, 1), (0, 2), (3, 2)]), space)
    users = space.users.double()
    centred = users - users.mean(dim=0)
    factor = torch.linalg.cholesky(2 * centred.T @ centred / len(users))
    mode = posterior_modes(heard, users.mean(dim=0), factor)[0][0]
    pair = difference(space, 0, 4)
    explained = explain("new", heard, space, mode, pair)
    by_source = {source: sum(p.amount for p in explained.parts if p.source == source) for source in
                 ("everybody", "own answer", "like-minded user", "other users", "rest")}  # fmt: skip
    assert by_source["everybody"] == pytest.approx(float(users.mean(dim=0) @ pair[:-1] + pair[-1]))
    assert by_source["own answer"] == pytest.approx(float((mode - users.mean(dim=0)) @ pair[:-1]), abs=1e-6)
    assert [by_source[name] for name in ("like-minded user", "other users", "rest")] == pytest.approx([0] * 3, abs=1e-6)


def test_more_answers_are_surer_and_no_answer_is_the_prior() -> None:
    space = trained(1)
    pair = difference(space, 0, 4)
    mean = space.users.double().mean(dim=0)
    deviations = []
    for pairs in ([], [(0, 1)], [(0, 1), (2, 4), (0, 5), (6, 4)]):
        explained = explain("new", match(said("new", pairs), space), space, mean, pair)
        deviations.append(explained.deviation)
        assert explained.num_answers == len(pairs)
        assert 0 < explained.probability < 1
    assert deviations == sorted(deviations, reverse=True)
    centred = space.users.double() - mean
    variance = 2 * float((centred @ pair[:-1]).square().mean())
    assert deviations[0] == pytest.approx(variance**0.5)


def test_an_answer_of_any_weight_is_explained() -> None:
    space = trained(4)
    heavy = ComparisonSet(UserTable.ungrouped(["new"]), RESPONSES, Comparisons([0, 0], [0, 2], [1, 3], [1e30, 1e-30]))
    explained = explain("new", match(heavy, space), space, space.users[0], difference(space, 0, 1))
    assert np.isfinite([part.amount for part in explained.parts]).all()
    assert sum(part.amount for part in explained.parts) == pytest.approx(explained.score)


def test_scaling_adds_up() -> None:
    space = trained(2)
    explained = explain("u0", match(said("u0", []), space), space, space.users[0], difference(space, 0, 1))
    scaled = explained.scaled(0.5)
    assert scaled.score == pytest.approx(0.5 * explained.score)
    assert scaled.deviation == pytest.approx(0.5 * explained.deviation)
