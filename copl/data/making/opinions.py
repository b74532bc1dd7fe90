"""From votes and ratings to comparisons: a response somebody thinks more of is preferred to one they think less of.

Two comparisons of one user that share a response share an opinion, so splits are made on opinions before pairs are
drawn: no two splits of a user share a response, and cold responses are never trained on. Where the responses answer
many prompts, all opinions of a user on one prompt stay together, for pairs are drawn within a prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, final

import attrs
import numpy as np

from copl.data.making.splits import SUPPORT, TEST, TRAIN, VALIDATION, SplitOptions, choose, deal, generator, shares
from copl.options import option
from copl.records import Comparisons
from copl.system.converters import number_rows

if TYPE_CHECKING:
    from numpy.random import Generator

    from copl.records import BoolArray, FloatArray, IntArray

_MINORITY = 1 / 3
_FEW_VOTERS = 5
_NAMES = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}


@attrs.frozen(kw_only=True)
class OpinionOptions(SplitOptions):
    """How comparisons are drawn from opinions; fractions are shares of a user's opinions or of responses."""

    # Measured on bowling-green: matrix factorisation with 40 pairs a participant reaches .777 on held-out statements,
    # with 120 .804, with 300 .814; a hundred thousand comparisons are still a matter of seconds for an encoder.
    pairs_per_user: int = option(
        120, help="training comparisons drawn from a user's opinions at most", validator=attrs.validators.ge(1)
    )
    eval_pairs_per_user: int = option(
        10,
        help="comparisons drawn from a user's opinions at most for each split that measures",
        validator=attrs.validators.ge(1),
    )


@final
@attrs.frozen(eq=False)
class Opinions:
    """What users think of responses, in long form.

    Attributes:
        user: row of the user [N].
        response: row of the response [N].
        level: what the user thinks of it; higher is better [N].
        block: opinions that may be compared have the same number: those of one user, on one prompt [N].
        stratum: opinions of one user that splits get even shares of, such as those of one level [N].
        unit: opinions that go to one split together have the same number [N].
        num_users: number of users U.
        num_responses: number of responses R.
        num_strata: number of strata.
        margin: least difference of level for a comparison.
    """

    user: IntArray
    response: IntArray
    level: FloatArray
    block: IntArray
    stratum: IntArray
    unit: IntArray
    num_users: int
    num_responses: int
    num_strata: int
    margin: float

    @classmethod
    def of(
        cls,
        user: IntArray,
        response: IntArray,
        level: FloatArray,
        prompt: IntArray,
        *,
        num_users: int,
        num_responses: int,
        margin: float,
    ) -> Opinions:
        """Make opinions of rated responses to prompts, `prompt` being the number of each response's prompt [N]."""
        block = number_rows(user, prompt)
        several = bool(len(prompt)) and prompt.max() > prompt.min()
        unit = block if several else np.arange(len(user), dtype=np.int64)
        return cls(user, response, level, block, user, unit, num_users, num_responses, num_users, margin)

    def take(self, rows: BoolArray) -> Opinions:
        """Return the opinions of a mask [N]."""
        names = ("user", "response", "level", "block", "stratum", "unit")
        return attrs.evolve(self, **{name: getattr(self, name)[rows] for name in names})


def choose_unseen(able: BoolArray, fraction: float, seed: int) -> BoolArray:
    """Return a random share of the users who can be unseen [U]."""
    unseen = np.zeros(len(able), dtype=np.bool_)
    unseen[choose(np.flatnonzero(able), fraction, generator(seed, "unseen users"))] = True
    return unseen


def choose_cold(opinions: Opinions, fraction: float, seed: int) -> BoolArray:
    """Return a random share of the responses [R] that somebody has an opinion of, never to be trained on."""
    cold = np.zeros(opinions.num_responses, dtype=np.bool_)
    cold[choose(np.unique(opinions.response), fraction, generator(seed, "cold"))] = True
    return cold


