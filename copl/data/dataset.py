"""The dataset directory: what `copl data make` writes and every other command reads.

    responses.parquet    prompt, text                                       one row a response
    users.parquet        id, group                                          one row a user
    comparisons.parquet  split, user, chosen, rejected, weight, controversial, time
    judgements.parquet   split, kind, user, response, other, value, weight, time
    dataset.json         format version, name, provenance, counts, and size and sha256 of each file

``user``, ``chosen``, ``rejected``, ``response`` and ``other`` are row numbers in the other two tables, counted from 0;
``time`` is in seconds since 1970 (UTC). Judgements are ties, thumbs and ratings (`copl.records.judgements`). Version 1
of the format had neither ``time`` nor judgements; it is read as well.

A data set that replaces another is written beside it in full, into ``.next``, before its files take the places of the
old ones, the description last. Whoever reads looks there first, so that at any moment, a killed process or not, the
directory holds the old data set or the new one. Other files in it are left alone.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import pyarrow.parquet as pq
from attrs import frozen

from copl.data.checking.findings import Finding
from copl.data.dataset_tables import (
    AGAIN,
    SCHEMAS,
    VERSION,
    parsed,
    raise_faults,
    read_judgements,
    read_splits,
    schemas_of,
    tables_of,
)
from copl.data.reading.files import open_bytes
from copl.errors import DataError, quoted
from copl.records import SPLITS, Comparisons, PreferenceData, ResponseTable, UserTable
from copl.records.judgements import Judgements
from copl.system.documents import parse_document, structure, write_document
from copl.system.files import locked_directory, new_directory, sha256

FORMAT = "copl dataset"
_READ = (1, VERSION)
MANIFEST = "dataset.json"

_NEXT = ".next"


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
        if missing := [name for name in schemas_of(self.version) if name not in self.files]:
            raise ValueError(f"files: {missing[0]} is not listed")
        if unknown := [name for name in self.counts.splits if name not in SPLITS]:
            raise ValueError(f"counts.splits: unknown split {quoted(unknown[0])}")


def save_dataset(
    data: PreferenceData, directory: Path, *, overwrite: bool = False, instead_of: str | None = None
) -> None:
    """Write a data set to a directory; the data set is there as a whole or not at all.

    Of several processes that write to one directory at once each waits for the one before it.

    Args:
        data: the data set.
        directory: where to write it; its parents are made.
        overwrite: replace a data set that is there already; other files stay. Anything else is never replaced.
        instead_of: the fingerprint of the data set in that directory from which this one was made; None where it does
            not matter what is replaced.

    Raises:
        DataError: the directory is in the way, the data set breaks the rules of the format, or what it is written
            instead of has been replaced meanwhile.
    """
    tables = tables_of(data)
    _check_provenance(data.provenance, f"data set {quoted(data.name)}", "mend its source")

    def fill(fresh: Path) -> None:
        for name, table in tables.items():
            pq.write_table(table, fresh / name, compression="zstd")
        write_document(fresh / MANIFEST, _manifest(data, {name: fresh / name for name in tables}))

    check_free(directory, overwrite)
    directory = directory.resolve()  # a link keeps pointing at what is replaced
    while not (directory.is_dir() and any(directory.iterdir())):
        try:
            with new_directory(directory) as fresh:
                fill(fresh)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            check_free(directory, overwrite)  # somebody else has written there meanwhile
        else:
            return
    with locked_directory(directory):
        check_free(directory, overwrite)
        if instead_of is not None and dataset_fingerprint(directory) != instead_of:
            raise DataError(f"{directory}: another process has changed the data set since it was read; try again")
        _finish(directory)
        with new_directory(directory / _NEXT) as fresh:
            fill(fresh)
        _finish(directory)


def _finish(directory: Path) -> None:
    """Let the files of a data set that is there in full take the places of those it replaces."""
    ready = directory / _NEXT
    if not ready.is_dir():
        return
    for name in (*SCHEMAS, MANIFEST):
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
    while True:
        try:
            return _load(directory, manifest)
        except DataError:
            before, manifest = manifest, _read_manifest(directory)
            if manifest == before:  # else it was replaced meanwhile
                raise


def _load(directory: Path, manifest: _Manifest) -> PreferenceData:
    schemas = schemas_of(manifest.version)
    faults: list[str] = []
    contents = {name: _verified(directory, name, manifest.files[name], faults) for name in schemas}
    raise_faults(faults)
    tables = {name: parsed(directory / name, content, schemas[name], faults) for name, content in contents.items()}
    raise_faults(faults)
    users, responses, rows = (tables[f"{name}.parquet"] for name in ("users", "responses", "comparisons"))
    splits = read_splits(directory / "comparisons.parquet", rows, len(users), len(responses))
    for name in manifest.counts.splits:
        splits.setdefault(name, Comparisons.empty())
    judgements: Mapping[str, Judgements] = {}
    if "judgements.parquet" in tables:
        path = directory / "judgements.parquet"
        judgements = read_judgements(path, tables["judgements.parquet"], len(users), len(responses))
    columns = {"id": users, "prompt": responses, "text": responses}
    empty = [name for name, table in columns.items() if table.column(name).null_count]
    raise_faults([f"{directory}: column {name!r} has empty cells; {AGAIN}" for name in empty])
    try:
        user_table = UserTable(users.column("id").to_pylist(), users.column("group").to_pylist())
    except ValueError as error:
        raise DataError(f"{directory / 'users.parquet'}: {error}; {AGAIN}") from error
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
    for name in sorted(SCHEMAS.keys() & files.keys()):
        digest.update(f"{name} {files[name].sha256}\n".encode())
    return digest.hexdigest()


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
        content, where = _content(directory, MANIFEST), str(directory / MANIFEST)
        parse_document(content, _Kind, where=where, advice="", version={"format": FORMAT}, error=DataError)
    except DataError:
        raise DataError(
            f"{directory}: holds something else than a data set and is left as it is; choose another directory"
        ) from None
    if not overwrite:
        raise DataError(f"{directory}: holds a data set already; choose another directory or ask to overwrite it")


def _read_manifest(directory: Path) -> _Manifest:
    if not directory.is_dir():
        kind = "is a file, not the directory of a data set" if directory.exists() else "no such directory"
        raise DataError(f"{directory}: {kind}; `copl data make` writes data sets")
    where = str(directory / MANIFEST)
    if not any((place / MANIFEST).exists() for place in (directory, directory / _NEXT)):
        raise DataError(f"{directory}: not a data set: it has no {MANIFEST}; `copl data make` writes data sets")
    version = {"format": FORMAT, "version": _READ}
    content = _content(directory, MANIFEST)
    manifest = parse_document(content, _Manifest, where=where, advice=AGAIN, version=version, error=DataError)
    _check_provenance(manifest.provenance, where, AGAIN)
    return manifest


def _check_provenance(provenance: Mapping[str, object], where: str, advice: str) -> None:
    plain = json.loads(json.dumps(provenance, default=str))  # tuples are lists in a file
    structure(plain, _Provenance, where=f"{where}: provenance", advice=advice, error=DataError)


def _verified(directory: Path, name: str, expected: _File, faults: list[str]) -> bytes:
    """Return the content of a file; what is wrong with it is put to the faults."""
    path = directory / name
    try:
        content = _content(directory, name)
    except DataError as error:
        faults.append(f"{error}; {AGAIN}")
        return b""
    if len(content) < expected.bytes:
        faults.append(f"{path}: cut short at {len(content):,} of {expected.bytes:,} bytes; {AGAIN}")
    elif hashlib.sha256(content).hexdigest() != expected.sha256:
        faults.append(f"{path}: its checksum is not the one in {MANIFEST}: it was changed; {AGAIN}")
    return content
