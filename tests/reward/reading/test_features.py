"""Frozen features of responses, and the pass that keeps hidden states on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from copl.records import ResponseTable
from copl.reward.backbones.loaded import LoadedBackbone, collate, encode_responses, pool
from copl.reward.reading.cached import FrozenTrunk
from copl.reward.reading.features import Read, frozen_pass, pooled_features
from copl.system.progress import SilentProgress

Make = Callable[[str], LoadedBackbone]
TABLE = ResponseTable(["w1 w2", "w1 w2", "w3", ""], ["w4", "w5 w6 w7 w8", "w9 w1", "w2 w3"])


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_features_are_the_pooled_states_of_each_text_alone(kind: str, make_backbone: Make) -> None:
    backbone = make_backbone(kind)
    rows = np.array([3, 0, 1, 3])
    found = pooled_features(backbone, TABLE, rows, max_length=32, progress=SilentProgress())
    for place, row in enumerate(rows):
        tokens = collate(encode_responses(backbone, TABLE, np.array([row]), 32), [0])
        with torch.no_grad():
            hidden = backbone.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        expected = pool(hidden.last_hidden_state, tokens.attention_mask, backbone.pooling)[0]
        torch.testing.assert_close(found[place], expected, atol=1e-5, rtol=1e-4)


class Shelf:
    """Features of some rows of the table, computed once for whoever asks first."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = np.array(rows)
        self.found: Tensor | None = None

    def __call__(self, rows: np.ndarray[Any, Any], read: Read) -> Tensor:
        if self.found is None:
            self.found = read(TABLE, self.rows)
        return self.found[torch.from_numpy(np.searchsorted(self.rows, rows))]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_hidden_states_are_the_same_however_the_features_come(
    kind: str, make_backbone: Make, tmp_path: Path, listener: Any
) -> None:
    backbone, rows, shelf = make_backbone(kind), np.array([3, 1]), Shelf([0, 1, 2, 3])
    encoded = encode_responses(backbone, TABLE, rows, 32)
    trunk = FrozenTrunk(backbone.model, backbone.num_layers, 2)
    plain = frozen_pass(backbone, encoded, trunk, directory=tmp_path, progress=listener)
    read_along, read_alone = (
        frozen_pass(backbone, encoded, trunk, directory=tmp_path, progress=listener, shared=shelf, rows=rows)
        for _ in range(2)
    )
    assert len(listener.tasks) == 3
    for found in (read_along, read_alone):
        assert plain.kept is not None
        assert found.kept is not None
        assert plain.kept.flat.abs().max() > 1e-3
        torch.testing.assert_close(found.kept.flat, plain.kept.flat, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.pooled, plain.pooled, atol=1e-5, rtol=1e-5)


def test_texts_that_the_others_did_not_read_are_kept_all_the_same(make_backbone: Make, tmp_path: Path) -> None:
    """A table may hold the same text twice; features are those of one of the rows."""
    backbone = make_backbone("bert")
    encoded = encode_responses(backbone, TABLE, np.array([1, 3]), 32)
    trunk = FrozenTrunk(backbone.model, backbone.num_layers, 2)
    plain, shared = (
        frozen_pass(backbone, encoded, trunk, directory=tmp_path, progress=SilentProgress(), shared=shelf, rows=rows)
        for shelf, rows in ((None, None), (Shelf([0, 3]), np.array([1, 3])))
    )
    assert plain.kept is not None
    assert shared.kept is not None
    torch.testing.assert_close(shared.kept.flat, plain.kept.flat, atol=1e-5, rtol=1e-5)


def test_shared_features_need_no_pass_where_nothing_is_kept(make_backbone: Make, tmp_path: Path, listener: Any) -> None:
    backbone, shelf = make_backbone("bert"), Shelf([0, 1, 2, 3])
    encoded = encode_responses(backbone, TABLE, np.array([2, 0]), 32)
    first, second = (
        frozen_pass(backbone, encoded, None, directory=tmp_path, progress=listener, shared=shelf, rows=np.array([2, 0]))
        for _ in range(2)
    )
    assert listener.tasks == ["reading responses"]
    assert torch.equal(first.pooled, second.pooled)
    assert not list(tmp_path.iterdir())
