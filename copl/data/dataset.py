"""The dataset directory: what `copl data make` writes and every other command reads.

    responses.parquet    prompt, text                                       one row a response
    users.parquet        id, group                                          one row a user
    comparisons.parquet  split, user, chosen, rejected, weight, controversial
    dataset.json         format version, name, provenance, counts, and size and sha256 of each file

``user``, ``chosen`` and ``rejected`` are row numbers in the other two tables, counted from 0.

A data set that replaces another is written beside it in full, into ``.next``, before its files take the places of the
old ones, the description last. Whoever reads looks there first, so that at any moment, a killed process or not, the
directory holds the old data set or the new one. Other files in it are left alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from attrs import frozen

from copl.data.checking.findings import Finding
from copl.data.reading.files import open_bytes
from copl.errors import DataError, quoted
from copl.records import SPLITS, Comparisons, PreferenceData, ResponseTable, UserTable
from copl.system.documents import read_document, structure, write_document
from copl.system.files import new_directory, sha256

FORMAT = "copl dataset"
VERSION = 1
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
        ]
    ),
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
        if missing := [name for name in _SCHEMAS if name not in self.files]:
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
    contents = {name: _verified(directory, name, manifest.files[name]) for name in _SCHEMAS}
    _raise_faults([fault for fault in contents.values() if isinstance(fault, str)])
    tables = {name: _parsed(directory / name, content) for name, content in contents.items()}
    _raise_faults([fault for fault in tables.values() if isinstance(fault, str)])
    users, responses, rows = (tables[f"{name}.parquet"] for name in ("users", "responses", "comparisons"))
    splits = _read_splits(directory / "comparisons.parquet", rows, len(users), len(responses))
    for name in manifest.counts.splits:
        splits.setdefault(name, Comparisons.empty())
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
    )


def dataset_fingerprint(directory: Path) -> str:
    """Return a text that is equal exactly when the files of two data sets are.

    Raises:
        DataError: the directory is missing, is no data set, or is of another version of the format.
    """
    files = _read_manifest(directory).files
    digest = hashlib.sha256()
    for name in sorted(_SCHEMAS):
        digest.update(f"{name} {files[name].sha256}\n".encode())
    return digest.hexdigest()


def _tables(data: PreferenceData) -> dict[str, Any]:
    unknown = sorted(set(data.splits) - set(SPLITS))
    _raise_faults(
        [f"data set {quoted(data.name)}: unknown split {name!r}; there are {', '.join(SPLITS)}" for name in unknown]
    )
    names = [name for name in SPLITS if name in data.splits]
    parts = [data.splits[name] for name in names]
    rows = Comparisons.concat(parts)
    codes = np.repeat(np.arange(len(names), dtype=np.int8), [len(part) for part in parts])
    split = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(names, pa.string()))
    columns: dict[str, list[Any]] = {
        "responses.parquet": [data.responses.prompts, data.responses.texts],
        "users.parquet": [data.users.ids, data.users.groups],
        "comparisons.parquet": [split, rows.user, rows.chosen, rows.rejected, rows.weight, rows.controversial],
    }
    try:
        return {
            name: pa.table([pa.array(c, f.type) for c, f in zip(columns[name], schema, strict=True)], schema=schema)
            for name, schema in _SCHEMAS.items()
        }
    except UnicodeEncodeError as error:
        where = f"data set {quoted(data.name)}"
        raise DataError(f"{where}: a text holds half of a surrogate pair and cannot be kept") from error


def _manifest(data: PreferenceData, files: Mapping[str, Path]) -> _Manifest:
    splits = {name: len(data.splits[name]) for name in SPLITS if name in data.splits}
    entries = {name: _File(path.stat().st_size, sha256(path)) for name, path in files.items()}
    counts = _Counts(len(data.users), len(data.responses), splits)
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
    version = {"format": FORMAT, "version": VERSION}
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


def _parsed(path: Path, content: bytes | str) -> Any:
    try:
        table = pq.read_table(pa.BufferReader(content))
        return table.select(_SCHEMAS[path.name].names).cast(_SCHEMAS[path.name])
    except (pa.ArrowException, KeyError, OSError) as error:
        return f"{path}: not a table of this format ({str(error).splitlines()[0]}); {_AGAIN}"


def _read_splits(path: Path, rows: Any, num_users: int, num_responses: int) -> dict[str, Comparisons]:
    limits = {"user": num_users, "chosen": num_responses, "rejected": num_responses}
    _raise_faults(
        [f"{path}: column {name!r} has empty cells" for name in rows.column_names if rows.column(name).null_count]
    )
    faults = []
    for name, limit in limits.items():
        values = rows.column(name).to_numpy()
        if len(values) and not (values.min() >= 0 and values.max() < limit):
            faults.append(f"{path}: column {name!r} refers to rows that are not there (0 to {limit - 1} are)")
    split = rows.column("split").unify_dictionaries().combine_chunks()
    split = split.chunk(0) if isinstance(split, pa.ChunkedArray) and split.num_chunks else split
    words = split.dictionary.to_pylist() if len(rows) else []
    faults += [f"{path}: unknown split {quoted(word)}" for word in words if word not in SPLITS]
    _raise_faults(faults)
    everything = Comparisons(
        rows.column("user").to_numpy(),
        rows.column("chosen").to_numpy(),
        rows.column("rejected").to_numpy(),
        rows.column("weight").to_numpy(),
        rows.column("controversial").to_numpy(),
    )
    codes = split.indices.to_numpy() if len(rows) else np.empty(0, dtype=np.int8)
    by_word = {word: everything.take(codes == code) for code, word in enumerate(words)}
    return {name: by_word[name] for name in SPLITS if name in by_word}
