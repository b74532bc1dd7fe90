"""Sources ``ratings`` and ``votes``: own files in which users rate texts, or vote them up and down.

A row has ``user_id``, ``response`` (the text), ``rating`` or ``vote``, and may have ``prompt`` and ``group``; without a
prompt column all responses answer the prompt of the option. Ratings stay ratings, each on its user's own scale
(`copl.records.evidence`); with a margin, a higher one is preferred to a lower one of the same user on the same prompt,
as an agreement is to a disagreement.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import attrs
import numpy as np

from copl.data.canonical import ValueFaultError
from copl.data.chat import encode_prompt
from copl.data.making.collected import Collected, Said
from copl.data.making.decimals import on_whole_scale
from copl.data.making.notes import Note, Omission
from copl.data.making.opinions import OpinionOptions, Opinions, controversial_pairs, with_controversial
from copl.data.making.origin import ATTRIBUTION_HELP, LICENCE_HELP, Origin
from copl.data.making.splits import ComparisonSplitOptions, SplitOptions
from copl.data.making.stable import STABLE_VERSION, with_evidence
from copl.data.making.stable_opinions import stable_opinions
from copl.data.pairs import compact, first_of, intern_responses, intern_users
from copl.data.reading import values
from copl.data.reading.rows import COLUMNS_HELP, NO_NAMES, RowReader
from copl.data.sources.tables import read_table
from copl.errors import DataError, quoted
from copl.options import option, options_to_dict
from copl.plugins import Component
from copl.records import Comparisons, ComparisonSet, PreferenceData, ResponseTable, UserTable
from copl.records.judgements import last_said
from copl.system.converters import latest_of, number_rows

if TYPE_CHECKING:
    from copl.data.reading.table import Table
    from copl.records import BoolArray, FloatArray, IntArray

_MATRIX = 10_000_000
"""Up to so many pairs of responses, and users times responses, votes tell which pairs are controversial."""


@attrs.frozen(kw_only=True)
class OpinionTableOptions(OpinionOptions):
    """Options that both sources have."""

    path: Path = option(help="the file to read: .jsonl, .csv or .parquet")
    columns: dict[str, str] = option(NO_NAMES, help=f"{COLUMNS_HELP}user_id=worker,response=statement")
    prompt: str = option(
        "A person stated:", help="what all responses answer, where the file has no prompt column", validator=None
    )
    repeated: Literal["error", "first", "last"] = option(
        "error",
        help="a text a user judges more than once: error names the rows, but of judgements at different times takes "
        "the last; first or last takes that judgement alone, by time where there is one, else by the order in the file",
    )
    licence: str = option("", help=LICENCE_HELP)
    attribution: str = option("", help=ATTRIBUTION_HELP)


@final
@attrs.frozen(kw_only=True)
class RatingOptions(OpinionTableOptions):
    """Options of rating tables."""

    # Measured: 20 ratings a user from -10 to 10 reach .796 as ratings, as pairs by margin 1 .724 and by margin 4 .766
    # (encoder mf; the default one .840, .823 and .821), see docs/decisions/0037-evidence-of-every-kind.md.
    margin: float | None = option(
        None,
        help="least difference of two ratings for a comparison; none keeps ratings as they are, on each user's own "
        "scale, which tells more",
        validator=attrs.validators.optional(attrs.validators.gt(0.0)),
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
    weight: FloatArray
    time: FloatArray
    notes: tuple[Note, ...]

    def take(self, rows: BoolArray) -> _Read:
        names = ("user", "response", "level", "weight", "time")
        return attrs.evolve(self, **{name: getattr(self, name)[rows] for name in names})


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
        read = _read(read_table(options.path), column, options)
        if isinstance(options, RatingOptions) and options.margin is None:
            return _as_ratings(read, options, seed)
        opinions, prompt = _opinions(read, options)
        everything = ComparisonSet(read.users, read.responses, Comparisons.empty())
        splits, cold, unseen = stable_opinions(opinions, everything, options, seed=seed)
        if not len(splits["train"]):
            raise DataError(f"{options.path}: no user rates two responses to one prompt differently enough to compare")
        size = len(read.responses) * max(len(read.responses), len(read.users))
        if isinstance(options, VoteOptions) and size <= _MATRIX:
            verdict = _controversial(read, unseen, options.use_passes)
            verdict[prompt[:, None] != prompt[None, :]] = -1
            splits = {name: with_controversial(part, verdict) for name, part in splits.items()}
        sound = with_evidence(splits, {}, {})
        users, responses, kept = compact(read.users, read.responses, sound.splits)
        origin = Origin(
            self._name,
            options.licence,
            options.attribution,
            f"Comparisons drawn from {column}s: the higher against the lower of one user on one prompt.",
        )
        passes = int((read.level == 0).sum()) if isinstance(options, VoteOptions) else 0
        notes = [
            *read.notes,
            f"{passes:,} of {len(read.user):,} votes are passes." if passes else "",
            *sound.notes,
        ]
        counts = {
            f"{column}s": len(read.user),
            "users": len(read.users),
            "responses": len(read.responses),
            "cold responses": int(cold.sum()),
            "unseen users": int(unseen.sum()),
        }
        provenance = origin.provenance(
            options, seed=seed, split="response", counts=counts, notes=notes, split_version=STABLE_VERSION
        )
        return PreferenceData(options.path.stem, users, responses, kept, provenance)


def _as_ratings(read: _Read, options: RatingOptions, seed: int) -> PreferenceData:
    """Return ratings as they are, dealt to splits (`copl.data.making.dealing`)."""
    collected, prompts, texts = Collected(), read.responses.prompts, read.responses.texts
    columns = (column.tolist() for column in (read.user, read.response, read.level, read.weight, read.time))
    for user, response, level, weight, time in zip(*columns, strict=True):
        collected.rate(Said(read.users.ids[user], prompts[response], time, weight), texts[response], level)
    named = zip(read.users.ids, read.users.groups, strict=True)
    collected.groups |= {user: group for user, group in named if group is not None}
    sizes = {field.name: getattr(options, field.name) for field in attrs.fields(SplitOptions)}
    origin = Origin("ratings", options.licence, options.attribution, "Ratings of users, each on a scale of their own.")
    data = collected.data(
        ComparisonSplitOptions(**sizes), origin, where=options.path, eval_pairs=options.eval_pairs_per_user, seed=seed,
        notes=read.notes,
    )  # fmt: skip
    if not len(data.split("train")):
        raise DataError(f"{options.path}: no user rates two responses differently, so that nothing can be compared")
    counts = {**data.provenance["counts"], "ratings": len(read.user)}
    return attrs.evolve(data, provenance={**data.provenance, "options": options_to_dict(options), "counts": counts})


def _opinions(read: _Read, options: RatingOptions | VoteOptions) -> tuple[Opinions, IntArray]:
    """Return the opinions that comparisons are drawn from, and the number of each response's prompt."""
    if isinstance(options, VoteOptions):
        used = read if options.use_passes else read.take(read.level != 0)
        level, margin = used.level, 1.0
    else:
        assert options.margin is not None  # without one they stay ratings
        used = read
        level, margin = on_whole_scale(read.level.tolist(), options.margin)
    prompt = read.responses.prompt_rows
    opinions = Opinions.of(
        used.user,
        used.response,
        level,
        prompt[used.response],
        num_users=len(read.users),
        num_responses=len(read.responses),
        margin=margin,
    )
    return opinions, prompt


