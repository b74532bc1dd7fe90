"""What reward training draws follows from the texts, not from who named them first."""

from __future__ import annotations

import attrs
import numpy as np

from copl.records import Comparisons, PreferenceData
from copl.reward.training.divisions import hold_out_texts
from copl.reward.training.material import Material, gather
from tests.data.test_living import made, random_rows


def _shuffled(data: PreferenceData, seed: int) -> PreferenceData:
    """Return the same data set with its texts named in another order."""
    order = np.random.default_rng(seed).permutation(len(data.responses))
    place = np.argsort(order)
    splits = {
        name: attrs.evolve(rows, chosen=place[rows.chosen], rejected=place[rows.rejected])
        for name, rows in data.splits.items()
    }
    return PreferenceData(data.name, data.users, data.responses.take(order), splits, data.provenance)


def _told(data: PreferenceData, material: Material, rows: Comparisons) -> list[tuple[str, str, str]]:
    keys = [data.responses.keys[row] for row in material.texts]
    return [
        (material.user_ids[user], keys[chosen], keys[rejected])
        for user, chosen, rejected in zip(rows.user, rows.chosen, rows.rejected, strict=True)
    ]


def test_texts_and_what_is_held_out_of_them_do_not_depend_on_the_order_of_the_table() -> None:
    data = made(random_rows(400))
    other = _shuffled(data, 1)
    one, two = gather(data, None), gather(other, None)
    assert not np.array_equal(one.texts, two.texts)
    assert [data.responses.keys[row] for row in one.texts] == [other.responses.keys[row] for row in two.texts]
    assert np.array_equal(one.groups, two.groups)
    assert _told(data, one, one.train) == _told(other, two, two.train)
    assert _told(data, one, one.validation) == _told(other, two, two.validation)
    for seed in range(3):
        held, also = hold_out_texts(one.train, one.groups, seed), hold_out_texts(two.train, two.groups, seed)
        assert 0 < len(held.new_text) < len(one.train)
        assert _told(data, one, held.new_text) == _told(other, two, also.new_text)
        assert _told(data, one, held.fitted) == _told(other, two, also.fitted)


def test_groups_are_prompts_and_rows_are_those_of_the_data() -> None:
    data = made(random_rows(200))
    material = gather(data, None)
    prompts = [data.responses.prompts[row] for row in material.texts]
    same_group = material.groups[:, None] == material.groups[None]
    assert np.array_equal(same_group, np.array(prompts)[:, None] == np.array(prompts)[None])
    train = data.split("train").comparisons
    assert _told(data, material, material.train) == [
        (data.users.ids[user], data.responses.keys[chosen], data.responses.keys[rejected])
        for user, chosen, rejected in zip(train.user, train.chosen, train.rejected, strict=True)
    ]
