"""Published figures as files: what was measured, by which command, at which commit, on which code.

A record is ``benchmarks/results/<subject>.json``. Pages quote its tables in blocks that ``python docs/generate.py``
fills in, and says there by itself where the code that was measured has changed since.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, final

from attrs import field, frozen

from benchmarks.measured import code_digest, commit, machine
from copl.system.documents import read_document, write_document

PACKAGES = ("copl", "copl-baselines", "torch", "transformers", "numpy", "scipy")


TOLD = frozenset({"`group-oracle`"})
"""Rows of references that are told what no method knows, here the true groups of users: bold goes to others."""

_BOLD = re.compile(r"\*\*(.+?)\*\*")


def _texts(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(values)


def _rows(values: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row) for row in values)


@final
@frozen
class PublishedTable:
    """A table as pages show it.

    Attributes:
        title: what it shows.
        header: names of the columns.
        rows: cells in Markdown, each row as long as the header.
    """

    title: str
    header: tuple[str, ...] = field(converter=_texts)
    rows: tuple[tuple[str, ...], ...] = field(converter=_rows)

    def shown(self) -> tuple[tuple[str, ...], ...]:
        """Return the rows with the highest figure of a column bold among the methods that are told nothing.

        A record may have been written with a reference of `TOLD` in bold. Other tables are shown as they are.
        """
        told = [row[0] in TOLD for row in self.rows]
        if not any(is_told and _BOLD.search("".join(row)) for row, is_told in zip(self.rows, told, strict=True)):
            return self.rows
        columns = [list(column) for column in zip(*self.rows, strict=True)]
        for column in columns[1:]:
            column[:] = [_BOLD.sub(r"\1", cell) for cell in column]
            figures = [cell.split(" ")[0] for cell in column]
            others = [f for f, is_told in zip(figures, told, strict=True) if not is_told and f.startswith((".", "1."))]
            best = max(others, key=float, default="")
            for place, figure in enumerate(figures):
                if best and figure == best and not told[place]:
                    column[place] = column[place].replace(figure, f"**{figure}**", 1)
        return tuple(zip(*columns, strict=True))


@final
@frozen
class Record:
    """What was measured.

    Attributes:
        title: heading.
        command: how to measure it again, from the root of the project.
        commit: the commit it was measured at.
        versions: of Python and the packages.
        machine: what it ran on.
        code: digest of each place in the project whose code was measured.
        notes: how the figures are to be read, a sentence each.
        tables: by the name that pages call them by.
    """

    title: str
    command: str
    commit: str
    versions: Mapping[str, str]
    machine: str
    code: Mapping[str, str]
    notes: tuple[str, ...] = field(converter=_texts)
    tables: Mapping[str, PublishedTable]

    def changed(self) -> list[str]:
        """Return the measured places whose code is another now."""
        return [place for place, digest in self.code.items() if code_digest(place) != digest]


def new_record(title: str, command: str, *, code: Sequence[str], notes: Sequence[str] = ()) -> Record:
    """Return a record without tables, before anything is measured.

    Args:
        title: heading.
        command: how to measure it again.
        code: what is measured, from the root of the project: files and directories.
        notes: how the figures are to be read.
    """
    return Record(
        title=title,
        command=command,
        commit=commit(),
        versions={"python": platform.python_version(), **_versions()},
        machine=machine(),
        code={place: code_digest(place) for place in code},
        notes=notes,
        tables={},
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_record(record: Record, path: Path) -> None:
    """Write a record."""
    write_document(path, record)


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        CoplError: the file is missing, or is no record.
    """
    record: Any = read_document(path, Record, advice="run its command again")
    return record  # type: ignore[no-any-return]  # as parsed
