"""The dataset source `planted`: options, splits and provenance."""

from __future__ import annotations

from typing import final

import attrs
import numpy as np
from attrs.validators import and_, deep_iterable, ge, gt, le, lt

from copl.data.making.splits import generator
from copl.data.sources.planted.drawing import zipf_weights
from copl.data.sources.planted.world import MAX_GROUPS, PlantedTruth, draw_groups, draw_labels
from copl.options import option, options_to_dict
from copl.plugins import Component
from copl.records import Comparisons, IntArray, PreferenceData, ResponseTable, UserTable

_share = and_(ge(0.0), le(1.0))


@final
@attrs.frozen
class PlantedOptions:
    """Options of the planted graph; the defaults are the case of two groups and seven comparisons."""

    num_seen_users: int = option(10_000, help="users to train on", validator=ge(1))
    num_unseen_users: int = option(0, help="users to adapt to", validator=ge(0))
    num_pairs: int = option(30_000, help="pairs of two responses, each pair with a prompt of its own", validator=ge(1))
    num_groups: int = option(2, help="groups of users", validator=and_(ge(1), le(MAX_GROUPS)))
    group_shares: tuple[float, ...] = option(
        (),
        help="size of each group relative to the others, such as 9,1 for a majority and a minority; equal unless given",
        validator=deep_iterable(gt(0.0)),
    )
    controversial_share: float = option(
        0.5, help="share of the pairs that groups label differently; all agree on the others", validator=_share
    )
    label_noise: float = option(
        0.0, help="probability that a comparison, held out or not, comes out against the label", validator=_share
    )
    popularity: float = option(
        0.0, help="Zipf exponent of how often pairs are compared; 0 makes all equally popular", validator=ge(0.0)
    )
    cold_share: float = option(
        0.1, help="share of the pairs that are never trained on", validator=and_(ge(0.0), lt(1.0))
    )
    num_train: int = option(7, help="mean number of training comparisons of a seen user", validator=ge(1))
    num_validation: int = option(1, help="validation comparisons of a seen user", validator=ge(0))
    num_test: int = option(10, help="held-out comparisons of a seen user on trained pairs", validator=ge(0))
    num_cold: int = option(0, help="comparisons of a seen user on pairs never trained on", validator=ge(0))
    num_support: int = option(7, help="mean number of comparisons an unseen user gives", validator=ge(1))
    num_heldout: int = option(10, help="comparisons an unseen user is judged by, on trained pairs", validator=ge(1))
    spread: float = option(
        0.0,
        help="training and support comparisons of a user: from (1 - spread) to (1 + spread) times the mean",
        validator=and_(ge(0.0), lt(1.0)),
    )

    def __attrs_post_init__(self) -> None:
        faults = []
        cold = self.num_cold_pairs
        trained = self.num_pairs - cold
        plans = [("seen", self.num_train, self.num_validation + self.num_test)]
        plans += [("unseen", self.num_support, self.num_heldout)] if self.num_unseen_users else []
        for kind, mean, others in plans:
            needed = _highest(mean, self.spread) + others
            if needed > trained:
                faults.append(f"{kind} users need up to {needed} trained pairs each, there are {trained}")
        if self.num_cold > cold:
            faults.append(f"num_cold is {self.num_cold}, there are {cold} pairs not trained on")
        if self.group_shares and len(self.group_shares) != self.num_groups:
            faults.append(f"group_shares has {len(self.group_shares)} values for {self.num_groups} groups")
        if self.num_groups == 1 and self.controversial_share:
            faults.append("one group cannot disagree: num_groups = 1 needs controversial_share = 0")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def num_cold_pairs(self) -> int:
        return round(self.cold_share * self.num_pairs)


def _highest(mean: int, spread: float) -> int:
    return mean + int(mean * spread)


