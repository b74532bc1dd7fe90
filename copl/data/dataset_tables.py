"""The tables of a dataset directory: from records to Arrow, and back with what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from copl.errors import DataError, quoted
from copl.records import SPLITS, Comparisons, PreferenceData
from copl.records.judgements import KINDS, Judgements

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from copl.records import FloatArray

Rows = TypeVar("Rows", Comparisons, Judgements)

AGAIN = "make the data set again"
"""What to do about a data set that is damaged."""

VERSION = 2
"""Version of the format that is written."""

_TEXT = pa.large_string()
SCHEMAS: Mapping[str, pa.Schema] = {
    "responses.parquet": pa.schema([("prompt", _TEXT), ("text", _TEXT)]),
    "users.parquet": pa.schema([("id", _TEXT), ("group", _TEXT)]),
    "comparisons.parquet": pa.schema(
        [
            ("split", pa.dictionary(pa.int8(), pa.string())),
            ("user", pa.int64()),
            ("chosen", pa.int64()),
            ("rejected", pa.int64()),
            ("weight", pa.float64()),
            ("controversial", pa.int8()),
            ("time", pa.float64()),
        ]
    ),
    "judgements.parquet": pa.schema(
        [
            ("split", pa.dictionary(pa.int8(), pa.string())),
            ("kind", pa.dictionary(pa.int8(), pa.string())),
            ("user", pa.int64()),
            ("response", pa.int64()),
            ("other", pa.int64()),
            ("value", pa.float64()),
            ("weight", pa.float64()),
            ("time", pa.float64()),
        ]
    ),
}
_LATER = {"comparisons.parquet": ("time",), "judgements.parquet": None}
"""Columns, or whole files, that version 1 lacks."""


def schemas_of(version: int) -> Mapping[str, pa.Schema]:
    """Return the tables of a version of the format."""
    if version == VERSION:
        return SCHEMAS
    kept = {name: schema for name, schema in SCHEMAS.items() if _LATER.get(name, ()) is not None}
    return {
        name: pa.schema([field for field in schema if field.name not in (_LATER.get(name) or ())])
        for name, schema in kept.items()
    }


def tables_of(data: PreferenceData) -> dict[str, pa.Table]:
    unknown = sorted((data.splits.keys() | data.judgements.keys()) - set(SPLITS))
    raise_faults(
        [f"data set {quoted(data.name)}: unknown split {name!r}; there are {', '.join(SPLITS)}" for name in unknown]
    )
    split, rows = _with_split(data.splits, Comparisons.concat)
    judged_split, judged = _with_split(data.judgements, Judgements.concat)
    kind = pa.DictionaryArray.from_arrays(pa.array(judged.kind), pa.array(list(KINDS), pa.string()))
    columns: dict[str, list[object]] = {
        "responses.parquet": [data.responses.prompts, data.responses.texts],
        "users.parquet": [data.users.ids, data.users.groups],
        "comparisons.parquet": [
            split, rows.user, rows.chosen, rows.rejected, rows.weight, rows.controversial, _or_null(rows.time)
        ],
        "judgements.parquet": [
            judged_split, kind, judged.user, judged.response, judged.other, judged.value, judged.weight,
            _or_null(judged.time),
        ],
    }  # fmt: skip
    try:
        return {
            name: pa.table([pa.array(c, f.type) for c, f in zip(columns[name], schema, strict=True)], schema=schema)
            for name, schema in SCHEMAS.items()
        }
    except UnicodeEncodeError as error:
        where = f"data set {quoted(data.name)}"
        raise DataError(f"{where}: a text holds half of a surrogate pair and cannot be kept") from error


def _or_null(time: FloatArray) -> pa.Array:
    """Return times with nothing where one is unknown."""
    return pa.array(time, pa.float64(), mask=np.isnan(time))


def _with_split(parts: Mapping[str, Rows], concat: Callable[[list[Rows]], Rows]) -> tuple[pa.DictionaryArray, Rows]:
    """Return the rows of all splits together, and the split of each as an Arrow array."""
    names = [name for name in SPLITS if name in parts]
    codes = np.repeat(np.arange(len(names), dtype=np.int8), [len(parts[name]) for name in names])
    split = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(names, pa.string()))
    return split, concat([parts[name] for name in names])


def raise_faults(faults: list[str]) -> None:
    if faults:
        raise DataError(faults)


def parsed(path: Path, content: bytes, schema: pa.Schema, faults: list[str]) -> pa.Table:
    """Return a table, an empty one where it is none of this format, which is put to the faults then."""
    try:
        # of one file; pq.read_table looks for more, and loads pandas for that. By no other thread, which may hold the
        # bytes still when the program ends, and would end it with an abort
        table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        return table.select(schema.names).cast(schema)
    except (pa.ArrowException, KeyError, OSError) as error:
        faults.append(f"{path}: not a table of this format ({str(error).splitlines()[0]}); {AGAIN}")
        return schema.empty_table()


def read_splits(path: Path, rows: pa.Table, num_users: int, num_responses: int) -> dict[str, Comparisons]:
    _check_rows(path, rows, {"user": num_users, "chosen": num_responses, "rejected": num_responses})
    names = ("user", "chosen", "rejected", "weight", "controversial")
    columns = {name: _numbers(rows.column(name)) for name in names}
    return _by_split(rows, Comparisons(**columns, time=_times(rows)))


def read_judgements(path: Path, rows: pa.Table, num_users: int, num_responses: int) -> dict[str, Judgements]:
    _check_rows(path, rows, {"user": num_users, "response": num_responses})
    codes, words = _codes(rows, "kind")
    faults = [f"{path}: unknown kind of judgement {quoted(word)}; {AGAIN}" for word in words if word not in KINDS]
    other = _numbers(rows.column("other"))
    if len(other) and not (other.min() >= -1 and other.max() < num_responses):
        faults.append(f"{path}: column 'other' refers to rows that are not there; {AGAIN}")
    raise_faults(faults)
    kind = np.array([list(KINDS).index(word) for word in words], dtype=np.int8)[codes]
    columns = {name: _numbers(rows.column(name)) for name in ("user", "response", "other", "value", "weight")}
    return _by_split(rows, Judgements(kind, **columns, time=_times(rows)))


def _check_rows(path: Path, rows: pa.Table, limits: Mapping[str, int]) -> None:
    """Refuse empty cells and rows of other tables that are not there."""
    needed = [name for name in rows.column_names if name != "time"]
    raise_faults([f"{path}: column {name!r} has empty cells" for name in needed if rows.column(name).null_count])
    faults = []
    for name, limit in limits.items():
        values = _numbers(rows.column(name))
        if len(values) and not (values.min() >= 0 and values.max() < limit):
            faults.append(f"{path}: column {name!r} refers to rows that are not there (0 to {limit - 1} are)")
    _, words = _codes(rows, "split")
    faults += [f"{path}: unknown split {quoted(word)}" for word in words if word not in SPLITS]
    raise_faults(faults)


def _times(rows: pa.Table) -> FloatArray:
    if "time" not in rows.column_names:
        return np.full(len(rows), np.nan)
    unknown = pa.Array.from_buffers(pa.float64(), len(rows), [None, pa.py_buffer(np.full(len(rows), np.nan))])
    times: FloatArray = _numbers(pc.coalesce(rows.column("time"), unknown))
    return times


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column of numbers without empty cells as an array; `to_numpy` of Arrow would load pandas."""
    return np.from_dlpack(_whole(column)) if len(column) else np.empty(0, column.type.to_pandas_dtype())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column that is not empty in one piece."""
    column = column.combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column


def _codes(rows: pa.Table, name: str) -> tuple[NDArray[Any], list[str]]:
    """Return a column of words as codes, and the words."""
    if not len(rows):
        return np.empty(0, np.int8), []
    column = _whole(rows.column(name).unify_dictionaries())
    return np.from_dlpack(column.indices), column.dictionary.to_pylist()


def _by_split(rows: pa.Table, everything: Rows) -> dict[str, Rows]:
    codes, words = _codes(rows, "split")
    by_word = {word: everything.take(codes == code) for code, word in enumerate(words)}
    return {name: by_word[name] for name in SPLITS if name in by_word}
