"""Sources ``ratings`` and ``votes``: own files in which users rate texts, or vote them up and down.

A row has ``user_id``, ``response`` (the text), ``rating`` or ``vote``, and may have ``prompt`` and ``group``; without a
prompt column all responses answer the prompt of the option. A higher rating, or an agreement, is preferred to a lower
one, or a disagreement, of the same user on the same prompt.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np

from copl.data.making.opinions import (
    OpinionOptions,
    Opinions,
    can_be_unseen,
    choose_cold,
    choose_unseen,
    controversial_pairs,
    draw_splits,
    with_controversial,
)
from copl.data.making.origin import Origin
from copl.data.making.splits import drop_stranded
from copl.data.pairs import compact, intern_responses, intern_users, number_rows
from copl.data.reading.rows import RowReader, ValueFaultError
from copl.data.sources.tables import read_table
from copl.errors import DataError
from copl.options import option
from copl.plugins import Component
from copl.records import PreferenceData, ResponseTable, UserTable

if TYPE_CHECKING:
    from copl.data.reading.files import Table
    from copl.interfaces import DatasetSource
    from copl.records import BoolArray, FloatArray, IntArray

_NO_NAMES: Any = attrs.Factory(dict)

_MATRIX = 10_000_000
"""Up to so many pairs of responses, and users times responses, votes tell which pairs are controversial."""


@attrs.frozen(kw_only=True)
class OpinionTableOptions(OpinionOptions):
    """Options that both sources have."""

    path: Path = option(help="the file to read: .jsonl, .csv or .parquet")
    columns: dict[str, str] = option(
        _NO_NAMES, help="names of the file's columns where they differ, such as user_id=worker,response=statement"
    )
    prompt: str = option(
        "A person stated:", help="what all responses answer, where the file has no prompt column", validator=None
    )
    licence: str = option("", help="licence of the data, kept with the data set")
    attribution: str = option("", help="whom to name as the origin of the data, kept with the data set")


@final
@attrs.frozen(kw_only=True)
class RatingOptions(OpinionTableOptions):
    """Options of rating tables."""

    margin: float = option(
        1.0,
        help="least difference of two ratings for a comparison; smaller ones count as ties",
        validator=attrs.validators.gt(0.0),
    )


@final
@attrs.frozen(kw_only=True)
class VoteOptions(OpinionTableOptions):
    """Options of vote tables."""

    use_passes: bool = option(
        False, help="take a pass (0) as standing between up and down, instead of leaving passes out"
    )


@final
@attrs.frozen(eq=False)
class _Read:
    """A table as read: who thinks what of which response [N]."""

    users: UserTable
    responses: ResponseTable
    user: IntArray
    response: IntArray
    level: FloatArray
    notes: tuple[str, ...]


@final
class OpinionTableSource:
    """Reads one table and draws comparisons from it."""

    def __init__(self, name: str, options: RatingOptions | VoteOptions) -> None:
        self._name = name
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the table, split the opinions and draw the comparisons.

        Raises:
            DataError: the file cannot be read, or one fault for each row that is wrong.
        """
        options = self._options
        column = "rating" if isinstance(options, RatingOptions) else "vote"
        found = _read(read_table(options.path), column, options)
        passes = found.level == 0 if isinstance(options, VoteOptions) else np.zeros(len(found.user), dtype=np.bool_)
        used = ~passes | (isinstance(options, VoteOptions) and options.use_passes)
        prompt = _prompt_numbers(found.responses)
        opinions = Opinions.of(
            found.user[used],
            found.response[used],
            found.level[used],
            prompt[found.response[used]],
            num_users=len(found.users),
            num_responses=len(found.responses),
            margin=options.margin if isinstance(options, RatingOptions) else 1.0,
        )
        cold = choose_cold(opinions, prompt, options.cold_fraction, seed)
        unseen = choose_unseen(can_be_unseen(opinions.take(~cold[opinions.response])), options.unseen_fraction, seed)
        splits = draw_splits(opinions, cold, unseen, options, seed)
        if not len(splits["train"]):
            raise DataError(f"{options.path}: no user rates two responses to one prompt differently enough to compare")
        if (
            isinstance(options, VoteOptions)
            and len(found.responses) * max(len(found.responses), len(found.users)) <= _MATRIX
        ):
            verdict = _controversial(found, unseen, options.use_passes)
            verdict[prompt[:, None] != prompt[None, :]] = -1
            splits = {name: with_controversial(part, verdict) for name, part in splits.items()}
        made = drop_stranded(splits, {})
        users, responses, kept = compact(found.users, found.responses, made.splits)
        origin = Origin(
            self._name,
            options.licence,
            options.attribution,
            f"Comparisons drawn from {column}s: the higher against the lower of one user on one prompt.",
        )
        notes = [
            *found.notes,
            f"{int(passes.sum()):,} of {len(found.user):,} votes are passes." if passes.any() else "",
            *(f"{count:,} comparisons were dropped: {reason}." for reason, count in made.dropped.items()),
        ]
        counts = {
            f"{column}s": len(found.user),
            "users": len(found.users),
            "responses": len(found.responses),
            "cold responses": int(cold.sum()),
            "unseen users": int(unseen.sum()),
        }
        provenance = origin.provenance(options, seed=seed, split="response", counts=counts, notes=notes)
        return PreferenceData(options.path.stem, users, responses, kept, provenance)


