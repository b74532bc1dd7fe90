"""Source ``subset``: less of a data set that is there: fewer users, fewer comparisons of each, k-shot supports.

What is taken is nested: with the same seed, a smaller number takes a part of what a larger one takes, so that results
over growing numbers differ by what was added alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import numpy as np

from copl.data.making.dealing import speaking, with_something_learnt
from copl.data.making.notes import noted
from copl.data.making.splits import SPLIT_VERSION, drop_stranded, generator
from copl.data.pairs import compact_all, openings, pair_numbers
from copl.errors import DataError
from copl.options import option, options_to_dict
from copl.plugins import Component
from copl.records import SPLITS, Comparisons, PreferenceData
from copl.records.judgements import Judgements
from copl.system.converters import number_rows, ranks

if TYPE_CHECKING:
    from numpy.random import Generator

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
    train_per_user: int | None = option(
        None, help="training comparisons and judgements of a user to keep at most", validator=_LIMIT
    )
    support: int | None = option(
        None, help="comparisons and judgements an unseen user gives at most: k for k-shot adaptation", validator=_LIMIT
    )
    eval_per_user: int | None = option(
        None, help="comparisons of a user to keep at most in each split that measures", validator=_LIMIT
    )


def first_per_user(
    comparisons: Comparisons, judgements: Judgements, limit: int, rng: Generator
) -> tuple[Comparisons, Judgements]:
    """Return the first `limit` things that each user says, in an order that depends on the generator alone.

    That is a pair, which counts once and stays whole where a user has judged it more than once, a tie, a thumb or a
    rating.
    """
    pair, subject = number_rows(pair_numbers(comparisons)), judgements.subjects
    begin = openings(pair)
    owner = np.concatenate([comparisons.user[begin], judgements.user[openings(subject)]])
    is_kept = ranks(owner, rng.random(len(owner))) < limit
    return comparisons.take(is_kept[pair]), judgements.take(is_kept[len(begin) + subject])


def take_subset(
    data: PreferenceData, options: SubsetOptions, *, seed: int
) -> tuple[dict[str, Comparisons], dict[str, Judgements]]:
    """Return the comparisons and the judgements of each split that are kept."""
    given = {name: data.splits.get(name, Comparisons.empty()) for name in SPLITS}
    judged = {name: data.judgements.get(name, Judgements.empty()) for name in SPLITS}

    def speakers(name: str) -> IntArray:
        return np.unique(np.concatenate([given[name].user, judged[name].user]))

    seen = _some(speakers("train"), options.num_users, len(data.users), generator(seed, "users"))
    rng = generator(seed, "unseen users")
    unseen = _some(speakers("support"), options.num_unseen_users, len(data.users), rng)
    limits = {"train": options.train_per_user, "support": options.support}
    splits, judgements = {}, {}
    for name in SPLITS:
        users = unseen if name in ("support", "heldout") else seen
        limit = limits.get(name, options.eval_per_user)
        parts = given[name], judged[name]
        if limit is not None:
            # The order is drawn over all users, so that it stays what it is when fewer are kept.
            parts = first_per_user(*parts, limit, generator(seed, name))
        splits[name], judgements[name] = parts[0].take(users[parts[0].user]), parts[1].take(users[parts[1].user])
    return splits, judgements


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
        from copl.data.dataset import dataset_fingerprint, load_dataset

        options = self._options
        data = load_dataset(options.path)
        splits, judgements = take_subset(data, options, seed=seed)
        if any(map(len, judgements.values())):
            splits = with_something_learnt(splits, speaking(len(data.users), splits, judgements))
        else:
            splits = dict(drop_stranded(splits, {}).splits)
        if not len(splits["train"]) + len(judgements["train"]):
            raise DataError(f"{options.path}: nothing to train on; is there a split train?")
        kept = {name: part for name, part in judgements.items() if len(part)}
        users, responses, splits, kept = compact_all(data.users, data.responses, splits, kept)
        whole = dict(data.provenance)
        asked = options_to_dict(options)
        taken = ", ".join(f"{name} {value}" for name, value in asked.items() if name != "path") or "everything"
        provenance = {
            **whole,
            "subset": {"options": asked, "seed": seed, "of": dataset_fingerprint(options.path)},
            "split_version": whole.get("split_version", SPLIT_VERSION),
            **noted(whole, [f"A part of data set {data.name!r}: {taken}."]),
        }
        return PreferenceData(data.name, users, responses, splits, provenance, kept)


COMPONENTS = [
    Component(
        "subset",
        SubsetOptions,
        SubsetSource,
        "less of a data set that is there: fewer users, fewer comparisons of each, k-shot supports",
    )
]
