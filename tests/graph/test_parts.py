"""A graph of some responses, and back."""

from __future__ import annotations

import attrs
import numpy as np
import torch

from copl.graph.parts import compared_responses, restricted, spread_out
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.records.passes import GroupPass, LayerPass, SignedPass


def graph() -> PreferenceGraph:
    rows, validation = Comparisons([0, 1, 1], [1, 4, 1], [4, 1, 3]), Comparisons([0, 1], [4, 0], [1, 4])
    return PreferenceGraph(("u", "v"), tuple("abcde"), rows, validation, torch.zeros(5, 2))


def test_only_what_was_compared_is_kept() -> None:
    whole = graph()
    kept = compared_responses(whole.comparisons)
    assert kept.tolist() == [1, 3, 4]
    part = restricted(whole, kept)
    assert part.response_keys == ("b", "d", "e")
    assert part.response_features is None
    assert part.comparisons.chosen.tolist() == [0, 2, 0]
    assert part.comparisons.rejected.tolist() == [2, 0, 1]
    assert part.validation.chosen.tolist() == [2]  # the other one touches what is not kept
    assert part.validation.user.tolist() == [0]


def test_back_to_all_responses() -> None:
    whole, kept = graph(), np.array([1, 3, 4])
    part = restricted(whole, kept)
    layers = (LayerPass(torch.arange(6.0).reshape(3, 2), own=torch.eye(2)),)
    signed = SignedPass(torch.zeros(2), torch.eye(2), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), layers)
    small = NodeEmbeddings(
        part.user_ids,
        part.response_keys,
        torch.ones(2, 2),
        torch.arange(6.0).reshape(3, 2) + 1,
        torch.tensor([1.0, 2.0, 3.0]),
        part.comparisons,
        newcomer_pass=signed,
    )
    found = spread_out(small, whole, kept)
    assert found.response_keys == whole.response_keys
    assert found.comparisons is whole.comparisons
    assert torch.equal(found.responses[kept], small.responses)
    assert not found.responses[[0, 2]].any()
    assert found.response_bias.tolist() == [0.0, 1.0, 0.0, 2.0, 3.0]
    assert isinstance(found.newcomer_pass, SignedPass)
    assert found.newcomer_pass.degrees.tolist() == [[0.0, 1.0, 0.0, 2.0, 3.0], [0.0, 4.0, 0.0, 5.0, 6.0]]
    assert torch.equal(found.newcomer_pass.layers[0].responses[kept], layers[0].responses)
    assert not found.newcomer_pass.layers[0].responses[[0, 2]].any()
    groups = GroupPass(torch.eye(2), torch.zeros(2))
    assert spread_out(attrs.evolve(small, newcomer_pass=groups), whole, kept).newcomer_pass is groups
