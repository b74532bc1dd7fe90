"""The dataset directory: what `copl data make` writes and every other command reads.

    responses.parquet    prompt, text                                       one row a response
    users.parquet        id, group                                          one row a user
    comparisons.parquet  split, user, chosen, rejected, weight, controversial, time
    judgements.parquet   split, kind, user, response, other, value, weight, time
    dataset.json         format version, name, provenance, counts, and size and sha256 of each file

``user``, ``chosen``, ``rejected``, ``response`` and ``other`` are row numbers in the other two tables, counted from 0;
``time`` is in seconds since 1970 (UTC). Judgements are ties, thumbs and ratings (`copl.judgements`). Version 1 of the
format had neither ``time`` nor judgements; it is read as well.

A data set that replaces another is written beside it in full, into ``.next``, before its files take the places of the
old ones, the description last. Whoever reads looks there first, so that at any moment, a killed process or not, the
directory holds the old data set or the new one. Other files in it are left alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from attrs import frozen

from copl.data.checking.findings import Finding
from copl.data.reading.files import open_bytes
from copl.errors import DataError, quoted
from copl.judgements import KINDS, Judgements
from copl.records import SPLITS, Comparisons, PreferenceData, ResponseTable, UserTable
from copl.system.documents import read_document, structure, write_document
from copl.system.files import new_directory, sha256

if TYPE_CHECKING:
    from copl.records import FloatArray

FORMAT = "copl dataset"
VERSION = 2
_READ = (1, VERSION)
MANIFEST = "dataset.json"

_NEXT = ".next"
_AGAIN = "make the data set again"

_TEXT = pa.large_string()
_SCHEMAS: Mapping[str, Any] = {
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


def _schemas(version: int) -> Mapping[str, Any]:
    """Return the tables of a version of the format."""
    if version == VERSION:
        return _SCHEMAS
    kept = {name: schema for name, schema in _SCHEMAS.items() if _LATER.get(name, ()) is not None}
    return {
        name: pa.schema([field for field in schema if field.name not in (_LATER.get(name) or ())])
        for name, schema in kept.items()
    }


@final
@frozen
class _File:
    bytes: int
    sha256: str


@final
@frozen
class _Counts:
    users: int
    responses: int
    splits: Mapping[str, int]
    judgements: Mapping[str, int] = {}


@final
@frozen
class _Positions:
    judgements: int
    first: int


@final
@frozen
class _Provenance:
    """The entries of a provenance that are read again; there may be others."""

    source: str = ""
    licence: str = ""
    attribution: str = ""
    construction: str = ""
    split: str = ""
    counts: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    positions: _Positions | None = None
    moments: tuple[float, float] | None = None


@final
@frozen
class _Kind:
    format: str


@final
@frozen
class _Manifest:
    format: str
    version: int
    name: str
    provenance: Mapping[str, Any]
    counts: _Counts
    files: Mapping[str, _File]

    def __attrs_post_init__(self) -> None:
        if missing := [name for name in _schemas(self.version) if name not in self.files]:
            raise ValueError(f"files: {missing[0]} is not listed")
        if unknown := [name for name in self.counts.splits if name not in SPLITS]:
            raise ValueError(f"counts.splits: unknown split {quoted(unknown[0])}")


def save_dataset(data: PreferenceData, directory: Path, *, overwrite: bool = False) -> None:
    """Write a data set to a directory; the data set is there as a whole or not at all.

    Args:
        data: the data set.
        directory: where to write it; its parents are made.
        overwrite: replace a data set that is there already; other files stay. Anything else is never replaced.

    Raises:
        DataError: the directory is in the way, or the data set breaks the rules of the format.
    """
    tables = _tables(data)
    _check_provenance(data.provenance, f"data set {quoted(data.name)}", "mend its source")
    check_free(directory, overwrite)
    directory = directory.resolve()  # a link keeps pointing at what is replaced
    is_held = directory.is_dir() and any(directory.iterdir())
    if is_held:
        _finish(directory)
    with new_directory(directory / _NEXT if is_held else directory) as fresh:
        for name, table in tables.items():
            pq.write_table(table, fresh / name, compression="zstd")
        write_document(fresh / MANIFEST, _manifest(data, {name: fresh / name for name in tables}))
    _finish(directory)


def _finish(directory: Path) -> None:
    """Let the files of a data set that is there in full take the places of those it replaces."""
    ready = directory / _NEXT
    if not ready.is_dir():
        return
    for name in (*_SCHEMAS, MANIFEST):
        if (ready / name).exists():
            (ready / name).replace(directory / name)
    ready.rmdir()


def _content(directory: Path, name: str) -> bytes:
    """Return the content of a file of a data set."""
    ready = directory / _NEXT / name
    if ready.exists():
        try:
            return ready.read_bytes()
        except FileNotFoundError:  # has taken its place in between
            pass
    with open_bytes(directory / name) as file:
        return file.read()


def load_dataset(directory: Path) -> PreferenceData:
    """Read a data set from its directory.

    Raises:
        DataError: one fault for each file that is missing, cut short, altered or foreign; the directory is missing, is
            no data set, or is of another version of the format.
    """
    manifest = _read_manifest(directory)
    schemas = _schemas(manifest.version)
    contents = {name: _verified(directory, name, manifest.files[name]) for name in schemas}
    _raise_faults([fault for fault in contents.values() if isinstance(fault, str)])
    tables = {name: _parsed(directory / name, content, schemas[name]) for name, content in contents.items()}
    _raise_faults([fault for fault in tables.values() if isinstance(fault, str)])
    users, responses, rows = (tables[f"{name}.parquet"] for name in ("users", "responses", "comparisons"))
    splits = _read_splits(directory / "comparisons.parquet", rows, len(users), len(responses))
    for name in manifest.counts.splits:
        splits.setdefault(name, Comparisons.empty())
    judgements: Mapping[str, Judgements] = {}
    if "judgements.parquet" in tables:
        path = directory / "judgements.parquet"
        judgements = _read_judgements(path, tables["judgements.parquet"], len(users), len(responses))
    columns = {"id": users, "prompt": responses, "text": responses}
    empty = [name for name, table in columns.items() if table.column(name).null_count]
    _raise_faults([f"{directory}: column {name!r} has empty cells; {_AGAIN}" for name in empty])
    try:
        user_table = UserTable(users.column("id").to_pylist(), users.column("group").to_pylist())
    except ValueError as error:
        raise DataError(f"{directory / 'users.parquet'}: {error}; {_AGAIN}") from error
    return PreferenceData(
        manifest.name,
        user_table,
        ResponseTable(responses.column("prompt").to_pylist(), responses.column("text").to_pylist()),
        splits,
        manifest.provenance,
        judgements,
    )


def dataset_fingerprint(directory: Path) -> str:
    """Return a text that is equal exactly when the files of two data sets are.

    Raises:
        DataError: the directory is missing, is no data set, or is of another version of the format.
    """
    files = _read_manifest(directory).files
    digest = hashlib.sha256()
    for name in sorted(_SCHEMAS.keys() & files.keys()):
        digest.update(f"{name} {files[name].sha256}\n".encode())
    return digest.hexdigest()


def _tables(data: PreferenceData) -> dict[str, Any]:
    unknown = sorted((data.splits.keys() | data.judgements.keys()) - set(SPLITS))
    _raise_faults(
        [f"data set {quoted(data.name)}: unknown split {name!r}; there are {', '.join(SPLITS)}" for name in unknown]
    )
    split, rows = _with_split(data.splits, Comparisons.concat)
    judged_split, judged = _with_split(data.judgements, Judgements.concat)
    kind = pa.DictionaryArray.from_arrays(pa.array(judged.kind), pa.array(list(KINDS), pa.string()))
    columns: dict[str, list[Any]] = {
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
            for name, schema in _SCHEMAS.items()
        }
    except UnicodeEncodeError as error:
        where = f"data set {quoted(data.name)}"
        raise DataError(f"{where}: a text holds half of a surrogate pair and cannot be kept") from error


def _or_null(time: FloatArray) -> Any:
    """Return times with nothing where one is unknown."""
    return pa.array(time, pa.float64(), mask=np.isnan(time))


def _with_split(parts: Mapping[str, Any], concat: Callable[[list[Any]], Any]) -> tuple[Any, Any]:
    """Return the rows of all splits together, and the split of each as an Arrow array."""
    names = [name for name in SPLITS if name in parts]
    codes = np.repeat(np.arange(len(names), dtype=np.int8), [len(parts[name]) for name in names])
    split = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(names, pa.string()))
    return split, concat([parts[name] for name in names])


def _manifest(data: PreferenceData, files: Mapping[str, Path]) -> _Manifest:
    splits = {name: len(data.splits[name]) for name in SPLITS if name in data.splits}
    entries = {name: _File(path.stat().st_size, sha256(path)) for name, path in files.items()}
    judged = Judgements.concat(list(data.judgements.values())).counts()
    counts = _Counts(len(data.users), len(data.responses), splits, judged)
    return _Manifest(FORMAT, VERSION, data.name, dict(data.provenance), counts, entries)


def check_free(directory: Path, overwrite: bool) -> None:
    """Refuse a directory that a data set may not be written to.

    Raises:
        DataError: it is a file, holds something else, or holds a data set that is not to be replaced.
    """
    if not directory.exists() and not directory.is_symlink():
        return
    if not directory.is_dir():
        raise DataError(f"{directory}: is a file; choose another directory")
    if not any(directory.iterdir()):
        return
    try:
        read_document(_manifest_path(directory), _Kind, advice="", version={"format": FORMAT}, error=DataError)
    except DataError:
        raise DataError(
            f"{directory}: holds something else than a data set and is left as it is; choose another directory"
        ) from None
    if not overwrite:
        raise DataError(f"{directory}: holds a data set already; choose another directory or ask to overwrite it")


def _raise_faults(faults: list[str]) -> None:
    if faults:
        raise DataError(faults)


def _read_manifest(directory: Path) -> _Manifest:
    if not directory.is_dir():
        kind = "is a file, not the directory of a data set" if directory.exists() else "no such directory"
        raise DataError(f"{directory}: {kind}; `copl data make` writes data sets")
    path = _manifest_path(directory)
    if not path.exists():
        raise DataError(f"{directory}: not a data set: it has no {MANIFEST}; `copl data make` writes data sets")
    version = {"format": FORMAT, "version": _READ}
    manifest = read_document(path, _Manifest, advice=_AGAIN, version=version, error=DataError)
    _check_provenance(manifest.provenance, str(path), _AGAIN)
    return manifest


def _check_provenance(provenance: Mapping[str, Any], where: str, advice: str) -> None:
    plain = json.loads(json.dumps(provenance, default=str))  # tuples are lists in a file
    structure(plain, _Provenance, where=f"{where}: provenance", advice=advice, error=DataError)


def _manifest_path(directory: Path) -> Path:
    ready = directory / _NEXT / MANIFEST
    return ready if ready.exists() else directory / MANIFEST


def _verified(directory: Path, name: str, expected: _File) -> bytes | str:
    """Return the content of a file, or what is wrong with it."""
    path = directory / name
    try:
        content = _content(directory, name)
    except DataError as error:
        return f"{error}; {_AGAIN}"
    if len(content) < expected.bytes:
        return f"{path}: cut short at {len(content):,} of {expected.bytes:,} bytes; {_AGAIN}"
    if hashlib.sha256(content).hexdigest() != expected.sha256:
        return f"{path}: its checksum is not the one in {MANIFEST}: it was changed; {_AGAIN}"
    return content


def _parsed(path: Path, content: bytes | str, schema: Any) -> Any:
    try:
        table = pq.read_table(pa.BufferReader(content))
        return table.select(schema.names).cast(schema)
    except (pa.ArrowException, KeyError, OSError) as error:
        return f"{path}: not a table of this format ({str(error).splitlines()[0]}); {_AGAIN}"


def _read_splits(path: Path, rows: Any, num_users: int, num_responses: int) -> dict[str, Comparisons]:
    _check_rows(path, rows, {"user": num_users, "chosen": num_responses, "rejected": num_responses})
    names = ("user", "chosen", "rejected", "weight", "controversial")
    columns = {name: rows.column(name).to_numpy() for name in names}
    return _by_split(rows, Comparisons(**columns, time=_times(rows)))


def _read_judgements(path: Path, rows: Any, num_users: int, num_responses: int) -> dict[str, Judgements]:
    _check_rows(path, rows, {"user": num_users, "response": num_responses})
    codes, words = _codes(rows, "kind")
    faults = [f"{path}: unknown kind of judgement {quoted(word)}; {_AGAIN}" for word in words if word not in KINDS]
    other = rows.column("other").to_numpy()
    if len(other) and not (other.min() >= -1 and other.max() < num_responses):
        faults.append(f"{path}: column 'other' refers to rows that are not there; {_AGAIN}")
    _raise_faults(faults)
    kind = np.array([list(KINDS).index(word) for word in words], dtype=np.int8)[codes]
    columns = {name: rows.column(name).to_numpy() for name in ("user", "response", "other", "value", "weight")}
    return _by_split(rows, Judgements(kind, **columns, time=_times(rows)))


def _check_rows(path: Path, rows: Any, limits: Mapping[str, int]) -> None:
    """Refuse empty cells and rows of other tables that are not there."""
    needed = [name for name in rows.column_names if name != "time"]
    _raise_faults([f"{path}: column {name!r} has empty cells" for name in needed if rows.column(name).null_count])
    faults = []
    for name, limit in limits.items():
        values = rows.column(name).to_numpy()
        if len(values) and not (values.min() >= 0 and values.max() < limit):
            faults.append(f"{path}: column {name!r} refers to rows that are not there (0 to {limit - 1} are)")
    _, words = _codes(rows, "split")
    faults += [f"{path}: unknown split {quoted(word)}" for word in words if word not in SPLITS]
    _raise_faults(faults)


def _times(rows: Any) -> FloatArray:
    if "time" not in rows.column_names:
        return np.full(len(rows), np.nan)
    times: FloatArray = pc.fill_null(rows.column("time"), float("nan")).to_numpy()
    return times


def _codes(rows: Any, name: str) -> tuple[Any, list[str]]:
    """Return a column of words as codes, and the words."""
    column = rows.column(name).unify_dictionaries().combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column
    return (column.indices.to_numpy(), column.dictionary.to_pylist()) if len(rows) else (np.empty(0, np.int8), [])


def _by_split(rows: Any, everything: Any) -> dict[str, Any]:
    codes, words = _codes(rows, "split")
    by_word = {word: everything.take(codes == code) for code, word in enumerate(words)}
    return {name: by_word[name] for name in SPLITS if name in by_word}
