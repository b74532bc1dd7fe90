"""The order of comparisons in training: every one once an epoch, and texts shared where they can be."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.records import Comparisons
from copl.reward.batches import PairCollator, ScheduledBatches, routed_epoch, shared_epoch


class _Encoded:
    ids = np.arange(9, dtype=np.int32)
    offsets = np.array([0, 3, 6, 9])
    lengths = np.array([3, 3, 3])
    pad_id = 0


def test_shared_texts_are_packed_once() -> None:
    encoded_like = _Encoded()
    pairs = Comparisons([0, 1], [2, 2], [0, 1])
    batch = PairCollator(encoded_like, pairs, torch.zeros(2, 0), shared=True, kept=None)([np.array([0, 1])])  # type: ignore[arg-type]
    assert len(batch["input_ids"]) == 3
    assert batch["place"].tolist() == [2, 2, 0, 1]


def test_routed_batches_hold_every_comparison_once_and_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=231)
    batches = routed_epoch(lengths, 4, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(231))
    assert sorted(len(batch) for batch in batches)[:2] == [3, 4]
    assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 10  # of lengths from 1 to 99


@given(st.integers(1, 3), st.integers(1, 12), st.integers(2, 7), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_shared_batches_hold_every_comparison_once_and_few_texts(
    num_prompts: int, num_texts: int, batch_size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(num_prompts, size=num_texts + 1)
    pairs = Comparisons(np.zeros(60, dtype=np.int64), *rng.integers(num_texts + 1, size=(2, 60)))
    batches = shared_epoch(pairs, groups, batch_size, rng)
    assert sorted(np.concatenate(batches).tolist()) == list(range(60))
    for batch in batches:
        texts = np.union1d(pairs.chosen[batch], pairs.rejected[batch])
        assert len(texts) <= 2 * batch_size


def test_shared_batches_keep_prompts_whole() -> None:
    groups = np.repeat(np.arange(10), 4)
    user, first = np.zeros(500, dtype=np.int64), np.random.default_rng(0).integers(40, size=500)
    pairs = Comparisons(user, first, first // 4 * 4 + (first + 1) % 4)
    batches = shared_epoch(pairs, groups, 8, np.random.default_rng(0))
    assert len(batches) == 3  # ten prompts of four texts, two a block, two blocks a batch
    prompts = np.concatenate([np.unique(groups[pairs.chosen[batch]]) for batch in batches])
    assert len(prompts) == len(np.unique(prompts))


def test_the_schedule_goes_on_epoch_after_epoch() -> None:
    rng = np.random.default_rng(0)
    schedule = ScheduledBatches(lambda: routed_epoch(np.ones(10), 4, rng), 7)  # type: ignore[arg-type]
    assert len(schedule) == 7
    epochs = [np.concatenate([schedule[n] for n in part]) for part in (range(3), range(3, 6))]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()