def _controversial(read: _Read, unseen: BoolArray, use_passes: bool) -> Any:
    shape = (len(read.users), len(read.responses))
    levels = np.full(shape, np.nan, dtype=np.float32)
    levels[read.user, read.response] = read.level
    levels = levels[~unseen]
    agree, disagree, passed = ((levels == level).astype(np.float32) for level in (1, -1, 0))
    return controversial_pairs(agree, disagree, passed if use_passes else None)


def _read(table: Table, column: str, options: RatingOptions | VoteOptions) -> _Read:
    names = ["user_id", "response", column]
    if "prompt" in options.columns or "prompt" in table.columns:
        names.append("prompt")
    as_they_are = isinstance(options, RatingOptions) and options.margin is None
    optional = ("group", "timestamp", *(("weight",) if as_they_are else ()))
    reader = RowReader(table, options.columns, names, optional)
    user, text = reader.text("user_id"), reader.text("response")
    prompt = reader.text("prompt") if "prompt" in names else [encode_prompt(options.prompt)] * len(table)
    levels = reader.optional(column, _rating if column == "rating" else _vote)
    group = reader.optional("group", values.group)
    weight, time = reader.weights() if as_they_are else np.ones(len(table)), reader.times()
    reader.faults.raise_any()
    ids, user_row = intern_users(user)
    responses, response, _ = intern_responses(prompt, text, text)
    groups = reader.groups(ids, user_row, group)
    level = np.empty(0) if levels is None else levels.mapped(levels.values, np.nan, np.float64)
    notes: tuple[Note, ...] = (*reader.unread(), *reader.respelt())
    if not as_they_are and np.isfinite(time).any():
        notes += (f"Times say which {column} of a text counts; comparisons that are drawn from {column}s have none.",)
    read = _Read(UserTable(ids, groups), responses, user_row, response, level, weight, time, notes)
    counts = _counting(number_rows(user_row, response), time, options.repeated)
    if options.repeated == "error":
        _refuse_again(reader, table, column, read, counts)
    reader.faults.raise_any()
    if counts.all():
        return read
    which = "first" if options.repeated == "first" else "last"
    note = Omission(int((~counts).sum()), f"{column}s", f"a user's {which} {column} of a text counts")
    return attrs.evolve(read.take(counts), notes=(*read.notes, note))


