"""Sources ``jsonl``, ``csv`` and ``parquet``: own files in the row schema of `copl.data.reading.rows`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import attrs
import numpy as np

from copl.data.making.by_time import time_splits
from copl.data.making.mixed import JUDGED, collect_rows, is_mixed
from copl.data.making.notes import Note, Omission
from copl.data.making.origin import ATTRIBUTION_HELP, LICENCE_HELP, Origin
from copl.data.making.splits import ComparisonSplitOptions
from copl.data.making.stable import STABLE_VERSION, stable_splits
from copl.data.pairs import compact, contradictions, first_of, pair_numbers, repeats, superseded
from copl.data.reading.faults import Faults
from copl.data.reading.files import is_packed, require_file, unknown_kind, unpacked_name
from copl.data.reading.rows import COLUMNS_HELP, NO_NAMES, OPTIONAL, REQUIRED, Rows, parse_rows
from copl.data.reading.scan import scan_csv, scan_jsonl, scan_parquet
from copl.errors import DataError, quoted
from copl.options import option
from copl.plugins import Component
from copl.records import SPLITS, Comparisons, ComparisonSet, PreferenceData
from copl.system.converters import number_rows

if TYPE_CHECKING:
    from copl.data.reading.columns import EncodedColumn
    from copl.data.reading.table import Table
    from copl.interfaces import Progress
    from copl.records import BoolArray, ResponseTable


@attrs.frozen(kw_only=True)
class RowOptions(ComparisonSplitOptions):
    """How rows in the row schema become a data set; the base of the options of the sources for such rows."""

    columns: dict[str, str] = option(NO_NAMES, help=f"{COLUMNS_HELP}user_id=worker,chosen=winner")
    duplicates: Literal["keep", "drop", "error"] = option(
        "error",
        help="a comparison a user repeats: error names the rows; drop keeps the first, for a copy tells nothing new; "
        "of answers at different times the last counts, unless keep",
    )
    contradictions: Literal["keep", "drop", "error"] = option(
        "error",
        help="a pair a user decides both ways: error names the rows; keep, where people were asked twice and are not "
        "consistent; drop removes both; of answers at different times the last counts, unless keep",
    )
    licence: str = option("", help=LICENCE_HELP)
    attribution: str = option("", help=ATTRIBUTION_HELP)


@final
@attrs.frozen(kw_only=True)
class TableOptions(RowOptions):
    """Options of the sources for own files."""

    path: Path = option(help="the file to read")


_DUPLICATES = "remove one, or set duplicates=drop (or keep)"
_CONTRADICTIONS = "remove one, or set contradictions=keep (or drop)"

READERS: dict[str, Callable[..., Table]] = {"jsonl": scan_jsonl, "csv": scan_csv, "parquet": scan_parquet}
"""Reader of each file format, by the name of its source."""


def read_table(path: Path) -> Table:
    """Read a file of rows, its format told by its ending; text may be compressed: ``.jsonl.gz``, ``.csv.gz``.

    Returns:
        the rows that could be read, and what is wrong with the others.

    Raises:
        DataError: no such file, a directory, an unknown ending, or a file that cannot be read.
    """
    require_file(path)
    ending = unpacked_name(path).suffix.lower()
    name = {".ndjson": "jsonl", ".pq": "parquet"}.get(ending, ending.lstrip("."))
    if name not in READERS or (is_packed(path) and name == "parquet"):
        raise unknown_kind(path, ".jsonl, .csv (or with .gz) and .parquet")
    return READERS[name](path)


@final
class TableSource:
    """Reads one file of comparisons and splits it; a ``split`` column is taken as given."""

    def __init__(self, name: str, options: TableOptions, progress: Progress | None = None) -> None:
        self._name = name
        self._options = options
        self._progress = progress

    def showing(self, progress: Progress) -> TableSource:
        """Return this source, which shows there how far it is."""
        return TableSource(self._name, self._options, progress)

    def load(self, *, seed: int) -> PreferenceData:
        """Read the file.

        Raises:
            DataError: the file cannot be read, or one fault for each row that is wrong.
        """
        options = self._options
        wanted = {options.columns.get(name, name) for name in (*REQUIRED, *OPTIONAL, *JUDGED)}
        table = READERS[self._name](options.path, wanted, self._progress)
        if is_mixed(table, options.columns):
            collected, notes = collect_rows(table, options.columns)
            origin = Origin(self._name, options.licence, options.attribution, "")
            return collected.data(options, origin, where=options.path, seed=seed, notes=notes)
        rows = parse_rows(table, options.columns)
        return data_of_rows(rows, options, source=self._name, name=unpacked_name(options.path).stem, seed=seed)


def data_of_rows(
    rows: Rows,
    options: RowOptions,
    *,
    source: str,
    name: str,
    seed: int,
    cold: Callable[[ResponseTable], BoolArray | None] = lambda responses: None,
    notes: Sequence[Note] = (),
) -> PreferenceData:
    """Make a data set of checked rows; a split column is taken as given.

    Args:
        rows: the rows.
        options: what to do about repeated and contradictory rows, and how to split.
        source: name of the source.
        name: name of the data set.
        seed: the same seed gives the same splits.
        cold: tells which responses [R] are never trained on, where that is known; None draws them.
        notes: findings in words.

    Raises:
        DataError: rows that repeat or contradict others, where the options make that an error.
    """
    keep, counts = _sift(rows, options)
    notes = [*notes, *rows.notes]
    if earlier := counts.get("decided again later"):
        notes.append(Omission(earlier, "comparisons", "the same user decided again at a later time"))
    comparisons = rows.data.comparisons if keep.all() else rows.data.comparisons.take(keep)
    sifted = ComparisonSet(rows.data.users, rows.data.responses, comparisons)
    if rows.split is None:
        make_splits = stable_splits
        if options.strategy == "time":
            rows.require_times()
            make_splits = time_splits
        split = make_splits(sifted, options, seed=seed, cold=cold(sifted.responses))
        splits = dict(split.splits)
        notes += split.notes
    else:
        splits = _given_splits(sifted.comparisons, rows.split, keep)
        notes.append("The splits are those of the file's split column.")
    if not any(map(len, splits.values())):
        raise DataError(f"{rows.table.where}: no comparison is left: {'; '.join(_reasons(counts, notes))}")
    users, responses, splits = compact(sifted.users, sifted.responses, splits)
    provenance = Origin(source, options.licence, options.attribution, "").provenance(
        options,
        seed=seed,
        split="given" if rows.split is not None else options.strategy,
        counts={"rows": len(rows.table), **counts, "kept": sum(map(len, splits.values()))},
        notes=notes,
        split_version=STABLE_VERSION,
    )
    return PreferenceData(name, users, responses, splits, provenance)


def _reasons(counts: Mapping[str, int], notes: Sequence[Note]) -> list[str]:
    """Return why rows were left out, in words."""
    both = counts["contradictions"]
    contradict = [f"{both:,} contradict others"] if both else []
    return [*contradict, *(str(note).rstrip(".") for note in notes if isinstance(note, Omission))]


def _sift(rows: Rows, options: RowOptions) -> tuple[BoolArray, dict[str, int]]:
    comparisons, table, faults = rows.data.comparisons, rows.table, Faults(rows.table.where)
    ids, user = rows.data.users.ids, comparisons.user
    earlier = np.zeros(len(comparisons), dtype=np.bool_)
    if options.contradictions != "keep" and options.duplicates != "keep":
        earlier = superseded(comparisons)
    current = np.flatnonzero(~earlier)
    again, both = (np.zeros(len(comparisons), dtype=np.bool_) for _ in range(2))
    again[current], both[current] = (look(comparisons.take(current)) for look in (repeats, contradictions))

    def add_each(wrong: BoolArray, tell: Callable[[int], str]) -> None:
        faults.add_each(
            np.flatnonzero(wrong),
            lambda row: (int(table.rows[row]), f"user {quoted(ids[user[row]])} {tell(row)}", table.label(row)),
        )

    if options.duplicates == "error" and again.any():
        first = first_of(current, number_rows(user, comparisons.chosen, comparisons.rejected))
        add_each(again, lambda row: f"says again what {table.label(int(first[row]))} says; {_DUPLICATES}")
    if options.contradictions == "error" and both.any():
        opening = first_of(current, pair_numbers(comparisons))
        against = both & (comparisons.chosen != comparisons.chosen[opening])
        add_each(against, lambda row: f"contradicts {table.label(int(opening[row]))}; {_CONTRADICTIONS}")
    faults.raise_any()
    keep = ~earlier & ~(again & (options.duplicates == "drop")) & ~(both & (options.contradictions == "drop"))
    counts = {"duplicates": int(again.sum()), "contradictions": int(both.sum())}
    return keep, counts | ({"decided again later": int(earlier.sum())} if earlier.any() else {})


def _given_splits(comparisons: Comparisons, split: EncodedColumn, keep: BoolArray) -> dict[str, Comparisons]:
    masks = {name: split.mapped([value == name for value in split.values], False, np.bool_)[keep] for name in SPLITS}
    return {name: comparisons.take(mask) for name, mask in masks.items() if mask.any()}


COMPONENTS = [
    Component("jsonl", TableOptions, partial(TableSource, "jsonl"), "own comparisons, one JSON object a line"),
    Component("csv", TableOptions, partial(TableSource, "csv"), "own comparisons, comma-separated with a header"),
    Component("parquet", TableOptions, partial(TableSource, "parquet"), "own comparisons in a Parquet file"),
]
