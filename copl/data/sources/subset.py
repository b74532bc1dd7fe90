"""Source ``subset``: less of a data set that is there: fewer users, fewer comparisons of each, k-shot supports.

What is taken is nested: with the same seed, a smaller number takes a part of what a larger one takes, so that results
over growing numbers differ by what was added alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import numpy as np

from copl.data.dataset import dataset_fingerprint, load_dataset
from copl.data.making.splits import SPLIT_VERSION, drop_stranded, generator
from copl.data.pairs import compact, openings, pair_numbers
from copl.errors import DataError
from copl.options import option, options_to_dict
from copl.plugins import Component
from copl.records import SPLITS, Comparisons, PreferenceData
from copl.system.converters import number_rows

if TYPE_CHECKING:
    from numpy.random import Generator

    from copl.interfaces import DatasetSource
    from copl.records import BoolArray, IntArray

_LIMIT = attrs.validators.optional(attrs.validators.ge(1))


@final
@attrs.frozen(kw_only=True)
class SubsetOptions:
    """How much to take; none takes all."""

    path: Path = option(help="directory of the data set, as copl data make writes it")
    num_users: int | None = option(None, help="seen users to keep", validator=_LIMIT)
    num_unseen_users: int | None = option(
        None, help="unseen users to keep", validator=attrs.validators.optional(attrs.validators.ge(0))
    )
    train_per_user: int | None = option(None, help="training comparisons of a user to keep at most", validator=_LIMIT)
    support: int | None = option(
        None, help="comparisons an unseen user gives at most: k for k-shot adaptation", validator=_LIMIT
    )
    eval_per_user: int | None = option(
        None, help="comparisons of a user to keep at most in each split that measures", validator=_LIMIT
    )


def first_per_user(comparisons: Comparisons, limit: int, rng: Generator) -> Comparisons:
    """Return the comparisons of each user's first `limit` pairs, in an order that depends on the generator alone.

    A pair that a user has judged more than once counts once and stays whole.
    """
    pair = number_rows(pair_numbers(comparisons))
    owner = comparisons.user[openings(pair)]
    return comparisons.take((_ranks(owner, rng) < limit)[pair])


def _ranks(owner: IntArray, rng: Generator) -> IntArray:
    """Return a random rank for each unit among those of its owner, counted from 0."""
    order = np.lexsort((rng.random(len(owner)), owner))
    starts = np.searchsorted(owner[order], owner[order], side="left")
    ranks = np.empty(len(owner), dtype=np.int64)
    ranks[order] = np.arange(len(owner)) - starts
    return ranks


def take_subset(data: PreferenceData, options: SubsetOptions, *, seed: int) -> dict[str, Comparisons]:
    """Return the comparisons of each split that are kept."""
    parts = {name: data.splits.get(name, Comparisons.empty()) for name in SPLITS}
    seen = _some(np.unique(data.split("train").comparisons.user), options.num_users, len(data.users),
                 generator(seed, "users"))  # fmt: skip
    newcomers = np.unique(data.split("support").comparisons.user)
    unseen = _some(newcomers, options.num_unseen_users, len(data.users), generator(seed, "unseen users"))
    limits = {"train": options.train_per_user, "support": options.support}
    kept: dict[str, Comparisons] = {}
    for name, part in parts.items():
        users = unseen if name in ("support", "heldout") else seen
        limit = limits.get(name, options.eval_per_user)
        kept[name] = part.take(users[part.user])
        if limit is not None and len(kept[name]):
            # The order is drawn over all users, so that it stays what it is when fewer are kept.
            chosen = first_per_user(part, limit, generator(seed, name))
            kept[name] = chosen.take(users[chosen.user])
    return kept


def _some(users: IntArray, count: int | None, num_users: int, rng: Generator) -> BoolArray:
    mask = np.zeros(num_users, dtype=np.bool_)
    mask[rng.permutation(users)[:count]] = True
    return mask


@final
class SubsetSource:
    """Takes less of a data set."""

    def __init__(self, options: SubsetOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the data set and take a part of it.

        Raises:
            DataError: the data set is missing or damaged, or nothing is left to train on.
        """
        options = self._options
        data = load_dataset(options.path)
        if any(map(len, data.judgements.values())):
            raise DataError(
                f"{options.path}: has ties, thumbs or ratings, and a subset is one of comparisons; make the data set "
                "of fewer rows instead"
            )
        sound = drop_stranded(take_subset(data, options, seed=seed), {})
        if not len(sound.splits["train"]):
            raise DataError(f"{options.path}: nothing to train on; is there a split train?")
        users, responses, splits = compact(data.users, data.responses, sound.splits)
        whole = dict(data.provenance)
        asked = options_to_dict(options)
        taken = ", ".join(f"{name} {value}" for name, value in asked.items() if name != "path") or "everything"
        provenance = {
            **whole,
            "subset": {"options": asked, "seed": seed, "of": dataset_fingerprint(options.path)},
            "split_version": whole.get("split_version", SPLIT_VERSION),
            "notes": [*whole.get("notes", ()), f"A part of data set {data.name!r}: {taken}."],
        }
        return PreferenceData(data.name, users, responses, splits, provenance)


def _build(options: SubsetOptions) -> DatasetSource:
    return SubsetSource(options)


COMPONENTS = [
    Component(
        "subset",
        SubsetOptions,
        _build,
        "less of a data set that is there: fewer users, fewer comparisons of each, k-shot supports",
    )
]