def generate(options: PlantedOptions, seed: int) -> tuple[PreferenceData, PlantedTruth]:
    """Generate the data set and what it was made from.

    All comparisons of a user, whatever their split, are on different pairs. Pairs, labels, users and choices each have
    a random stream of their own: the labels of a seed stay when the numbers of comparisons change.
    """
    seen, num_users = options.num_seen_users, options.num_seen_users + options.num_unseen_users
    labels = draw_labels(
        options.num_pairs, options.num_groups, options.controversial_share, generator(seed, "planted labels")
    )
    groups_rng = generator(seed, "planted users")
    shares = options.group_shares or (1.0,) * options.num_groups
    groups = [draw_groups(size, shares, groups_rng) for size in (seen, num_users - seen)]
    number = np.arange(options.num_pairs)
    truth = PlantedTruth(2 * number, 2 * number + 1, labels, np.concatenate(groups), options.label_noise)
    splits, ceilings = _draw_splits(options, truth, seed)
    width = len(str(num_users))
    users = UserTable(
        [f"{'seen' if row < seen else 'unseen'}-{row:0{width}d}" for row in range(num_users)],
        [f"group {group}" for group in (truth.user_groups + 1).tolist()],
    )
    provenance: dict[str, object] = {
        "source": "planted",
        "options": options_to_dict(options),
        "seed": seed,
        "licence": "Apache-2.0",
        "counts": {
            "pairs": options.num_pairs,
            "cold_pairs": options.num_cold_pairs,
            "controversial_pairs": int(truth.controversial.sum()),
            **{name: len(rows) for name, rows in splits.items()},
        },
        "ceilings": ceilings,
        "notes": ["Users, responses and choices are simulated; the texts only number the responses."],
        "split": "pair",
    }
    return PreferenceData("planted", users, _responses(options.num_pairs), splits, provenance), truth


def _responses(num_pairs: int) -> ResponseTable:
    width = len(str(num_pairs))
    names = [f"question {pair:0{width}d}" for pair in range(num_pairs)]
    return ResponseTable(
        [prompt for prompt in names for _ in range(2)],
        [f"{which} answer to {name}" for name in names for which in ("first", "other")],
    )


def _draw_splits(
    options: PlantedOptions, truth: PlantedTruth, seed: int
) -> tuple[dict[str, Comparisons], dict[str, dict[str, float]]]:
    pairs_rng, rng = generator(seed, "planted pairs"), generator(seed, "planted comparisons")
    order = pairs_rng.permutation(options.num_pairs)
    cold, trained = order[: options.num_cold_pairs], order[options.num_cold_pairs :]
    weights = zipf_weights(options.num_pairs, options.popularity, pairs_rng)
    seen, unseen = np.split(np.arange(len(truth.user_groups)), [options.num_seen_users])
    plan = (  # users, pairs, and the splits that share the pairs
        (
            seen,
            trained,
            {
                "train": _counts(options.num_train, options.spread, len(seen), rng),
                "validation": np.full(len(seen), options.num_validation),
                "test": np.full(len(seen), options.num_test),
            },
        ),
        (seen, cold, {"cold": np.full(len(seen), options.num_cold)}),
        (
            unseen,
            trained,
            {
                "support": _counts(options.num_support, options.spread, len(unseen), rng),
                "heldout": np.full(len(unseen), options.num_heldout),
            },
        ),
    )
    splits: dict[str, Comparisons] = {}
    ceilings: dict[str, dict[str, float]] = {}
    for users, pairs, counts in plan:
        total: IntArray = np.sum(list(counts.values()), axis=0)
        rows, pair = truth.compare(users, total, pairs, weights[pairs], rng)
        place = _places(total)
        start = np.zeros(len(users), dtype=np.int64)
        for name, count in counts.items():
            begin, end = np.repeat(start, total), np.repeat(start + count, total)
            chosen = np.flatnonzero((place >= begin) & (place < end))
            start = start + count
            if len(chosen):
                splits[name] = rows.take(chosen)
                ceilings[name] = truth.ceilings(splits[name], pair[chosen])
    return splits, ceilings


def _places(counts: IntArray) -> IntArray:
    """Return the place of each comparison among those of its user [sum of counts]."""
    places: IntArray = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return places


def _counts(mean: int, spread: float, num_users: int, rng: np.random.Generator) -> IntArray:
    highest = _highest(mean, spread)
    return rng.integers(2 * mean - highest, highest + 1, size=num_users)


@final
class PlantedSource:
    """Generates the planted graph."""

    def __init__(self, options: PlantedOptions) -> None:
        self.options = options

    def load(self, *, seed: int) -> PreferenceData:
        return generate(self.options, seed)[0]


COMPONENTS = [
    Component(
        name="planted",
        options=PlantedOptions,
        build=PlantedSource,
        summary="simulated users in groups that disagree on some pairs of responses: the truth is known",
    )
]