def draw_splits(
    opinions: Opinions, cold: BoolArray, unseen: BoolArray, options: OpinionOptions, seed: int
) -> dict[str, Comparisons]:
    """Deal the opinions to splits and draw comparisons within each.

    Args:
        opinions: all opinions.
        cold: responses never trained on [R].
        unseen: users kept out of training [U].
        options: sizes.
        seed: the same seed gives the same comparisons.
    """
    is_cold, is_unseen = cold[opinions.response], unseen[opinions.user]
    limits = {"train": options.pairs_per_user, "support": options.support}
    parts = {"cold": opinions.take(is_cold & ~is_unseen)}

    seen = opinions.take(~is_cold & ~is_unseen)
    rng = generator(seed, "seen")
    fractions = (options.validation_fraction, options.test_fraction)
    part = _deal(seen, lambda counts: shares(counts, fractions, rng), rng)
    parts |= {name: seen.take(part == number) for number, name in _NAMES.items()}

    asked = opinions.take(~is_cold & is_unseen)
    rng = generator(seed, "unseen")
    # Each comparison of the support needs an opinion of each kind at most; half of them are left to judge by.
    part = _deal(asked, lambda counts: (counts - np.minimum(counts // 2, options.support))[:, None], rng)
    parts |= {"support": asked.take(part == SUPPORT), "heldout": asked.take(part != SUPPORT)}
    return {
        name: draw_pairs(part, limits.get(name, options.eval_pairs_per_user), _at_random(generator(seed, name)))
        for name, part in parts.items()
    }


def _deal(opinions: Opinions, quotas: Any, rng: Generator) -> IntArray:
    """Return the part each opinion goes to [N]; `quotas` tells it for the number of units of each stratum."""
    distinct, first, unit = np.unique(opinions.unit, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # units in the order of their first opinion
    place = np.empty(len(distinct), dtype=np.int64)
    place[order] = np.arange(len(distinct))
    stratum = opinions.stratum[first[order]]
    counts = np.bincount(stratum, minlength=opinions.num_strata)
    return deal(stratum, quotas(counts), rng)[place[unit]]


Ends: TypeAlias = "Callable[[IntArray], tuple[IntArray, IntArray]]"
"""From numbers of a user's pairs to the opinions at their two ends, the higher one first."""

Pick: TypeAlias = "Callable[[int, int, Ends], IntArray]"
"""From the number of a user's pairs and how many are wanted at most to those that are taken."""


def _at_random(rng: Generator) -> Pick:
    return lambda total, limit, ends: rng.choice(total, size=min(limit, total), replace=False)


def draw_pairs(opinions: Opinions, limit: int, pick: Pick) -> Comparisons:
    """Draw up to `limit` distinct comparisons of each user, of a higher against a lower opinion of the same block."""
    order = np.lexsort((opinions.level, opinions.block, opinions.user))
    starts = np.searchsorted(opinions.user[order], np.arange(opinions.num_users + 1))
    users, chosen, rejected = [], [], []
    for user in np.flatnonzero(np.diff(starts)).tolist():
        rows = order[starts[user] : starts[user + 1]]
        below, begin = _below(opinions.level[rows], opinions.block[rows], opinions.margin)
        ends = partial(_ends, rows, np.cumsum(below), below, begin)
        total = int(below.sum())
        if total == 0:
            continue
        high, low = ends(pick(total, limit, ends))
        users.append(np.full(len(high), user))
        chosen.append(opinions.response[high])
        rejected.append(opinions.response[low])
    if not users:
        return Comparisons.empty()
    return Comparisons(np.concatenate(users), np.concatenate(chosen), np.concatenate(rejected))


def _ends(
    rows: IntArray, passed: IntArray, below: IntArray, begin: IntArray, picks: IntArray
) -> tuple[IntArray, IntArray]:
    # Pairs are numbered higher opinion by higher opinion, so that no list of all pairs is needed.
    high = np.searchsorted(passed, picks, side="right")
    return rows[high], rows[begin[high] + picks - (passed - below)[high]]


def _below(level: FloatArray, block: IntArray, margin: float) -> tuple[IntArray, IntArray]:
    """Return how many opinions of its block lie below each by the margin, and where its block begins [n]."""
    begin = np.searchsorted(block, block, side="left")
    if block[0] == block[-1]:
        return np.searchsorted(level, level - margin, side="right"), begin
    below = np.empty(len(level), dtype=np.int64)
    for start in np.unique(begin).tolist():
        part = slice(start, int(np.searchsorted(block, block[start], side="right")))
        below[part] = np.searchsorted(level[part], level[part] - margin, side="right")
    return below, begin


def controversial_pairs(agree: Any, disagree: Any, between: Any | None = None) -> Any:
    """Return for each pair of responses [R, R] whether users disagree on it: 1, 0, or -1 where few can tell.

    Those count who voted differently on the two; a pair is controversial when at least a third of them stand against
    the others.

    Args:
        agree: who agreed with what, 1 or 0 [U, R].
        disagree: who disagreed with what [U, R].
        between: who passed, where a pass stands between the two [U, R].
    """
    first = agree.T @ disagree  # users who put the row's response above the column's
    if between is not None:
        first = first + agree.T @ between + between.T @ disagree
    together = first + first.T
    minority = np.minimum(first, first.T)
    verdict = (minority >= _MINORITY * together).astype(np.int8)
    verdict[together < _FEW_VOTERS] = -1
    return verdict


def with_controversial(part: Comparisons, controversial: Any) -> Comparisons:
    """Return comparisons with the marks of a matrix [R, R]."""
    return attrs.evolve(part, controversial=controversial[part.chosen, part.rejected])
