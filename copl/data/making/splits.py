"""Splits of comparisons: seen and unseen users, held-out comparisons, responses never trained on.

What every split made here guarantees (tests hold it to this):

- an unseen user is in ``support`` and ``heldout`` only, and in both;
- a seen user of ``validation``, ``test`` or ``cold`` has a comparison in ``train``;
- a cold response is in ``cold`` and in no other split, and both responses of a ``cold`` comparison are cold;
- strategy ``pair``: no two of a user's splits hold the same two responses;
- strategy ``response``: no two of a user's splits share a response, which comparisons derived from votes or ratings
  need, for there two comparisons of one user with a common response are not independent.

Comparisons that fit nowhere under these rules are dropped and counted. The same seed gives the same splits; who is
unseen and what is cold depends on the seed and their own fractions alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, final

import attrs
import numpy as np

from copl.data.making.notes import Omission, left_out
from copl.data.pairs import occurring, openings, pair_numbers
from copl.errors import OptionsError
from copl.options import option
from copl.records import Comparisons, ComparisonSet, ResponseTable
from copl.system.converters import number_rows, ranks

if TYPE_CHECKING:
    from numpy.random import Generator

    from copl.records import BoolArray, FloatArray, IntArray

_SHARE = attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.lt(1.0))

SPLIT_VERSION = 1
"""Version of the rules by which comparisons are split; kept with every data set."""

TRAIN, VALIDATION, TEST = 0, 1, 2
SUPPORT, HELDOUT = 0, 1


@attrs.frozen(kw_only=True)
class SplitOptions:
    """Sizes of the splits; the base of the options of every source that makes splits."""

    test_fraction: float = option(0.2, help="share of a seen user's comparisons held out for test", validator=_SHARE)
    validation_fraction: float = option(
        0.1, help="share of a seen user's comparisons held out for validation", validator=_SHARE
    )
    cold_fraction: float = option(
        0.1, help="share of responses (or of prompts) never trained on, for the cold split", validator=_SHARE
    )
    unseen_fraction: float = option(0.1, help="share of users kept out of training as unseen", validator=_SHARE)
    support: int = option(
        8,
        help="comparisons an unseen user gives at most; at least one is left to judge by",
        validator=attrs.validators.ge(1),
    )

    def __attrs_post_init__(self) -> None:
        if self.test_fraction + self.validation_fraction >= 1.0:
            raise ValueError("test_fraction and validation_fraction together leave nothing to train on")


@attrs.frozen(kw_only=True)
class ComparisonSplitOptions(SplitOptions):
    """How given comparisons are split."""

    strategy: Literal["pair", "response", "time"] = option(
        "pair",
        help="pair: hold out whole comparisons; response: a user's splits share no response, needed where comparisons "
        "were derived from ratings or votes; time: the future is judged by the past, where rows have a timestamp",
    )
    cold_by: Literal["prompt", "response"] = option(
        "prompt",
        help="what the cold split keeps out of training: whole prompts, or single responses (comparisons of a cold "
        "with a trained response are then dropped)",
    )


@final
@attrs.frozen(eq=False)
class SplitComparisons:
    """The splits, and how many comparisons were dropped for each reason."""

    splits: Mapping[str, Comparisons]
    dropped: Mapping[str, int]

    @property
    def notes(self) -> list[Omission]:
        """What was dropped."""
        return left_out(self.dropped, "comparisons")


def generator(seed: int, purpose: str) -> Generator:
    """Return a random generator of its own for each purpose, so that one choice does not move another."""
    return np.random.default_rng([seed, *purpose.encode()])


def shares(counts: IntArray, fractions: tuple[float, ...], rng: Generator) -> IntArray:
    """Return how many of each owner's units go to the parts after the first [O, P]; at least one unit stays.

    Fractions of a unit are rounded up or down at random, so that owners with few units lose none on average.
    """
    left = np.maximum(counts - 1, 0)
    quotas = np.zeros((len(counts), len(fractions)), dtype=np.int64)
    for place, fraction in enumerate(fractions):
        wanted = np.floor(counts * fraction + rng.random(len(counts))).astype(np.int64)
        quotas[:, place] = np.minimum(wanted, left)
        left -= quotas[:, place]
    return quotas


def deal(owner: IntArray, quotas: IntArray, rng: Generator) -> IntArray:
    """Deal units to parts: of each owner's units, `quotas[owner, p]` random ones go to part p + 1, the rest to part 0.

    Args:
        owner: owner of each unit [N], a row of `quotas`.
        quotas: number of units for each part after the first [O, P].
        rng: source of randomness.

    Returns:
        the part of each unit [N].
    """
    ends = np.cumsum(quotas, axis=1)[owner]
    part: IntArray = (ranks(owner, rng.random(len(owner)))[:, None] >= ends).sum(axis=1) + 1
    return np.where(part > quotas.shape[1], 0, part)


def choose(candidates: IntArray, fraction: float, rng: Generator) -> IntArray:
    """Return a random share of the candidates, sorted."""
    count = round(len(candidates) * fraction)
    return np.sort(rng.permutation(candidates)[:count])


def choose_cold(responses: ResponseTable, used: IntArray, options: ComparisonSplitOptions, *, seed: int) -> BoolArray:
    """Return which responses [R] are never trained on.

    Args:
        responses: all responses.
        used: rows of the responses that occur in comparisons.
        options: how many, and whether whole prompts.
        seed: the same seed gives the same choice.
    """
    rng = generator(seed, "cold")
    cold = np.zeros(len(responses), dtype=np.bool_)
    if options.cold_by == "response":
        cold[choose(np.flatnonzero(occurring(len(responses), used)), options.cold_fraction, rng)] = True
        return cold
    prompt = responses.prompt_rows
    num_prompts = int(prompt.max(initial=-1)) + 1
    in_use = prompt[occurring(len(responses), used)]
    chosen = choose(np.flatnonzero(occurring(num_prompts, in_use)), options.cold_fraction, rng)
    return occurring(num_prompts, chosen)[prompt]


def make_splits(
    data: ComparisonSet, options: ComparisonSplitOptions, *, seed: int, cold: BoolArray | None = None
) -> SplitComparisons:
    """Split comparisons.

    Args:
        data: all comparisons with their users and responses.
        options: strategy and sizes.
        seed: the same seed gives the same splits.
        cold: which responses [R] are never trained on, where the publishers have decided that; drawn otherwise.

    Raises:
        OptionsError: they are to be split by time, which a published data set does not tell.
    """
    if options.strategy == "time":
        raise OptionsError("strategy=time: this source tells no times; choose pair or response")
    rows = data.comparisons
    if cold is None:
        used = np.concatenate([rows.chosen, rows.rejected])
        cold = choose_cold(data.responses, used, options, seed=seed)
    num_cold = cold[rows.chosen].astype(np.int64) + cold[rows.rejected]
    warm = num_cold == 0
    pair = pair_numbers(rows)
    unseen = _choose_unseen(rows.user[warm], pair[warm], len(data.users), options.unseen_fraction, seed)
    is_unseen = unseen[rows.user]

    seen_rows, unseen_rows = np.flatnonzero(warm & ~is_unseen), np.flatnonzero(warm & is_unseen)
    part = _split_seen(rows.take(seen_rows), options, generator(seed, "seen"))
    ask = _split_unseen(rows.take(unseen_rows), options, generator(seed, "unseen"))
    splits = {
        "train": rows.take(seen_rows[part == TRAIN]),
        "validation": rows.take(seen_rows[part == VALIDATION]),
        "test": rows.take(seen_rows[part == TEST]),
        "cold": rows.take(np.flatnonzero((num_cold == 2) & ~is_unseen)),
        "support": rows.take(unseen_rows[ask == SUPPORT]),
        "heldout": rows.take(unseen_rows[ask == HELDOUT]),
    }
    dropped = {
        "a cold response with a trained one": int(np.count_nonzero((num_cold == 1) & ~is_unseen)),
        "an unseen user on a cold response": int(np.count_nonzero(~warm & is_unseen)),
        "responses in different splits, or more than the support asked for": int(
            np.count_nonzero(part < 0) + np.count_nonzero(ask < 0)
        ),
    }
    return drop_stranded(splits, dropped)


def drop_stranded(splits: Mapping[str, Comparisons], dropped: Mapping[str, int]) -> SplitComparisons:
    """Drop seen users without a training comparison, and unseen users without support or without a held-out one."""
    num_users = max((int(part.user.max(initial=-1)) + 1 for part in splits.values()), default=0)
    known, supported, judged = (occurring(num_users, splits[name].user) for name in ("train", "support", "heldout"))
    both = supported & judged
    keep = {"train": known, "validation": known, "test": known, "cold": known, "support": both, "heldout": both}
    kept = {name: part.take(keep[name][part.user]) for name, part in splits.items()}
    lost = sum(len(part) for part in splits.values()) - sum(len(part) for part in kept.values())
    reasons = {**dropped, "users left without training or without support": lost}
    return SplitComparisons(kept, {reason: count for reason, count in reasons.items() if count})


def _choose_unseen(user: IntArray, pair: IntArray, num_users: int, fraction: float, seed: int) -> BoolArray:
    # A user can be unseen who has two different pairs: one to give and one to be judged by.
    owner = user[openings(pair)]
    able = np.flatnonzero(np.bincount(owner, minlength=num_users) >= 2)
    unseen = np.zeros(num_users, dtype=np.bool_)
    unseen[choose(able, fraction, generator(seed, "unseen users"))] = True
    return unseen


@final
@attrs.frozen(eq=False)
class _Units:
    """What is dealt to splits as a whole: pairs, groups of pairs that share responses, or single responses.

    `first` and `second` [N] are the units of the two ends of a comparison; they differ only for single responses.
    """

    first: IntArray
    second: IntArray
    owner: IntArray
    divided: BoolArray


def _units(rows: Comparisons, strategy: str) -> _Units:
    if strategy == "pair":
        pair = pair_numbers(rows)
        owner = rows.user[openings(pair)]
        return _Units(pair, pair, owner, np.zeros(len(owner), dtype=np.bool_))
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(rows)
    node = number_rows(np.tile(rows.user, 2), np.concatenate([rows.chosen, rows.rejected]))
    first, second = node[:count], node[count:]
    num_nodes = int(node.max(initial=-1)) + 1
    graph = coo_array((np.ones(count), (first, second)), shape=(num_nodes, num_nodes))
    num_parts, component = connected_components(graph, directed=False) if num_nodes else (0, first)
    component = component.astype(np.int64)
    node_user = np.zeros(num_nodes, dtype=np.int64)
    node_user[first] = node_user[second] = rows.user
    # Comparisons that hang together through common responses stay together, unless that is most of what a user said:
    # then single responses are dealt, and comparisons across parts are lost.
    size = np.bincount(component[first], minlength=num_parts)
    nodes_in = np.bincount(component, minlength=num_parts)
    by_user = np.bincount(rows.user)
    component_user = np.zeros(num_parts, dtype=np.int64)
    component_user[component] = node_user
    dominant = (2 * size > by_user[component_user]) & (nodes_in >= 4) if num_parts else np.zeros(0, dtype=np.bool_)
    unit = number_rows(np.where(dominant[component], num_parts + np.arange(num_nodes), component))
    num_units = int(unit.max(initial=-1)) + 1
    owner, divided = np.zeros(num_units, dtype=np.int64), np.zeros(num_units, dtype=np.bool_)
    owner[unit], divided[unit] = node_user, dominant[component]
    return _Units(unit[first], unit[second], owner, divided)


def _parts(units: _Units, quotas: IntArray, rng: Generator) -> IntArray:
    part = deal(units.owner, quotas, rng)
    first, second = part[units.first], part[units.second]
    return np.where(first == second, first, -1)


def _split_seen(rows: Comparisons, options: ComparisonSplitOptions, rng: Generator) -> IntArray:
    if not len(rows):
        return np.empty(0, dtype=np.int64)
    units = _units(rows, options.strategy)
    fractions = (options.validation_fraction, options.test_fraction)
    return _parts(units, shares(np.bincount(units.owner), fractions, rng), rng)


def _split_unseen(rows: Comparisons, options: ComparisonSplitOptions, rng: Generator) -> IntArray:
    if not len(rows):
        return np.empty(0, dtype=np.int64)
    units = _units(rows, options.strategy)
    held = np.bincount(units.owner)
    pair = pair_numbers(rows)
    given = np.bincount(rows.user[openings(pair)], minlength=len(held))
    share: FloatArray = np.minimum(options.support / np.maximum(given, 1), 1.0)
    # Of single responses dealt with share s, only s² of the comparisons have both ends in support.
    divided = np.bincount(units.owner, weights=units.divided) > 0
    share = np.where(divided, np.minimum(np.sqrt(share), 0.5), share)
    quota = held - np.clip(np.ceil(share * held - 1e-9).astype(np.int64), 1, np.maximum(held - 1, 1))
    part = _parts(units, quota[:, None], rng)
    support = np.flatnonzero(part == SUPPORT)
    part[support[_beyond(rows.user[support], pair[support], options.support, rng)]] = -1
    return part


def _beyond(user: IntArray, pair: IntArray, limit: int, rng: Generator) -> BoolArray:
    """Return which comparisons belong to pairs past the first `limit` of their user, in random order."""
    number = number_rows(pair)
    owner = user[openings(number)]
    quotas = np.full((int(owner.max(initial=-1)) + 1, 1), limit, dtype=np.int64)
    mask: BoolArray = deal(owner, quotas, rng)[number] == 0
    return mask
