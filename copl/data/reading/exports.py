"""Exports of tools: a JSON list of objects, or an object a line, or a single object; or the rows of a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import attrs

from copl.data.canonical import ValueFaultError, kind_of
from copl.data.reading import values
from copl.data.reading.faults import Faults
from copl.data.reading.files import open_text, unknown_kind, unpacked_name
from copl.data.reading.hub import PARQUET, parquet_rows
from copl.data.reading.texts import clean, kind_without_text, text_of_part
from copl.errors import DataError, of_json, quoted
from copl.system.documents import finite_json

_TABLES = (".csv", ".tsv", ".xlsx")


@final
@attrs.frozen(eq=False)
class Export:
    """The entries of an export, and what is wrong with it.

    Attributes:
        entries: the entries that are objects.
        numbers: number of each, counted from 1.
        faults: what is wrong with others; whoever reads the entries adds what else is wrong, and raises all of it.
    """

    entries: Sequence[Mapping[str, Any]]
    numbers: Sequence[int]
    faults: Faults
    _ids: dict[str, str] = attrs.field(factory=dict, init=False)
    _unread: dict[str, set[int]] = attrs.field(factory=dict, init=False)

    def fault(self, number: int, message: str) -> None:
        """Add what is wrong with an entry."""
        self.faults.add(message, row=number, label=f"entry {number}")

    def user(self, value: object) -> str | None:
        """Return the id of a user in its one spelling, or None where the value is neither text nor a whole number."""
        try:
            user = values.user_id(value)
        except ValueFaultError:
            return None
        self._ids.setdefault("text" if isinstance(value, str) else "number", user)
        return user

    def text(self, number: int, content: object) -> str:
        """Return the text of a message of an entry, see `text_of`; what was shown beside it, the notes say."""
        self.see(number, content)
        return text_of(content)

    def see(self, number: int, parts: object) -> None:
        """Take down which parts of a message are pictures, sound or files, which nobody reads here."""
        for part in parts if isinstance(parts, list | tuple) else ():
            if kind := kind_without_text(part):
                self._unread.setdefault(kind, set()).add(number)

    @property
    def notes(self) -> list[str]:
        """What a person should know of the entries that were read."""
        notes = []
        if len(set(self._ids.values())) > 1:
            number, text = quoted(self._ids["number"]), quoted(self._ids["text"])
            notes.append(f"Some users are named by a number and some by text, such as {number} and {text}; one may be "
                         "taken for two.")  # fmt: skip
        if self._unread:
            count = len(set[int]().union(*self._unread.values()))
            kinds = ", ".join(sorted(self._unread))
            notes.append(f"{count:,} entries have more than text ({kinds}), which was not read: what is learnt of them "
                         "rests on their text alone.")  # fmt: skip
        return notes


def read_export(path: Path) -> Export:
    """Read an export.

    Raises:
        DataError: the file cannot be read, is neither JSON nor Parquet, or has no entries.
    """
    ending = unpacked_name(path).suffix.lower()
    if ending in PARQUET:
        rows = [row for _, row in parquet_rows(path)]
        if not rows:
            raise DataError(f"{path}: there are no entries")
        return Export(rows, range(1, len(rows) + 1), Faults(str(path)))
    if ending in _TABLES:
        raise unknown_kind(path, "JSON and Parquet; export it as one of these")
    with open_text(path) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start:,}; save it as UTF-8") from None
    faults = Faults(str(path))
    parsed = _parsed(path, text, faults)
    if not parsed and not len(faults):
        raise DataError(f"{path}: there are no entries")
    entries, numbers = [], []
    for number, value in parsed:
        if isinstance(value, Mapping):
            entries.append(value)
            numbers.append(number)
        else:
            faults.add(f"expected an object, got {kind_of(value)}", row=number, label=f"entry {number}")
    return Export(entries, numbers, faults)


def _parsed(path: Path, text: str, faults: Faults) -> list[tuple[int, object]]:
    if text.lstrip().startswith("["):
        try:
            return list(enumerate(finite_json(text), start=1))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: {of_json(error)}; export it again") from None
    with suppress(ValueError, RecursionError):
        return [(1, finite_json(text))]  # over several lines, maybe
    lines: list[tuple[int, object]] = []
    # Not str.splitlines: that also splits at U+2028 and the like, which JSON allows within text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            lines.append((number, finite_json(line)))
        except (ValueError, RecursionError) as error:
            faults.add(of_json(error), row=number, label=f"line {number}")
    return lines


def text_of(content: object) -> str:
    """Return the text of a message in its one spelling, of text or of parts of which some are text; else nothing."""
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, Sequence) and not isinstance(content, bytes):
        return clean("\n".join(text for part in content if (text := text_of_part(part)) is not None))
    return ""


def missing(where: str, value: object, wanted: str) -> str:
    """Return what is wrong with a value of another type than `wanted`."""
    return f"{where}: {'missing' if value is None else f'expected {wanted}, got {quoted(value)}'}"
