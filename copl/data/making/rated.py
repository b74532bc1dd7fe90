"""Synthetic users who choose among rated responses, as the CoPL paper makes them (arXiv 2503.01658).

A pool of pairs, part of it held out, and a judge that tells which of a pair a user prefers. Every seen user is asked
about some pairs of the pool: the last answer is for validation, the others train. The comparisons a user is judged by
are drawn from the held-out pairs, whose prompts nobody is trained on: split ``cold`` for seen users, ``heldout`` for
unseen ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

import attrs
import numpy as np

from copl.data.making.splits import generator
from copl.data.pairs import compact
from copl.errors import DataError
from copl.options import option
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable
from copl.system.converters import number_names

if TYPE_CHECKING:
    from numpy.random import Generator

    from copl.data.making.notes import Note
    from copl.data.making.origin import Origin
    from copl.records import BoolArray, IntArray

Judge: TypeAlias = "Callable[[IntArray, IntArray], BoolArray]"
"""For rows of users [N] and of pairs [N]: whether each user prefers the left response of the pair [N]."""

_COUNT = attrs.validators.ge(0)
_POSITIVE = attrs.validators.ge(1)


@attrs.frozen(kw_only=True, slots=False)  # one base of several
class SyntheticUserOptions:
    """How many users there are and what they are asked; the base of the options of the sources that simulate users."""

    num_users: int = option(10_000, help="users to train on, in groups of equal size", validator=_POSITIVE)
    num_unseen_users: int = option(
        400,
        help="users kept out of training; the published code has no generator for them, 0 is what it makes",
        validator=_COUNT,
    )
    context: Literal["ALL", "AVG"] = option(
        "ALL",
        help="ALL: every user gives num_context comparisons; AVG: 1 to 2 num_context - 1, each number equally often",
    )
    num_context: int = option(8, help="comparisons of a user, the last for validation", validator=_POSITIVE)
    num_heldout: int = option(
        100, help="comparisons each user is judged by, on prompts never trained on", validator=_COUNT
    )
    num_test: int = option(
        0,
        help="further comparisons of a seen user on trained prompts, for split test; the paper has none",
        validator=_COUNT,
    )
    unseen_judged_on: Literal["new", "trained"] = option(
        "new",
        help="prompts that unseen users are judged on: new, held out from everybody; trained, where a method without "
        "texts can tell something, too, unlike the paper",
    )
    heldout_prompts: float = option(
        0.1,
        help="share of the prompts never trained on",
        validator=attrs.validators.and_(attrs.validators.gt(0.0), attrs.validators.lt(1.0)),
    )


@final
@attrs.frozen(eq=False)
class Pool:
    """Pairs that users may be asked about.

    Attributes:
        responses: the responses.
        left: row of one response of each pair [P].
        right: row of the other, to the same prompt [P].
        heldout: whether nobody is trained on the pair's prompt [P].
        controversial: 1 where the groups disagree on the pair, 0 where not, -1 unknown [P].
    """

    responses: ResponseTable
    left: IntArray
    right: IntArray
    heldout: BoolArray
    controversial: Any


@final
@attrs.frozen(eq=False)
class SimulatedUsers:
    """Who is asked.

    Attributes:
        options: how many they are, and how much they are asked.
        groups: group of each, seen ones first [U].
        judge: what they answer.
    """

    options: SyntheticUserOptions
    groups: Sequence[str | None]
    judge: Judge


def hold_out_prompts(prompts: Sequence[str], share: float, seed: int) -> BoolArray:
    """Return for each pair's prompt [P] whether it is held out; at least one prompt is."""
    code = number_names(prompts)
    num_prompts = int(code.max(initial=-1)) + 1
    count = max(int(num_prompts * share), 1)
    chosen = generator(seed, "held-out prompts").permutation(num_prompts)[:count]
    return np.isin(code, chosen)


def equal_groups(num_users: int, num_groups: int) -> IntArray:
    """Return the group of each user [U], the groups one after the other and as equal in size as can be."""
    return np.arange(num_users, dtype=np.int64) * num_groups // max(num_users, 1)


def user_table(options: SyntheticUserOptions, groups: Sequence[str | None]) -> UserTable:
    """Return seen users ``user-...`` and unseen users ``unseen-...`` with the groups given [U]."""
    ids = [f"user-{n:05d}" for n in range(options.num_users)]
    return UserTable([*ids, *(f"unseen-{n:05d}" for n in range(options.num_unseen_users))], groups)


