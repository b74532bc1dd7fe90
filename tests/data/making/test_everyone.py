"""A data set for use: everybody is learned from, and added rows move nothing."""

from __future__ import annotations

import attrs
import numpy as np

from copl.data.dataset import load_dataset
from copl.data.making.everyone import VALIDATION_SHARE, for_everyone
from copl.data.sources.planted import PlantedOptions, generate
from copl.records import Comparisons, PreferenceData


def rows_of(data: PreferenceData, *splits: str) -> set[tuple[str, str, str]]:
    keys, ids = data.responses.keys, data.users.ids
    return {
        (ids[user], keys[chosen], keys[rejected])
        for split in splits
        for rows in [data.splits.get(split, Comparisons.empty())]
        for user, chosen, rejected in zip(rows.user, rows.chosen, rows.rejected, strict=True)
    }


def planted() -> PreferenceData:
    return generate(PlantedOptions(num_seen_users=30, num_unseen_users=10), seed=0)[0]


def test_everything_is_trained_on_but_what_chooses_and_stops() -> None:
    data = planted()
    whole = for_everyone(data)
    assert set(whole.splits) == {"train", "validation"}
    assert rows_of(whole, "validation") == rows_of(data, "validation")
    others = [split for split in data.splits if split != "validation"]
    assert {"test", "support", "heldout"} <= set(others)
    assert rows_of(whole, "train") == rows_of(data, *others)
    assert len(whole.splits["train"]) == sum(len(data.splits[split]) for split in others)
    trained = {data.users.ids[row] for row in whole.splits["train"].user}
    assert trained == set(data.users.ids)


def test_without_a_validation_split_a_tenth_is_taken_that_added_rows_do_not_move() -> None:
    data = planted()
    everything = Comparisons.concat([data.splits[split] for split in data.present()])
    bare = attrs.evolve(data, splits={"train": everything})
    whole = for_everyone(bare)
    share = len(whole.splits["validation"]) / len(everything)
    assert 0.5 * VALIDATION_SHARE < share < 1.5 * VALIDATION_SHARE
    assert rows_of(whole, "train", "validation") == rows_of(bare, "train")
    assert {data.users.ids[row] for row in whole.splits["train"].user} == set(data.users.ids)
    fewer = attrs.evolve(data, splits={"train": everything.take(np.arange(len(everything)) % 2 == 0)})
    held, held_before = rows_of(whole, "validation"), rows_of(for_everyone(fewer), "validation")
    first = {min(np.flatnonzero(everything.user == user)) for user in np.unique(everything.user)}
    moved = held_before - held
    assert moved <= rows_of(attrs.evolve(data, splits={"train": everything.take(np.array(sorted(first)))}), "train")


def test_user_with_one_comparison_is_trained_on() -> None:
    data = planted()
    one_each = data.splits["train"].take(np.unique(data.splits["train"].user, return_index=True)[1])
    whole = for_everyone(attrs.evolve(data, splits={"train": one_each}))
    assert len(whole.splits["train"]) == len(one_each)
    assert not len(whole.splits["validation"])


def test_a_data_set_from_disk(small_data) -> None:
    data = load_dataset(small_data)
    assert rows_of(for_everyone(data), "train", "validation") == rows_of(data, *data.splits)
