"""Read the export directory of a Polis conversation: statements, participants and the matrix of votes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np

from copl.data.canonical import ValueFaultError
from copl.data.reading import values
from copl.data.reading.columns import encode
from copl.data.reading.faults import Faults
from copl.data.reading.files import open_text
from copl.data.reading.scan import scan_csv
from copl.data.reading.texts import clean
from copl.errors import CoplError, DataError, quoted, suggest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from copl.data.reading.table import Table

ABSENT = 9
"""In a vote matrix: the participant has not voted on the statement."""

_COMMENTS, _SUMMARY = ("comments.csv",), ("summary.csv",)
_VOTES = ("participants-votes.csv", "participant-votes.csv")
"""File names by the age of the export; from 2024 on they may follow the name of the report: ``r8x-comments.csv``."""


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
        directory: holds comments.csv, participants-votes.csv (or participant-votes.csv) and, for the topic,
            summary.csv; all of these may have a name before theirs, such as r8x-comments.csv.
        keep_moderated: keep statements that moderators took out.

    Raises:
        DataError: one fault for each file that is missing or damaged and each cell that is no vote; or the signs of
            the votes disagree with the counts of agrees and disagrees beside them.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; name the export directory of a Polis conversation")
    faults: list[str] = []
    tables: list[Table] = []
    summary: dict[str, str] = {}
    for names in (_COMMENTS, _VOTES):
        try:
            tables.append(scan_csv(_file(directory, names)).checked())
        except CoplError as error:
            faults += error.faults
    try:
        summary = _read_summary(_file(directory, _SUMMARY))
    except CoplError as error:
        faults += error.faults
    if faults:
        raise DataError(faults)
    comments, table = tables
    texts, moderated = _statements(comments)
    _need(table, ("participant", "group-id", "n-agree", "n-disagree"))
    columns = [name for name in table.columns if name.isdecimal()]
    matrix = _matrix(table, columns)
    _check_signs(table, matrix)

    keep, notes, num_moderated = _select(columns, texts, moderated, keep_moderated)
    groups = [_whole(value) or None for value in table.values("group-id")]
    participants = tuple(map(_whole, table.values("participant")))
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


def _file(directory: Path, names: Sequence[str]) -> Path:
    """Return the file of one of the names, or that which ends in one after a name of its own."""
    for name in names:
        if (directory / name).exists():
            return directory / name
    endings = tuple(f"{mark}{name}" for name in names for mark in "-_. ")
    named = sorted(path for path in directory.iterdir() if path.name.endswith(endings) and path.name[0] != ".")
    if len(named) > 1:
        raise DataError(f"{directory}: holds {', '.join(path.name for path in named)}; keep one export in a directory")
    return named[0] if named else directory / names[0]


def _whole(cell: str) -> str:
    """Return a whole number by its digits, whether written as 3 or as 3.0; any other text as it is."""
    try:
        value = values.number(cell)
    except ValueFaultError:
        return cell.strip()
    return str(int(value)) if value == int(value) else cell.strip()


def _read_summary(path: Path) -> dict[str, str]:
    # Not a table: a key and a value a line. It only gives words to the prompt, so it may be missing.
    if not path.exists():
        return {}
    try:
        with open_text(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            records = list(csv.reader(text, strict=True, skipinitialspace=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a table of names and values in UTF-8 ({error})") from error
    return {record[0].strip(): ",".join(record[1:]).strip() for record in records if record}


def _need(table: Table, names: Sequence[str]) -> None:
    faults = Faults(table.where)
    for name in names:
        if name not in table.columns:
            faults.add(f"no column {quoted(name)}{suggest(name, table.columns)}; is this file of a Polis export?")
    faults.raise_any()


def _statements(table: Table) -> tuple[dict[str, str], set[str]]:
    """Return the text of each statement by id, and the ids of those moderated out."""
    _need(table, ("comment-id", "moderated", "comment-body"))
    ids = [_whole(value) for value in table.values("comment-id")]
    faults = Faults(table.where)
    seen: set[str] = set()
    for place, value in enumerate(ids):
        if value in seen:
            faults.add(f"comment-id: {quoted(value)} is there twice", row=table.rows[place], label=table.label(place))
        seen.add(value)
    faults.raise_any()
    moderated = {i for i, mark in zip(ids, table.values("moderated"), strict=True) if _whole(mark) == "-1"}
    bodies = (" ".join(clean(body.replace("\x00", " ")).split()) for body in table.values("comment-body"))
    return dict(zip(ids, bodies, strict=True)), moderated


def _matrix(table: Table, columns: list[str]) -> Any:
    matrix = np.full((len(table), len(columns)), ABSENT, dtype=np.int8)
    faults = Faults(table.where)
    for place, name in enumerate(columns):
        column = encode(table.columns[name])
        votes = [_vote(cell) for cell in column.values]
        for row in column.rows_where([vote is None for vote in votes]).tolist():
            cell = quoted(column.values[column.codes[row]])
            message = f"statement {name}: {cell} is no vote; expected 1, 0, -1 or nothing"
            faults.add(message, row=int(table.rows[row]), label=table.label(row))
        matrix[:, place] = column.mapped([vote or 0 for vote in votes], ABSENT, np.int8)
    faults.raise_any()
    return matrix


def _vote(cell: str) -> int | None:
    """Return a vote, `ABSENT` for none; None where the cell is no vote."""
    if not cell.strip():
        return ABSENT
    try:
        value = values.number(cell)  # passes may be written -0.0
    except ValueFaultError:
        return None
    return int(value) if value in (1.0, 0.0, -1.0) else None


def _check_signs(table: Table, matrix: Any) -> None:
    # Exports of different ages disagree about the sign of an agree; the counts beside the votes tell.
    try:
        agrees, disagrees = (np.array(list(map(values.number, table.values(n)))) for n in ("n-agree", "n-disagree"))
    except ValueFaultError as error:
        raise DataError(f"{table.where}: n-agree or n-disagree: {error}") from error
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
