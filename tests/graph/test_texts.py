"""Responses by their texts, against the formulas with the whole kernel."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from copl.errors import OptionsError
from copl.graph import texts
from copl.graph.texts import TextCodes, side_by_side_maps, with_texts
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.records.passes import TextMap

NUM, DIM, WIDTH = 12, 2, 1.4
RIDGE, STRENGTH = 0.3, 20.0


def features(count: int = NUM, seed: int = 0) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)) * torch.arange(1.0, 6.0)


def kernel(values: Tensor, others: Tensor, width: float = WIDTH) -> Tensor:
    """The kernel [n, m] as the formula has it, coordinates by what the `others` are like."""
    mean, deviation = others.double().mean(0), others.double().std(0, correction=0)
    known, scaled = (others.double() - mean) / deviation, (values.double() - mean) / deviation
    length = known.square().sum(1).mean().sqrt() * width
    return torch.exp(-0.5 * torch.cdist(scaled / length, known / length).square())


def embeddings(counts: list[int], seed: int = 1) -> NodeEmbeddings:
    """Embeddings of responses of which each is chosen in so many comparisons, against the last two."""
    generator = torch.Generator().manual_seed(seed)
    chosen = np.repeat(np.arange(len(counts)), counts)
    rejected = np.full_like(chosen, len(counts))
    total = len(counts) + 1
    return NodeEmbeddings(
        ("u",),
        tuple(f"r{n}" for n in range(total)),
        torch.ones(1, DIM),
        torch.randn(total, DIM, generator=generator),
        torch.randn(total, generator=generator),
        Comparisons(0 * chosen, chosen, rejected),
    )


def test_codes_have_the_kernel_for_their_inner_product() -> None:
    known, new = features(), features(4, seed=3)
    codes = TextCodes.fit(torch.cat([known, new]), torch.arange(NUM), WIDTH)
    torch.testing.assert_close(codes.codes[:NUM] @ codes.codes[:NUM].T, kernel(known, known).float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(codes.codes[NUM:] @ codes.codes[:NUM].T, kernel(new, known).float(), atol=1e-4, rtol=0)


def test_a_map_by_hand() -> None:
    weight, offset = torch.tensor([[2.0, 1.0]]), torch.tensor([0.5, -0.5])
    landmark = TextMap(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([[1.0]]), weight, offset)
    near = float(np.exp(-0.5 * 2**2))  # 7 is (7 - 1) / 2 = 3, and 2 away from 1
    assert landmark(torch.tensor([[3.0], [7.0]])).tolist() == [
        [2.5, 0.5],
        [pytest.approx(2 * near + 0.5), pytest.approx(near - 0.5)],
    ]
    linear = attrs.evolve(landmark, landmarks=torch.zeros(0, 1))
    assert linear(torch.tensor([[3.0], [7.0]])).tolist() == [[2.5, 0.5], [6.5, 2.5]]


def test_linear_codes_keep_long_axes_long() -> None:
    known = features()
    codes = TextCodes.fit(known, torch.arange(NUM), None).codes
    centred = known - known.mean(0)
    torch.testing.assert_close(codes, centred / centred.square().sum(1).mean().sqrt(), rtol=1e-5, atol=1e-6)


def test_fewer_landmarks_than_texts_come_close(monkeypatch: pytest.MonkeyPatch) -> None:
    known = torch.randn(200, 2, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(texts, "_MAX_LANDMARKS", 60)
    codes = TextCodes.fit(known, torch.arange(200), WIDTH)
    assert len(codes.map.landmarks) == 60
    torch.testing.assert_close(codes.codes @ codes.codes.T, kernel(known, known).float(), atol=0.02, rtol=0)


def test_a_graph_without_texts_says_so() -> None:
    with pytest.raises(OptionsError, match="choose a method with a backbone"):
        TextCodes.of(PreferenceGraph(("u",), ("a", "b"), Comparisons([0], [0], [1])), np.array([0, 1]))


def test_what_is_believed_of_a_response_is_its_own_and_what_the_others_say() -> None:
    counts = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    known = embeddings(counts)
    values = features()
    found = with_texts(known, TextCodes.fit(values, torch.arange(NUM), WIDTH), None)
    times = torch.tensor([*counts, sum(counts)]).double()
    table = torch.cat([known.responses, known.response_bias[:, None]], dim=1).double()
    mean = (times / times.sum()) @ table
    gram, penalty = kernel(values, values), RIDGE * torch.diag(times.mean() / times)
    for row in range(NUM):
        rest = [other for other in range(NUM) if other != row]
        solved = torch.linalg.solve(gram[rest][:, rest] + penalty[rest][:, rest], table[rest] - mean)
        share = times[row] / (times[row] + STRENGTH)
        expected = mean + share * (table[row] - mean) + (1 - share) * (gram[row, rest] @ solved)
        believed = torch.cat([found.responses[row], found.response_bias[row : row + 1]])
        torch.testing.assert_close(believed.double(), expected, rtol=1e-3, atol=1e-3)
    new = features(3, seed=5)
    expected = mean + kernel(new, values) @ torch.linalg.solve(gram + penalty, table - mean)
    assert found.text_map is not None
    torch.testing.assert_close(found.text_map(new).double(), expected, rtol=1e-3, atol=1e-3)


def test_a_response_that_many_judged_keeps_its_own_embedding() -> None:
    known = embeddings([100_000] * 11)
    found = with_texts(known, TextCodes.fit(features(), torch.arange(NUM), WIDTH), None)
    torch.testing.assert_close(found.responses, known.responses, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.response_bias, known.response_bias, atol=2e-3, rtol=0)


def test_a_response_that_nobody_judged_teaches_nothing_and_is_its_text() -> None:
    known = embeddings([0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    strange = known.responses.clone()
    strange[0] = 1e3
    codes = TextCodes.fit(features(), torch.arange(1, NUM), WIDTH)
    found, other = (with_texts(attrs.evolve(known, responses=r), codes, None) for r in (known.responses, strange))
    torch.testing.assert_close(found.responses, other.responses)
    assert found.text_map is not None
    by_text = found.text_map(features()[:1])[0]
    torch.testing.assert_close(found.responses[0], by_text[:-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.response_bias[0], by_text[-1], rtol=1e-4, atol=1e-5)


def test_the_judge_chooses() -> None:
    seen: list[NodeEmbeddings] = []

    def judge(candidate: NodeEmbeddings) -> float:
        seen.append(candidate)
        return abs(len(seen) - 5.0)

    found = with_texts(embeddings([3] * 11), TextCodes.fit(features(), torch.arange(NUM), WIDTH), judge)
    assert len(seen) == 9  # three ridges, three strengths
    assert found is seen[4]


@given(st.integers(2, 6), st.integers(0, 3), st.booleans())
def test_all_is_finite_whatever_the_features(count: int, seed: int, alike: bool) -> None:
    values = torch.ones(count, 5) if alike else features(count, seed)
    found = with_texts(embeddings([1] * (count - 1)), TextCodes.fit(values, torch.arange(count), WIDTH), None)
    assert found.text_map is not None
    assert bool(torch.isfinite(found.text_map(2 * values)).all())
    assert bool(torch.isfinite(found.responses).all())


def test_maps_side_by_side() -> None:
    codes = TextCodes.fit(features(), torch.arange(NUM), WIDTH)
    members = [with_texts(embeddings([3] * 11, seed), codes, None) for seed in (1, 2)]
    joined = side_by_side_maps(members, [2.0, 0.25])
    assert joined is not None
    first, second = (member.text_map(features()) for member in members if member.text_map is not None)
    expected = [first[:, :-1], second[:, :-1], 2 * first[:, -1:] + 0.25 * second[:, -1:]]
    torch.testing.assert_close(joined(features()), torch.cat(expected, dim=1), rtol=1e-4, atol=1e-5)
    assert side_by_side_maps([members[0], attrs.evolve(members[1], text_map=None)], [1.0, 1.0]) is None
    assert side_by_side_maps([], []) is None