def _counting(judged: IntArray, time: FloatArray, repeated: str) -> BoolArray:
    """Return which judgements [N] count, of those that have a number in common; of several times the last one."""
    if repeated == "first":
        return last_said(judged[::-1], np.where(np.isnan(time), np.inf, -time)[::-1])[::-1]
    if repeated == "last":
        return last_said(judged, time)
    counts: BoolArray = np.isnan(time) | (time == latest_of(judged, time, int(judged.max(initial=-1)) + 1)[judged])
    return counts


def _refuse_again(reader: RowReader, table: Table, column: str, read: _Read, counts: BoolArray) -> None:
    """Report judgements that repeat another one of the same time, or of none."""
    judged, rows = number_rows(read.user, read.response), np.flatnonzero(counts)
    first = first_of(rows, judged)

    def tell(place: int) -> str:
        who, before = quoted(read.users.ids[read.user[place]]), table.label(int(first[place]))
        again = f"user {who} gives a {column} for this text in {before} already"
        return f"{again}; remove one, or set repeated=last (or first)"

    reader.report("response", rows[first[rows] != rows], tell)


def _rating(value: Any) -> float:
    try:
        return values.number(value)
    except ValueFaultError:
        raise ValueFaultError(f"expected a number, got {quoted(value)}") from None


_VOTES = {
    **dict.fromkeys(("up", "agree", "like", "yes", "true"), 1.0),
    **dict.fromkeys(("down", "disagree", "dislike", "no", "false"), -1.0),
    **dict.fromkeys(("pass", "neutral"), 0.0),
}


def _vote(value: Any) -> float:
    spelt = str(value).strip().lower()
    if spelt in _VOTES:
        return _VOTES[spelt]
    try:
        vote = values.number(value)
    except ValueFaultError:
        vote = math.nan
    if vote not in (1.0, 0.0, -1.0):
        raise ValueFaultError(f"expected 1 (up), -1 (down) or 0 (pass), got {quoted(value)}")
    return vote


_RATINGS = partial(OpinionTableSource, "ratings")
_VOTES_SOURCE = partial(OpinionTableSource, "votes")

COMPONENTS = [
    Component("ratings", RatingOptions, _RATINGS, "own table of users who rate texts, each on a scale of their own"),
    Component(
        "votes", VoteOptions, _VOTES_SOURCE, "own table of users who vote texts up and down; agreed against disagreed"
    ),
]