def _prompt_numbers(responses: ResponseTable) -> IntArray:
    number: dict[str, int] = {}
    return np.array([number.setdefault(prompt, len(number)) for prompt in responses.prompts], dtype=np.int64)


def _controversial(found: _Read, unseen: BoolArray, use_passes: bool) -> Any:
    shape = (len(found.users), len(found.responses))
    levels = np.full(shape, np.nan, dtype=np.float32)
    levels[found.user, found.response] = found.level
    levels = levels[~unseen]
    agree, disagree, passed = ((levels == level).astype(np.float32) for level in (1, -1, 0))
    return controversial_pairs(agree, disagree, passed if use_passes else None)


def _read(table: Table, column: str, options: RatingOptions | VoteOptions) -> _Read:
    names = ["user_id", "response", column]
    if "prompt" in options.columns or "prompt" in table.columns:
        names.append("prompt")
    reader = RowReader(table, options.columns, required=names)
    user, text = reader.text("user_id"), reader.text("response")
    prompt = reader.text("prompt") if "prompt" in names else [options.prompt] * len(table)
    levels = reader.optional(column, _rating if column == "rating" else _vote)
    group = reader.optional("group", lambda value: None if value is None else str(value))
    reader.faults.raise_any()
    ids, user_row = intern_users(user)
    responses, response, _ = intern_responses(prompt, text, text)
    groups = reader.groups(ids, user_row, group)
    key = number_rows(user_row, response)
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)

    def tell(place: int) -> str:
        again = table.label(int(first[inverse[place]]))
        return f"user {ids[user_row[place]]!r} gives a {column} for this text in {again} already"

    reader.report("response", np.flatnonzero(first[inverse] != np.arange(len(key))), tell)
    reader.faults.raise_any()
    level = np.empty(0) if levels is None else levels.mapped(levels.values, np.nan, np.float64)
    return _Read(UserTable(ids, groups), responses, user_row, response, level, reader.notes())


def _rating(value: Any) -> float:
    try:
        rating = math.nan if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError):
        rating = math.nan
    if not math.isfinite(rating):
        raise ValueFaultError(f"expected a number, got {value!r}")
    return rating


_VOTES = {
    **dict.fromkeys(("1", "+1", "up", "agree", "like", "yes", "true"), 1.0),
    **dict.fromkeys(("-1", "down", "disagree", "dislike", "no", "false"), -1.0),
    **dict.fromkeys(("0", "pass", "neutral"), 0.0),
}


def _vote(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    spelt = str(int(value)) if number else str(value).strip().lower()
    if spelt not in _VOTES:
        raise ValueFaultError(f"expected 1 (up), -1 (down) or 0 (pass), got {value!r}")
    return _VOTES[spelt]


def _ratings(options: RatingOptions) -> DatasetSource:
    return OpinionTableSource("ratings", options)


def _votes(options: VoteOptions) -> DatasetSource:
    return OpinionTableSource("votes", options)


COMPONENTS = [
    Component("ratings", RatingOptions, _ratings, "own table of users who rate texts; higher against lower ratings"),
    Component("votes", VoteOptions, _votes, "own table of users who vote texts up and down; agreed against disagreed"),
]
