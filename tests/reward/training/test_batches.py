"""The order of comparisons in training: every one once an epoch, and texts shared where they can be."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.records import Comparisons
from copl.reward.training.batches import PairCollator, alike, routed_epoch, scheduled, shared_epoch, sharing_pays


class _Encoded:
    ids = np.arange(9, dtype=np.int32)
    offsets = np.array([0, 3, 6, 9])
    lengths = np.array([3, 3, 3])
    pad_id = 0


def test_a_text_is_read_once_for_all_users_of_a_route() -> None:
    encoded_like = _Encoded()
    pairs = Comparisons([0, 1, 2], [2, 2, 2], [0, 1, 0])

    def collated(routes: list[int]) -> dict[str, Any]:
        collator = PairCollator(encoded_like, pairs, torch.zeros(3, 0), routes=np.array(routes), kept=None)  # type: ignore[arg-type]
        return collator(np.arange(3))

    alike = collated([0, 0, 0])
    assert alike["input_ids"].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert alike["place"].tolist() == [2, 2, 2, 0, 1, 0]
    # the last user has experts of its own: texts 0 and 2 are read once more, for the third comparison
    apart = collated([0, 0, 1])
    assert apart["input_ids"][:, 0].tolist() == [0, 0, 3, 6, 6]
    assert apart["place"].tolist() == [3, 3, 4, 0, 2, 1]
    assert apart["reader"].tolist() == [0, 2, 1, 0, 2]


def test_routed_batches_hold_every_comparison_once_and_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=231)
    batches = routed_epoch(lengths, 4, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(231))
    assert sorted(len(batch) for batch in batches)[:2] == [3, 4]
    assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 10  # of lengths from 1 to 99


@given(st.integers(1, 3), st.integers(1, 12), st.integers(2, 7), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=40)
def test_shared_batches_hold_every_comparison_once_and_few_texts(
    num_prompts: int, num_texts: int, batch_size: int, num_routes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(num_prompts, size=num_texts + 1)
    routes = rng.integers(num_routes, size=5)
    pairs = Comparisons(rng.integers(5, size=60), *rng.integers(num_texts + 1, size=(2, 60)))
    batches = shared_epoch(pairs, routes, groups, batch_size, rng)
    assert sorted(np.concatenate(batches).tolist()) == list(range(60))
    for batch in batches:
        who = np.tile(routes[pairs.user[batch]], 2)
        readings = np.stack([np.concatenate([pairs.chosen[batch], pairs.rejected[batch]]), who])
        assert np.unique(readings, axis=1).shape[1] <= 2 * batch_size


def test_shared_batches_keep_prompts_whole() -> None:
    groups = np.repeat(np.arange(10), 4)
    user, first = np.zeros(500, dtype=np.int64), np.random.default_rng(0).integers(40, size=500)
    pairs = Comparisons(user, first, first // 4 * 4 + (first + 1) % 4)
    batches = shared_epoch(pairs, np.zeros(1, dtype=np.int64), groups, 8, np.random.default_rng(0))
    assert len(batches) == 3  # ten prompts of four texts, two a block, two blocks a batch
    prompts = np.concatenate([np.unique(groups[pairs.chosen[batch]]) for batch in batches])
    assert len(prompts) == len(np.unique(prompts))


def test_sharing_pays_where_texts_recur() -> None:
    rng, routes, groups = np.random.default_rng(0), np.zeros(1, dtype=np.int64), np.zeros(400, dtype=np.int64)
    user = np.zeros(200, dtype=np.int64)
    few = Comparisons(user, *rng.integers(20, size=(2, 200)))
    assert sharing_pays(few, routes, groups, batch_size=8)
    # 200 comparisons at random among 400 texts: hardly two of them lie between the same two blocks
    assert not sharing_pays(Comparisons(user, *rng.integers(400, size=(2, 200))), routes, groups, batch_size=8)
    assert not sharing_pays(attrs.evolve(few, user=np.arange(200)), np.arange(200), groups, batch_size=8)


def test_the_schedule_goes_on_epoch_after_epoch() -> None:
    rng = np.random.default_rng(0)
    schedule = scheduled(lambda: routed_epoch(np.ones(10), 4, rng), 7)  # type: ignore[arg-type]
    assert len(schedule) == 7
    epochs = [np.concatenate([schedule[n] for n in part]) for part in (range(3), range(3, 6))]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_batch_is_divided_where_that_saves_padding() -> None:
    lengths = torch.tensor([30, 2, 3, 30, 2, 2, 3, 2, 3, 2, 30, 3, 2, 3, 30, 2])
    mask = (torch.arange(30) < lengths[:, None]).long()
    parts = alike(mask)
    assert sorted(torch.cat(parts).tolist()) == list(range(16))
    assert [int(lengths[part].max()) for part in parts] == [3, 30]  # seven texts of 2 and one of 3
    assert [part.tolist() for part in alike(torch.ones(16, 30))] == [list(range(16))]
    assert len(alike(mask[:8])) == 1
