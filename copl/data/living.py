"""Data sets that go on living: rows are added without a move of what is there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal, final

import attrs
import numpy as np

from copl.data.making.by_time import time_splits
from copl.data.making.notes import Note, left_out, noted
from copl.data.making.splits import ComparisonSplitOptions
from copl.data.making.stable import stable_splits
from copl.data.pairs import compact_all, first_of, pair_numbers, superseded
from copl.data.reading.faults import Faults
from copl.data.reading.rows import COLUMNS_HELP, NO_NAMES
from copl.data.requests import Tell, do_not_tell
from copl.errors import quoted
from copl.options import option, parse_options
from copl.records import SPLITS, Comparisons, ComparisonSet, PreferenceData, ResponseTable, UserTable
from copl.system.converters import latest_of, number_rows

if TYPE_CHECKING:
    from copl.data.reading.rows import Rows
    from copl.records import BoolArray, IntArray
    from copl.records.judgements import Judgements


@final
@attrs.frozen(kw_only=True)
class AddOptions:
    """How rows that are added are read."""

    columns: dict[str, str] = option(NO_NAMES, help=f"{COLUMNS_HELP}user_id=worker,chosen=winner")
    contradictions: Literal["keep", "drop", "error"] = option(
        "error",
        help="a pair the user decided the other way before: error names the rows; keep has it both ways; drop leaves "
        "the new one out; of answers at different times the last counts, unless keep",
    )


def training_ends(data: PreferenceData) -> tuple[float, float] | None:
    """Return the end of training and that of validation of a data set split by time; None for any other."""
    if split_options_of(data).strategy != "time":
        return None
    if moments := data.provenance.get("moments"):
        return float(moments[0]), float(moments[1])
    parts = (data.splits, data.judgements)
    first, second = (
        max([-np.inf, *(float(np.nanmax(part[name].time, initial=-np.inf)) for part in parts if name in part)])
        for name in ("train", "validation")
    )
    return first, max(first, second)


def add_rows(
    data: PreferenceData, rows: Rows, options: AddOptions, *, name: str, tell: Tell = do_not_tell
) -> PreferenceData:
    """Return a data set with more comparisons; those that are there keep their splits.

    What the data set has already is left out. New comparisons are split by the hash of user and responses as own files
    are (`copl.data.making.stable`), or as their own column ``split`` says.

    Args:
        data: the data set.
        rows: the rows to add.
        options: what to do about rows that contradict what is there.
        name: what the rows are called in the notes.
        tell: is told what was left out, and why.

    Raises:
        DataError: one fault for each row that contradicts another one, or gives a user another group or role.
    """
    users, responses, fresh = _joined(data, rows)
    known = dict(data.splits)
    before = Comparisons.concat(list(known.values()))
    is_new, is_current, reasons = _sift(before, fresh, rows, options)
    added = fresh.take(is_new)
    if rows.split is not None:
        codes = [rows.split.values[code] for code in rows.split.codes[is_new].tolist()]
        parts = {split: added.take(np.array([code == split for code in codes])) for split in SPLITS}
        _check_roles(known, fresh, rows)
    else:
        split_options, make_splits = split_options_of(data), stable_splits
        if split_options.strategy == "time":
            rows.require_times()
            make_splits = partial(time_splits, ends=training_ends(data))
        outcome = make_splits(
            ComparisonSet(users, responses, added), split_options, seed=split_seed_of(data), known=known
        )
        parts = dict(outcome.splits)
        reasons |= outcome.dropped
    starts = np.cumsum([0, *map(len, known.values())])
    kept_rows = {split: part.take(is_current[start:][: len(part)])
                 for (split, part), start in zip(known.items(), starts, strict=False)}  # fmt: skip
    splits = {
        split: Comparisons.concat([kept_rows.get(split, Comparisons.empty()), part])
        for split, part in parts.items()
        if split in known or len(part)
    }
    judged = {split: part.take(~_decided(part, added)) for split, part in data.judgements.items()}
    table, kept, splits, judgements = compact_all(users, responses, splits, judged)
    count = sum(map(len, parts.values()))
    unused = left_out(reasons, f"of {name}")
    for note in unused:
        tell(str(note))
    if not count and table.groups == data.users.groups:
        return data
    notes: list[Note] = [f"{count:,} comparisons were added from {name}.", *rows.notes, *unused]
    counts = {**data.provenance.get("counts", {}), "kept": sum(map(len, splits.values()))}
    provenance = {**data.provenance, "counts": counts, **noted(data.provenance, notes)}
    return PreferenceData(data.name, table, kept, splits, provenance, judgements)


def _decided(judged: Judgements, added: Comparisons) -> BoolArray:
    """Return which judgements [N] are ties that are decided by now: the same user has compared the two."""
    user = np.concatenate([judged.user, added.user])
    ends = np.concatenate([judged.response, added.chosen]), np.concatenate([judged.other, added.rejected])
    pair = number_rows(user, np.minimum(*ends) + 1, np.maximum(*ends))
    time = latest_of(pair[len(judged) :], np.nan_to_num(added.time, nan=np.inf), int(pair.max(initial=-1)) + 1)
    decided: BoolArray = judged.is_of_two & (np.nan_to_num(judged.time, nan=-np.inf) < time[pair[: len(judged)]])
    return decided


def _joined(data: PreferenceData, rows: Rows) -> tuple[UserTable, ResponseTable, Comparisons]:
    """Return users and responses of both, those of the data set first, and the comparisons of the rows in them."""
    more = rows.data
    users, responses, user_row, response_row = joined_tables(data, more.users, more.responses, rows.table.where)
    return users, responses, more.comparisons.renumbered(user_row, response_row)


def joined_tables(
    data: PreferenceData, more_users: UserTable, more_responses: ResponseTable, where: str
) -> tuple[UserTable, ResponseTable, IntArray, IntArray]:
    """Return users and responses of both, those of the data set first, and the rows of the others in them.

    Raises:
        DataError: one fault for each user who is in another group than before; `where` names the others' file.
    """
    strangers = [row for row, user in enumerate(more_users.ids) if user not in data.users.rows]
    faults = Faults(where)
    groups = list(data.users.groups)
    for user, group in zip(more_users.ids, more_users.groups, strict=True):
        row = data.users.rows.get(user)
        if row is not None and group is not None:
            if groups[row] not in (None, group):
                faults.add(f"user {quoted(user)} is in group {quoted(group)} here and in {quoted(groups[row])} before")
            groups[row] = group
    faults.raise_any()
    users = UserTable(
        (*data.users.ids, *(more_users.ids[row] for row in strangers)),
        (*groups, *(more_users.groups[row] for row in strangers)),
    )
    unmet = np.array([row for row, key in enumerate(more_responses.keys) if key not in data.responses.rows], np.int64)
    met = more_responses.take(unmet)
    responses = ResponseTable((*data.responses.prompts, *met.prompts), (*data.responses.texts, *met.texts))
    user_row = np.array([users.rows[user] for user in more_users.ids], dtype=np.int64)
    response_row = np.array([responses.rows[key] for key in more_responses.keys], dtype=np.int64)
    return users, responses, user_row, response_row


def _sift(
    before: Comparisons, fresh: Comparisons, rows: Rows, options: AddOptions
) -> tuple[BoolArray, BoolArray, dict[str, int]]:
    """Return which rows [N] say something new, which old ones still hold, and how many rows are left out by reason."""
    everything = Comparisons.concat([before, fresh])
    start, table = len(before), rows.table
    earlier = superseded(everything) & (options.contradictions != "keep")
    current = np.flatnonzero(~earlier)
    said = number_rows(everything.user, everything.chosen, everything.rejected)
    again = (first_of(current, said) != np.arange(len(everything)))[start:] & ~earlier[start:]
    first = first_of(current, pair_numbers(everything))[start:]
    against = ~again & ~earlier[start:] & (fresh.chosen != everything.chosen[first])
    if options.contradictions == "error" and against.any():
        faults = Faults(table.where)

        def tell(place: int) -> tuple[int, str, str]:
            other = table.label(int(first[place]) - start) if first[place] >= start else "the data set"
            user = quoted(rows.data.users.ids[rows.data.comparisons.user[place]])
            message = f"user {user} contradicts {other}; remove one, or set contradictions=keep (or drop)"
            return int(table.rows[place]), message, table.label(place)

        faults.add_each(np.flatnonzero(against), tell)
        faults.raise_any()
    is_left_out = against & (options.contradictions == "drop")
    reasons = {
        "there already": int(again.sum()),
        "against what is there": int(is_left_out.sum()),
        "decided again later": int(earlier[start:].sum()),
    }
    return ~again & ~is_left_out & ~earlier[start:], ~earlier[:start], reasons


def _check_roles(known: Mapping[str, Comparisons], fresh: Comparisons, rows: Rows) -> None:
    """Refuse rows whose split makes a user seen and unseen."""
    assert rows.split is not None
    roles = {int(user): name in ("support", "heldout") for name, part in known.items() for user in np.unique(part.user)}
    unseen = rows.split.mapped([name in ("support", "heldout") for name in rows.split.values], False, np.bool_)
    table, ids = rows.table, rows.data.users.ids
    mixed = [n for n, user in enumerate(fresh.user.tolist()) if roles.get(user, unseen[n]) != unseen[n]]

    def tell(place: int) -> tuple[int, str, str]:
        here, before = ("unseen", "seen") if unseen[place] else ("seen", "unseen")
        user = quoted(ids[rows.data.comparisons.user[place]])
        return (
            int(table.rows[place]),
            f"split: user {user} is {here} here and {before} in the data set",
            table.label(place),
        )

    faults = Faults(table.where)
    faults.add_each(mixed, tell)
    faults.raise_any()


def split_seed_of(data: PreferenceData) -> int:
    """Return the seed that a data set was split with."""
    seed = data.provenance.get("seed", 0)
    return seed if isinstance(seed, int) and seed >= 0 else 0


def split_options_of(data: PreferenceData) -> ComparisonSplitOptions:
    """Return how the comparisons of a data set were split, as far as its source says."""
    given = data.provenance.get("options", {})
    names = {field.name for field in attrs.fields(ComparisonSplitOptions)}
    asked = {name: value for name, value in given.items() if name in names}
    if data.provenance.get("split") in ("response", "time"):
        asked["strategy"] = data.provenance["split"]
    return parse_options(ComparisonSplitOptions, asked, where=f"data set {quoted(data.name)}")
