"""Frozen features of responses, as methods outside the package take them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from copl.progress import SilentProgress
from copl.records import ResponseTable
from copl.reward.backbone import LoadedBackbone, collate, encode_responses, pool
from copl.reward.features import pooled_features

TABLE = ResponseTable(["w1 w2", "w1 w2", "w3", ""], ["w4", "w5 w6 w7 w8", "w9 w1", "w2 w3"])


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_features_are_the_pooled_states_of_each_text_alone(
    kind: str, make_backbone: Callable[[str], LoadedBackbone]
) -> None:
    backbone = make_backbone(kind)
    rows = np.array([3, 0, 1, 3])
    found = pooled_features(backbone, TABLE, rows, max_length=32, progress=SilentProgress())
    for place, row in enumerate(rows):
        tokens = collate(encode_responses(backbone, TABLE, np.array([row]), 32), [0])
        with torch.no_grad():
            hidden = backbone.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        expected = pool(hidden.last_hidden_state, tokens.attention_mask, backbone.pooling)[0]
        torch.testing.assert_close(found[place], expected, atol=1e-5, rtol=1e-4)
