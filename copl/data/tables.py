"""Sources ``jsonl``, ``csv`` and ``parquet``: own files in the row schema of `copl.data.rows`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import attrs
import numpy as np

from copl.data.files import Faults, Table, read_csv, read_jsonl, read_parquet
from copl.data.pairs import compact, contradictions, first_rows, number_rows, pair_numbers, repeats
from copl.data.rows import Rows, parse_rows, read_comparison_rows
from copl.data.splits import ComparisonSplitOptions, make_splits
from copl.errors import DataError
from copl.options import option, options_to_dict
from copl.plugins import Component
from copl.records import SPLITS, Comparisons, ComparisonSet, PreferenceData

if TYPE_CHECKING:
    from copl.interfaces import DatasetSource
    from copl.records import BoolArray

__all__ = ["COMPONENTS", "TableOptions", "TableSource", "read_comparison_rows", "read_comparisons", "read_table"]

_NO_NAMES: Any = attrs.Factory(dict)


@final
@attrs.frozen(kw_only=True)
class TableOptions(ComparisonSplitOptions):
    """Options of the sources for own files."""

    path: Path = option(help="the file to read")
    columns: dict[str, str] = option(
        _NO_NAMES, help="names of the file's columns where they differ, such as user_id=worker,chosen=winner"
    )
    duplicates: Literal["keep", "drop", "error"] = option(
        "error",
        help="a comparison a user repeats: error names the rows; drop keeps the first, for a copy tells nothing new",
    )
    contradictions: Literal["keep", "drop", "error"] = option(
        "error",
        help="a pair a user decides both ways: error names the rows; keep, where people were asked twice and are not "
        "consistent; drop removes both",
    )
    licence: str = option("", help="licence of the data, kept with the data set")
    attribution: str = option("", help="whom to name as the origin of the data, kept with the data set")


_DUPLICATES = "remove one, or set duplicates=drop (or keep)"
_CONTRADICTIONS = "remove one, or set contradictions=keep (or drop)"

READERS: dict[str, Callable[[Path], Table]] = {"jsonl": read_jsonl, "csv": read_csv, "parquet": read_parquet}
"""Reader of each file format, by the name of its source."""


def read_table(path: Path) -> Table:
    """Read a file of rows, its format told by its ending.

    Raises:
        DataError: an unknown ending, or a file that cannot be read.
    """
    name = {".ndjson": "jsonl", ".pq": "parquet"}.get(path.suffix.lower(), path.suffix.lower().lstrip("."))
    if name not in READERS:
        raise DataError(f"{path}: unknown kind of file {path.suffix!r}; known are .jsonl, .csv and .parquet")
    return READERS[name](path)


def read_comparisons(path: Path) -> ComparisonSet:
    """Read the comparisons of one file; a split column is not regarded.

    Raises:
        DataError: the file cannot be read, or one fault for each row that is wrong.
    """
    return parse_rows(read_table(path)).data


@final
class TableSource:
    """Reads one file of comparisons and splits it; a ``split`` column is taken as given."""

    def __init__(self, name: str, options: TableOptions) -> None:
        self._name = name
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the file.

        Raises:
            DataError: the file cannot be read, or one fault for each row that is wrong.
        """
        options = self._options
        rows = parse_rows(READERS[self._name](options.path), options.columns)
        keep, counts = self._sift(rows)
        notes = [*rows.notes]
        sifted = ComparisonSet(rows.data.users, rows.data.responses, rows.data.comparisons.take(keep))
        if rows.split is None:
            made = make_splits(sifted, options, seed=seed)
            splits = dict(made.splits)
            notes += [f"{count:,} comparisons were dropped: {reason}." for reason, count in made.dropped.items()]
        else:
            splits = _given_splits(sifted.comparisons, np.array(rows.split)[keep])
            notes.append("The splits are those of the file's split column.")
        users, responses, splits = compact(sifted.users, sifted.responses, splits)
        provenance = {
            "source": self._name,
            "options": options_to_dict(options),
            "seed": seed,
            "licence": options.licence,
            "attribution": options.attribution,
            "counts": {"rows": len(rows.table), **counts, "kept": sum(map(len, splits.values()))},
            "notes": notes,
            "split": "given" if rows.split is not None else options.strategy,
        }
        return PreferenceData(options.path.stem, users, responses, splits, provenance)

    def _sift(self, rows: Rows) -> tuple[BoolArray, dict[str, int]]:
        options, comparisons, faults = self._options, rows.data.comparisons, Faults(rows.table.where)
        again, both = repeats(comparisons), contradictions(comparisons)
        if options.duplicates == "error":
            first = first_rows(number_rows(comparisons.user, comparisons.chosen, comparisons.rejected))
            for place in np.flatnonzero(again).tolist():
                _add(faults, rows, place, f"says again what {rows.table.label(int(first[place]))} says; {_DUPLICATES}")
        if options.contradictions == "error":
            first = first_rows(pair_numbers(comparisons))
            for place in np.flatnonzero(both & (first != np.arange(len(both)))).tolist():
                if comparisons.chosen[place] != comparisons.chosen[first[place]]:
                    _add(faults, rows, place, f"contradicts {rows.table.label(int(first[place]))}; {_CONTRADICTIONS}")
        faults.raise_any()
        keep = ~(again & (options.duplicates == "drop")) & ~(both & (options.contradictions == "drop"))
        return keep, {"duplicates": int(again.sum()), "contradictions": int(both.sum())}


def _add(faults: Faults, rows: Rows, place: int, message: str) -> None:
    user = rows.data.users.ids[int(rows.data.comparisons.user[place])]
    faults.add(f"user {user!r} {message}", row=rows.table.rows[place], label=rows.table.label(place))


def _given_splits(comparisons: Comparisons, names: Any) -> dict[str, Comparisons]:
    return {name: comparisons.take(names == name) for name in SPLITS if np.any(names == name)}


def _jsonl(options: TableOptions) -> DatasetSource:
    return TableSource("jsonl", options)


def _csv(options: TableOptions) -> DatasetSource:
    return TableSource("csv", options)


def _parquet(options: TableOptions) -> DatasetSource:
    return TableSource("parquet", options)


COMPONENTS = [
    Component("jsonl", TableOptions, _jsonl, "own comparisons, one JSON object a line"),
    Component("csv", TableOptions, _csv, "own comparisons, comma-separated with a header"),
    Component("parquet", TableOptions, _parquet, "own comparisons in a Parquet file"),
]
