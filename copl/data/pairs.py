"""Comparisons seen as pairs: repeated, reversed, interned and renumbered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from copl.data.reading.columns import encode_together, first_places
from copl.records import Comparisons, ResponseTable, UserTable
from copl.records.judgements import Judgements
from copl.system.converters import latest_of, number_rows, renumbering

if TYPE_CHECKING:
    from copl.records import BoolArray, IntArray


def pair_numbers(comparisons: Comparisons) -> IntArray:
    """Return a number for each comparison [N], equal where the same user compares the same two responses."""
    low = np.minimum(comparisons.chosen, comparisons.rejected)
    high = np.maximum(comparisons.chosen, comparisons.rejected)
    return number_rows(comparisons.user, low, high)


def repeats(comparisons: Comparisons) -> BoolArray:
    """Return which comparisons [N] say again what the same user said in an earlier row."""
    numbers = number_rows(comparisons.user, comparisons.chosen, comparisons.rejected)
    mask: BoolArray = first_rows(numbers) != np.arange(len(comparisons))
    return mask


def openings(numbers: IntArray) -> IntArray:
    """Return the first row of each number that occurs, in the order of the numbers."""
    places = first_places(numbers, int(numbers.max(initial=-1)) + 1)
    return places[places < len(numbers)]


def first_rows(numbers: IntArray) -> IntArray:
    """Return for each row [N] the first row that has the same number."""
    rows: IntArray = first_places(numbers, int(numbers.max(initial=-1)) + 1)[numbers]
    return rows


def first_of(rows: IntArray, numbers: IntArray) -> IntArray:
    """Return for each of some rows the first of these that has the same number; the places of others mean nothing."""
    firsts = np.zeros(len(numbers), dtype=np.int64)
    firsts[rows] = rows[first_rows(numbers[rows])]
    return firsts


def occurring(count: int, *columns: IntArray) -> BoolArray:
    """Return which of `count` row numbers occur in any of the columns."""
    mask: BoolArray = np.zeros(count, dtype=np.bool_)
    for column in columns:
        mask[column] = True
    return mask


def contradictions(comparisons: Comparisons) -> BoolArray:
    """Return which comparisons [N] belong to a pair that the same user has decided both ways."""
    pair = pair_numbers(comparisons)
    count = int(pair.max(initial=-1)) + 1
    upward = comparisons.chosen > comparisons.rejected
    both = (np.bincount(pair[upward], minlength=count) > 0) & (np.bincount(pair[~upward], minlength=count) > 0)
    mask: BoolArray = both[pair]
    return mask


def superseded(comparisons: Comparisons) -> BoolArray:
    """Return which comparisons [N] the same user has decided again, the same way or the other, at a later time."""
    pair = pair_numbers(comparisons)
    latest = latest_of(pair, comparisons.time, int(pair.max(initial=-1)) + 1)
    mask: BoolArray = comparisons.time < latest[pair]
    return mask


def intern_responses(prompts: object, chosen: object, rejected: object) -> tuple[ResponseTable, IntArray, IntArray]:
    """Return the distinct responses of a table of comparisons, and the rows of the chosen and rejected ones.

    Prompts keep their order of appearance; the responses to one are sorted by text, so that the row of a response
    tells nothing about whether it was chosen.

    Args:
        prompts: prompt of each comparison [N], a sequence of text, an Arrow string array or an `EncodedColumn`.
        chosen: chosen text of each comparison [N].
        rejected: rejected text of each comparison [N].
    """
    prompt_code, prompt_words = _codes([prompts])
    text_code, text_words = _codes([chosen, rejected])
    order = sorted(range(len(text_words)), key=text_words.__getitem__)
    text_words = [text_words[place] for place in order]
    text_code = np.argsort(np.array(order, dtype=np.int64))[text_code]
    pairs = np.tile(prompt_code, 2) * max(len(text_words), 1) + text_code
    distinct, rows = np.unique(pairs, return_inverse=True)
    prompt_rows, text_rows = np.divmod(distinct, max(len(text_words), 1))
    table = ResponseTable(
        (prompt_words[row] for row in prompt_rows.tolist()), (text_words[row] for row in text_rows.tolist())
    )
    chosen_rows, rejected_rows = rows.astype(np.int64).reshape(2, -1)
    return table, chosen_rows, rejected_rows


def intern_users(ids: object) -> tuple[tuple[str, ...], IntArray]:
    """Return the distinct users in order of appearance, and the row of the user of each comparison [N]."""
    code, words = _codes([ids])
    return tuple(words), code


def _codes(columns: list[object]) -> tuple[IntArray, list[str]]:
    encoded = encode_together(columns)
    return np.concatenate([column.codes for column in encoded]).astype(np.int64), list(encoded[0].values)


def compact(
    users: UserTable, responses: ResponseTable, splits: Mapping[str, Comparisons]
) -> tuple[UserTable, ResponseTable, dict[str, Comparisons]]:
    """Leave out users and responses that no split refers to, keeping the order of the rest."""
    table, kept, renumbered, _ = compact_all(users, responses, splits, {})
    return table, kept, renumbered


def compact_all(
    users: UserTable,
    responses: ResponseTable,
    splits: Mapping[str, Comparisons],
    judgements: Mapping[str, Judgements],
) -> tuple[UserTable, ResponseTable, dict[str, Comparisons], dict[str, Judgements]]:
    """Leave out users and responses that neither a comparison nor a judgement refers to, keeping the order."""
    speakers = [*(part.user for part in splits.values()), *(part.user for part in judgements.values())]
    kept_users = np.flatnonzero(occurring(len(users), *speakers))
    ends = [end for part in splits.values() for end in (part.chosen, part.rejected)]
    ends += [end[end >= 0] for part in judgements.values() for end in (part.response, part.other)]
    kept_responses = np.flatnonzero(occurring(len(responses), *ends))
    new = renumbering(kept_users, len(users)), renumbering(kept_responses, len(responses))
    user_rows = kept_users.tolist()
    table = UserTable((users.ids[row] for row in user_rows), (users.groups[row] for row in user_rows))
    return (
        table,
        responses.take(kept_responses),
        {name: part.renumbered(*new) for name, part in splits.items()},
        {name: part.renumbered(*new) for name, part in judgements.items()},
    )
