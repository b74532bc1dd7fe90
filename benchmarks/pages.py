"""Records in pages: blocks that hold a table of a record, and figures in running text that some file has.

    <!-- table: small/seen-users -->
    <!-- end -->

is filled by ``python docs/generate.py`` with the table ``seen-users`` of ``benchmarks/results/small.json`` and a line
that says where it comes from, and whether the code that was measured has changed since.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from benchmarks.measured import RESULTS, ROOT, markdown_table
from benchmarks.records import Record, read_record

_BLOCK = re.compile(r"^(<!-- table: ([\w-]+)/([\w-]+) -->\n)(.*?)^(<!-- end -->)$", flags=re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^ *```.*?^ *```$|`[^`\n]*`", flags=re.MULTILINE | re.DOTALL)
_FIGURE = re.compile(r"(?<![\w.,])0?(\.\d{3})(?!\d)")
_GENERATED = ("docs/cli.md", "docs/components.md")


def pages() -> list[Path]:
    """Return the pages that may hold tables of records."""
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("plugins/*/README.md")]
    return sorted(path for path in found if path.relative_to(ROOT).as_posix() not in _GENERATED)


def is_history(path: Path) -> bool:
    """Whether a page tells what was decided then, on figures of then: those stand as they were."""
    return "decisions" in path.relative_to(ROOT).parts


def filled(page: str, path: Path) -> str:
    """Return a page with its blocks filled.

    Raises:
        ValueError: a block names no record, or no table of it.
    """

    records = _records()

    def fill(block: re.Match[str]) -> str:
        start, name, table, _, end = block.groups()
        if name not in records or table not in records[name].tables:
            raise ValueError(f"{path.name}: there is no table {table!r} in benchmarks/results/{name}.json")
        shown = records[name].tables[table]
        header, *rows = ([cell.replace("|", "\\|") for cell in row] for row in (shown.header, *shown.shown()))
        lines = "\n".join(markdown_table(header, rows))
        return f"{start}{lines}\n\n{_source(name, records[name], path)}\n{end}"

    return _BLOCK.sub(fill, page)


def _source(name: str, record: Record, path: Path) -> str:
    place = Path(os.path.relpath(RESULTS / f"{name}.json", path.parent)).as_posix()
    changed = record.changed()
    since = f" **Since then changed: {', '.join(f'`{part}`' for part in changed)}.**" if changed else ""
    return f"*[{name}.json]({place}): `{record.command}` at {record.commit}.{since}*"


@cache
def _records() -> dict[str, Record]:
    return {path.stem: read_record(path) for path in sorted(RESULTS.glob("*.json"))}


def forget_records() -> None:
    """Read the records again when they are next asked for, since one has been written."""
    _records.cache_clear()


def figures_of(text: str) -> set[str]:
    """Return the figures of three decimals below one, as in ``.849`` or ``0.849``.

    >>> sorted(figures_of("from .849 to 0.850, version 2.13.000, `.851` and 1.852"))
    ['.849', '.850']
    """
    return set(_FIGURE.findall(_FENCE.sub("", text)))


def known_figures() -> set[str]:
    """Return the figures that some file of results has."""
    found: set[str] = set()
    for record in _records().values():
        for table in record.tables.values():
            found |= figures_of(" ".join(cell for row in table.rows for cell in row))
        found |= figures_of(" ".join(record.notes))
    for path in RESULTS.glob("*.md"):
        found |= figures_of(path.read_text(encoding="utf-8"))
    return found


def outside_blocks(page: str) -> str:
    """Return what of a page is written by hand."""
    return _BLOCK.sub("", page)


def loose_tables(page: str) -> Iterator[str]:
    """Yield the rows of tables of figures that are written by hand."""
    for line in _FENCE.sub("", outside_blocks(page)).splitlines():
        if line.lstrip().startswith("|") and figures_of(line):
            yield line
