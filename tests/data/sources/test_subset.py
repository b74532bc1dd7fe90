from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copl.data.dataset import dataset_fingerprint, load_dataset, save_dataset
from copl.data.sources.subset import SubsetOptions, SubsetSource, first_per_user
from copl.errors import DataError
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable
from copl.records.judgements import RATING, THUMB, TIE, Judgements


def subset(path: Path, seed: int = 0, **options: Any) -> PreferenceData:
    return SubsetSource(SubsetOptions(path=path, **options)).load(seed=seed)


def keys(data: PreferenceData, split: str) -> set[tuple[str, str, str]]:
    part, table = data.split(split).comparisons, data.responses.keys
    return {
        (data.users.ids[user], table[chosen], table[rejected])
        for user, chosen, rejected in zip(*(c.tolist() for c in (part.user, part.chosen, part.rejected)), strict=True)
    }


def most(data: PreferenceData, split: str) -> int:
    return int(np.bincount(data.split(split).comparisons.user).max())


def test_everything_is_kept_where_nothing_is_asked(small_data: Path) -> None:
    whole, part = load_dataset(small_data), subset(small_data)
    assert {name: keys(part, name) for name in part.present()} == {name: keys(whole, name) for name in whole.present()}
    assert part.provenance["subset"] == {
        "options": {"path": str(small_data)}, "seed": 0, "of": dataset_fingerprint(small_data)
    }  # fmt: skip


def test_fewer_users_and_comparisons(small_data: Path) -> None:
    whole = load_dataset(small_data)
    part = subset(small_data, num_users=10, num_unseen_users=3, train_per_user=5, support=2, eval_per_user=1)
    users = {name: {key[0] for key in keys(part, name)} for name in part.present()}
    assert (len(users["train"]), len(users["support"]), len(users["heldout"])) == (10, 3, 3)
    assert users["validation"] | users["test"] | users["cold"] <= users["train"]
    limits = {"train": 5, "support": 2, "heldout": 1, "validation": 1, "test": 1, "cold": 1}
    assert {name: most(part, name) for name in part.present()} == limits
    assert all(keys(part, name) <= keys(whole, name) for name in part.present())
    assert set(part.users.ids) == users["train"] | users["support"]
    assert "support" not in set(subset(small_data, num_unseen_users=0).present())


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_taken_is_nested(small_data: Path, seed: int) -> None:
    shots = [subset(small_data, seed, support=k, train_per_user=k, num_users=8 * k) for k in (1, 2, 4)]
    for name in ("train", "support"):
        one, two, four = (keys(part, name) for part in shots)
        assert one < two < four


def test_another_seed_takes_others(small_data: Path) -> None:
    one, other = (subset(small_data, seed, num_users=10) for seed in (0, 1))
    assert set(one.users.ids) != set(other.users.ids)


def test_a_pair_counts_once() -> None:
    rows = Comparisons([0, 0, 0, 0, 1], [0, 1, 2, 2, 0], [1, 0, 3, 3, 1])
    rng = np.random.default_rng(0)
    kept, _ = first_per_user(rows, Judgements.empty(), 1, rng)
    assert np.bincount(kept.user).tolist() == [2, 1]
    assert (
        len({frozenset(pair) for pair in zip(kept.chosen[:2].tolist(), kept.rejected[:2].tolist(), strict=True)}) == 1
    )


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory"):
        subset(tmp_path / "none")
    data = PreferenceData("d", UserTable(["u"], [None]), ResponseTable(["p", "p"], ["a", "b"]),
                          {"test": Comparisons([0], [0], [1])})  # fmt: skip
    save_dataset(data, tmp_path / "d")
    with pytest.raises(DataError, match="nothing to train on"):
        subset(tmp_path / "d")


def test_ties_thumbs_and_ratings_are_taken_along(tmp_path: Path) -> None:
    users = UserTable.ungrouped([f"u{n}" for n in range(6)])
    responses = ResponseTable(["p"] * 9, [f"r{n}" for n in range(9)])
    each = np.arange(6)
    judged = Judgements.concat(
        [
            Judgements([THUMB] * 12, np.tile(each, 2), np.repeat([0, 1], 6), [-1] * 12, np.repeat([1.0, -1.0], 6)),
            Judgements([RATING] * 12, np.tile(each, 2), np.repeat([2, 3], 6), [-1] * 12, np.repeat([5.0, 1.0], 6)),
            Judgements([TIE] * 6, each, [4] * 6, [5] * 6, [0.0] * 6),
        ]
    )
    seen, given = judged.take(judged.user < 4), Comparisons(each[:4], [6] * 4, [7] * 4)
    splits = {
        "train": given,
        "test": Comparisons(each[:4], [7] * 4, [8] * 4),
        "heldout": Comparisons([4, 5], [7] * 2, [8] * 2),
    }
    data = PreferenceData("x", users, responses, splits, {}, {"train": seen, "support": judged.take(judged.user >= 4)})
    save_dataset(data, tmp_path / "data")
    before: set[tuple[Any, ...]] = set()
    for limit in (1, 3, 6):
        part = subset(tmp_path / "data", num_users=3, train_per_user=limit, support=2)
        train = part.judgements.get("train", Judgements.empty())
        counts = np.bincount(np.concatenate([train.user, part.splits["train"].user]))
        assert set(counts[counts > 0].tolist()) == {limit}
        assert (counts > 0).sum() == 3
        names, texts = part.users.ids, part.responses.texts
        said = {(names[u], k, texts[r]) for u, k, r in zip(train.user, train.kind, train.response, strict=True)}
        assert before <= said
        before = said
        assert np.bincount(part.judgements["support"].user).max() == 2
        assert len(part.splits["heldout"]) == 2
