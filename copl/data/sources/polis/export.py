"""Read the export directory of a Polis conversation: statements, participants and the matrix of votes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np

from copl.data.reading.files import Faults, Table, read_csv, read_text
from copl.errors import CoplError, DataError, suggest

if TYPE_CHECKING:
    from numpy.typing import NDArray

ABSENT = 9
"""In a vote matrix: the participant has not voted on the statement."""

_COMMENTS, _VOTES, _SUMMARY = "comments.csv", "participants-votes.csv", "summary.csv"
_VALUES = {"": ABSENT, "1": 1, "0": 0, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1}


@final
@attrs.frozen(eq=False)
class Conversation:
    """One conversation.

    Attributes:
        summary: topic, url, description and counts as exported.
        participants: ids of the participants [U].
        groups: opinion group that Polis has found for each, or None [U].
        statements: texts [S], all different.
        votes: 1 agree, -1 disagree, 0 pass, `ABSENT` [U, S].
        num_moderated: statements left out because moderators took them out.
        notes: what else was left out.
    """

    summary: Mapping[str, str]
    participants: tuple[str, ...]
    groups: tuple[str | None, ...]
    statements: tuple[str, ...]
    votes: NDArray[np.int8]
    num_moderated: int
    notes: tuple[str, ...]


def read_export(directory: Path, *, keep_moderated: bool = False) -> Conversation:
    """Read an export directory.

    Args:
        directory: holds comments.csv, participants-votes.csv and, for the topic, summary.csv.
        keep_moderated: keep statements that moderators took out.

    Raises:
        DataError: one fault for each file that is missing or damaged and each cell that is no vote; or the signs of
            the votes disagree with the counts of agrees and disagrees beside them.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; name the export directory of a Polis conversation")
    faults: list[str] = []
    tables: dict[str, Table] = {}
    summary: dict[str, str] = {}
    for name in (_COMMENTS, _VOTES):
        try:
            tables[name] = read_csv(directory / name)
        except CoplError as error:
            faults += error.faults
    try:
        summary = _read_summary(directory / _SUMMARY)
    except CoplError as error:
        faults += error.faults
    if faults:
        raise DataError(faults)
    texts, moderated = _statements(tables[_COMMENTS])
    table = tables[_VOTES]
    _need(table, ("participant", "group-id", "n-agree", "n-disagree"))
    columns = [name for name in table.columns if name.isdecimal()]
    matrix = _matrix(table, columns)
    _check_signs(table, matrix)

    keep, notes, num_moderated = _select(columns, texts, moderated, keep_moderated)
    groups = [value if value != "" else None for value in table.columns["group-id"]]
    participants = tuple(table.columns["participant"])
    if len(set(participants)) != len(participants):
        raise DataError(f"{table.where}: a participant is there twice; each has one row in an export")
    return Conversation(
        summary,
        participants,
        tuple(groups),
        tuple(texts[columns[place]] for place in keep),
        matrix[:, keep],
        num_moderated,
        notes,
    )


def _read_summary(path: Path) -> dict[str, str]:
    # Not a table: a key and a value a line. It only gives words to the prompt, so it may be missing.
    if not path.exists():
        return {}
    try:
        records = list(csv.reader(io.StringIO(read_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: quotes are unbalanced ({error})") from error
    return {record[0].strip(): ",".join(record[1:]).strip() for record in records if record}


def _need(table: Table, names: Sequence[str]) -> None:
    faults = Faults(table.where)
    for name in names:
        if name not in table.columns:
            faults.add(f"no column {name!r}{suggest(name, table.columns)}; is this file of a Polis export?")
    faults.raise_any()


def _statements(table: Table) -> tuple[dict[str, str], set[str]]:
    """Return the text of each statement by id, and the ids of those moderated out."""
    _need(table, ("comment-id", "moderated", "comment-body"))
    ids = [value.strip() for value in table.columns["comment-id"]]
    faults = Faults(table.where)
    seen: set[str] = set()
    for place, value in enumerate(ids):
        if value in seen:
            faults.add(f"comment-id: {value!r} is there twice", row=table.rows[place], label=table.label(place))
        seen.add(value)
    faults.raise_any()
    moderated = {i for i, mark in zip(ids, table.columns["moderated"], strict=True) if mark.strip() == "-1"}
    bodies = (" ".join(body.replace("\x00", " ").split()) for body in table.columns["comment-body"])
    return dict(zip(ids, bodies, strict=True)), moderated


def _matrix(table: Table, columns: list[str]) -> Any:
    matrix = np.full((len(table), len(columns)), ABSENT, dtype=np.int8)
    faults = Faults(table.where)
    for place, name in enumerate(columns):
        cells = table.columns[name]
        try:
            matrix[:, place] = [_VALUES[cell] for cell in cells]
        except KeyError:
            for row, cell in enumerate(cells):
                if cell not in _VALUES:
                    message = f"statement {name}: {cell!r} is no vote; expected 1, 0, -1 or nothing"
                    faults.add(message, row=table.rows[row], label=table.label(row))
    faults.raise_any()
    return matrix


def _check_signs(table: Table, matrix: Any) -> None:
    # Exports of different ages disagree about the sign of an agree; the counts beside the votes tell.
    try:
        agrees, disagrees = (np.array([int(v) for v in table.columns[name]]) for name in ("n-agree", "n-disagree"))
    except ValueError as error:
        raise DataError(f"{table.where}: n-agree or n-disagree holds something else than a number") from error
    positive, negative = (matrix == 1).sum(axis=1), (matrix == -1).sum(axis=1)
    right = int(((positive == agrees) & (negative == disagrees)).sum())
    reverse = int(((positive == disagrees) & (negative == agrees)).sum())
    if reverse > right:
        raise DataError(
            f"{table.where}: 1 stands for disagree and -1 for agree here ({reverse:,} of {len(table):,} participants "
            "by the counts in n-agree and n-disagree); reverse the signs of the votes"
        )
    if right < len(table):
        wrong = len(table) - right
        raise DataError(
            f"{table.where}: n-agree and n-disagree do not match the votes of {wrong:,} of {len(table):,} participants;"
            " the file is damaged or was edited"
        )


def _select(
    columns: list[str], texts: Mapping[str, str], moderated: set[str], keep_moderated: bool
) -> tuple[list[int], tuple[str, ...], int]:
    """Return the columns to keep, remarks, and how many were moderated out."""
    keep: list[int] = []
    out = unknown = empty = repeated = 0
    seen: set[str] = set()
    for place, name in enumerate(columns):
        if name not in texts:
            unknown += 1
        elif name in moderated and not keep_moderated:
            out += 1
        elif not texts[name]:
            empty += 1
        elif texts[name] in seen:
            repeated += 1
        else:
            keep.append(place)
            seen.add(texts[name])
    remarks = {
        f"{out:,} of {len(columns):,} statements were moderated out; their votes are left out.": out,
        f"{unknown:,} statements have votes but no text and are left out.": unknown,
        f"{empty:,} statements have an empty text and are left out.": empty,
        f"{repeated:,} statements repeat the text of another and are left out.": repeated,
    }
    return keep, tuple(text for text, count in remarks.items() if count), out
