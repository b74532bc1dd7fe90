"""Passes of the frozen backbone: whole ones, and the halves that come to the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from copl.records import ResponseTable
from copl.reward.backbones.loaded import LoadedBackbone, collate, encode_responses, pool
from copl.reward.reading import passes
from copl.reward.reading.kept import KeptRows
from copl.reward.reading.passes import Read, length_batches, lower_pass, take, upper_pass, whole_pass
from copl.reward.reading.trunk import FrozenTrunk
from copl.system.progress import SilentProgress

Make = Callable[[str], LoadedBackbone]
TABLE = ResponseTable(["w1 w2", "w1 w2", "w3", ""], ["w4", "w5 w6 w7 w8", "w9 w1", "w2 w3"])
KEYS = [str(n) for n in range(4)]


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("at_once", [1, 1 << 20])  # each batch by itself, and all of them together
def test_halves_of_a_pass_give_the_states_of_each_text_alone(
    kind: str, at_once: int, make_backbone: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "_BYTES_AT_ONCE", at_once)
    backbone = make_backbone(kind)
    encoded = encode_responses(backbone, TABLE, np.arange(4), 32)
    trunk = FrozenTrunk(backbone.model, backbone.num_layers, 2)
    states, pooled = [KeptRows(), KeptRows()], [KeptRows(), KeptRows()]

    def put(way: int) -> Callable[[Read], None]:
        def keep(read: Read) -> None:
            names = [KEYS[place] for place in read.places]
            if read.states is not None:
                states[way].put(names, encoded.lengths[read.places], read.states)
            if read.pooled is not None:
                pooled[way].put(names, np.ones(len(names), dtype=np.int64), read.pooled)

        return keep

    take(whole_pass(backbone, encoded, trunk), 4, SilentProgress(), put(0))
    take(lower_pass(backbone, encoded, trunk), 4, SilentProgress(), put(1))
    take(upper_pass(backbone, encoded, trunk, states[1].get(KEYS)), 4, SilentProgress(), put(1))
    for row in range(4):
        tokens = collate(encoded, [row])
        with torch.no_grad(), trunk.keeping() as kept:
            hidden = backbone.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        expected = pool(hidden, tokens.attention_mask, backbone.pooling)
        for way in range(2):
            torch.testing.assert_close(pooled[way].get_single([KEYS[row]]), expected, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(states[way].get([KEYS[row]]).text(0), kept[0][0], atol=1e-5, rtol=1e-4)


def test_without_a_trunk_no_states_are_kept(make_backbone: Make) -> None:
    backbone = make_backbone("bert")
    (read,) = whole_pass(backbone, encode_responses(backbone, TABLE, np.arange(4), 32), None)
    assert read.states is None
    assert read.pooled is not None


def test_batches_by_length_hold_every_text_once() -> None:
    lengths = np.array([5, 50, 7, 30, 5, 200])
    batches = list(length_batches(lengths, tokens=60))
    assert sorted(np.concatenate(batches).tolist()) == list(range(6))
    assert [sorted(batch.tolist()) for batch in batches[:2]] == [[5], [1]]
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= 60 for b in batches)