def ask_users(pool: Pool, judge: Judge, options: SyntheticUserOptions, *, seed: int) -> dict[str, Comparisons]:
    """Draw the pairs each user is asked about and take the answers; rows of users are seen ones first.

    Raises:
        DataError: the pool has too few pairs for what a user is to be asked.
    """
    trained, heldout = np.flatnonzero(~pool.heldout), np.flatnonzero(pool.heldout)
    most = options.num_context if options.context == "ALL" else 2 * options.num_context - 1
    on_trained = options.unseen_judged_on == "trained"
    further = max(options.num_test, options.num_heldout if on_trained and options.num_unseen_users else 0)
    _require(trained, most + further, "trained", "num_context, num_test or num_heldout")
    _require(heldout, options.num_heldout, "held-out", "num_heldout")
    num_users = options.num_users + options.num_unseen_users
    rng = generator(seed, "questions")
    given = _context_sizes(options, num_users, rng)
    # ALL keeps the last of every user for validation; AVG only from num_context on, so that none is left without.
    validated = (given >= options.num_context) & (given > 1)
    parts: dict[str, list[tuple[int, IntArray]]] = {
        name: [] for name in ("train", "validation", "test", "cold", "support", "heldout")
    }
    for user, count in enumerate(given.tolist()):
        judged = rng.choice(heldout, options.num_heldout, replace=False)
        if user >= options.num_users:
            asked = rng.choice(trained, count + len(judged) * on_trained, replace=False)
            parts["support"].append((user, asked[:count]))
            parts["heldout"].append((user, asked[count:] if on_trained else judged))
            continue
        asked = rng.choice(trained, count + options.num_test, replace=False)
        stop = count - int(validated[user])
        parts["train"].append((user, asked[:stop]))
        parts["validation"].append((user, asked[stop:count]))
        parts["test"].append((user, asked[count:]))
        parts["cold"].append((user, judged))
    return {name: _answers(pool, judge, drawn) for name, drawn in parts.items()}


def _require(pairs: IntArray, needed: int, kind: str, options: str) -> None:
    if len(pairs) < max(needed, 1):
        raise DataError(
            f"{len(pairs):,} {kind} pairs are left, a user is to be asked about {needed:,}; lower {options} to that"
        )


def _context_sizes(options: SyntheticUserOptions, num_users: int, rng: Generator) -> IntArray:
    if options.context == "ALL":
        return np.full(num_users, options.num_context, dtype=np.int64)
    return rng.integers(1, 2 * options.num_context, size=num_users)


def _answers(pool: Pool, judge: Judge, drawn: list[tuple[int, IntArray]]) -> Comparisons:
    if not drawn:
        return Comparisons.empty()
    user = np.repeat(np.array([row for row, _ in drawn], dtype=np.int64), [len(pairs) for _, pairs in drawn])
    pair = np.concatenate([pairs for _, pairs in drawn]).astype(np.int64)
    left = judge(user, pair)
    chosen = np.where(left, pool.left[pair], pool.right[pair])
    rejected = np.where(left, pool.right[pair], pool.left[pair])
    return Comparisons(user, chosen, rejected, controversial=pool.controversial[pair])


def synthetic_data(
    name: str,
    pool: Pool,
    users: SimulatedUsers,
    origin: Origin,
    *,
    seed: int,
    counts: Mapping[str, int],
    notes: Sequence[Note],
) -> PreferenceData:
    """Ask the users and put the data set together.

    Args:
        name: short name of the data set.
        pool: what they may be asked about.
        users: who they are, and what they answer.
        origin: where the data comes from.
        seed: the same seed gives the same data.
        counts: what was counted on the way to the pool.
        notes: findings in words.
    """
    splits = ask_users(pool, users.judge, users.options, seed=seed)
    table, responses, splits = compact(user_table(users.options, users.groups), pool.responses, splits)
    counted = {**counts, "pairs": len(pool.left), "held-out pairs": int(pool.heldout.sum())}
    notes = [*notes, "The users are simulated; their choices follow published ratings or lengths by rule."]
    provenance = origin.provenance(users.options, seed=seed, split="pair", counts=counted, notes=notes)
    return PreferenceData(name, table, responses, splits, provenance)
