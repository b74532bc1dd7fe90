"""The dataset directory: what `copl data make` writes and every other command reads.

    responses.parquet    prompt, text                                       one row a response
    users.parquet        id, group                                          one row a user
    comparisons.parquet  split, user, chosen, rejected, weight, controversial
    dataset.json         format version, name, provenance, counts, and size and sha256 of each file

``user``, ``chosen`` and ``rejected`` are row numbers in the other two tables, counted from 0.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from copl.errors import DataError
from copl.records import SPLITS, Comparisons, PreferenceData, ResponseTable, UserTable
from copl.system.files import sha256

FORMAT = "copl dataset"
VERSION = 1
MANIFEST = "dataset.json"

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


def save_dataset(data: PreferenceData, directory: Path, *, overwrite: bool = False) -> None:
    """Write a data set to a directory; the directory is there as a whole or not at all.

    Args:
        data: the data set.
        directory: where to write it; its parents are made.
        overwrite: replace a data set that is there already. Anything else that is there is never replaced.

    Raises:
        DataError: the directory is in the way, or the data set breaks the rules of the format.
    """
    tables = _tables(data)
    _check_free(directory, overwrite)
    directory = directory.resolve()  # a link keeps pointing at what is replaced
    directory.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    fresh = directory.with_name(f".{directory.name}.{mark}.new")
    stale = directory.with_name(f".{directory.name}.{mark}.old")
    fresh.mkdir()
    try:
        for name, table in tables.items():
            pq.write_table(table, fresh / name, compression="zstd")
        manifest = _manifest(data, {name: fresh / name for name in tables})
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if directory.exists():
            directory.rename(stale)
        fresh.rename(directory)
    except BaseException:
        if stale.exists() and not directory.exists():
            stale.rename(directory)
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(stale, ignore_errors=True)


def load_dataset(directory: Path) -> PreferenceData:
    """Read a data set from its directory.

    Raises:
        DataError: one fault for each file that is missing, cut short, altered or foreign; the directory is missing, is
            no data set, or is of another version of the format.
    """
    manifest = _read_manifest(directory)
    contents = {name: _verified(directory / name, manifest["files"][name]) for name in _SCHEMAS}
    _raise_faults([fault for fault in contents.values() if isinstance(fault, str)])
    tables = {name: _parsed(directory / name, content) for name, content in contents.items()}
    _raise_faults([fault for fault in tables.values() if isinstance(fault, str)])
    users, responses, rows = (tables[f"{name}.parquet"] for name in ("users", "responses", "comparisons"))
    splits = _read_splits(directory / "comparisons.parquet", rows, len(users), len(responses))
    for name in manifest["counts"]["splits"]:
        splits.setdefault(name, Comparisons.empty())
    return PreferenceData(
        manifest["name"],
        UserTable(users.column("id").to_pylist(), users.column("group").to_pylist()),
        ResponseTable(responses.column("prompt").to_pylist(), responses.column("text").to_pylist()),
        splits,
        manifest["provenance"],
    )


def dataset_fingerprint(directory: Path) -> str:
    """Return a text that is equal exactly when the files of two data sets are.

    Raises:
        DataError: the directory is missing, is no data set, or is of another version of the format.
    """
    files = _read_manifest(directory)["files"]
    digest = hashlib.sha256()
    for name in sorted(_SCHEMAS):
        digest.update(f"{name} {files[name]['sha256']}\n".encode())
    return digest.hexdigest()


def _tables(data: PreferenceData) -> dict[str, Any]:
    unknown = sorted(set(data.splits) - set(SPLITS))
    _raise_faults(
        [f"data set {data.name!r}: unknown split {name!r}; there are {', '.join(SPLITS)}" for name in unknown]
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
        raise DataError(f"data set {data.name!r}: a text holds half of a surrogate pair and cannot be kept") from error


def _manifest(data: PreferenceData, files: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": data.name,
        "provenance": dict(data.provenance),
        "counts": {
            "users": len(data.users),
            "responses": len(data.responses),
            "splits": {name: len(data.splits[name]) for name in SPLITS if name in data.splits},
        },
        "files": {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in files.items()},
    }


def _check_free(directory: Path, overwrite: bool) -> None:
    if not directory.exists() and not directory.is_symlink():
        return
    if not directory.is_dir():
        raise DataError(f"{directory}: is a file; choose another directory")
    if not any(directory.iterdir()):
        return
    try:
        held = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        ours = isinstance(held, dict) and held.get("format") == FORMAT
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise DataError(f"{directory}: holds something else than a data set and is left as it is; choose another")
    if not overwrite:
        raise DataError(f"{directory}: holds a data set already; choose another directory or ask to overwrite it")


def _raise_faults(faults: list[str]) -> None:
    if faults:
        raise DataError(faults)


def _read_manifest(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        kind = "is a file, not the directory of a data set" if directory.exists() else "no such directory"
        raise DataError(f"{directory}: {kind}; `copl data make` writes data sets")
    path = directory / MANIFEST
    if not path.is_file():
        raise DataError(f"{directory}: not a data set: it has no {MANIFEST}; `copl data make` writes data sets")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cut short or damaged; make the data set again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path}: not the description of a data set made by copl")
    if manifest.get("version") != VERSION:
        found = manifest.get("version")
        raise DataError(f"{path}: format version {found!r}, this copl reads {VERSION}; make the data set again")
    files = manifest.get("files")
    complete = isinstance(files, dict) and all(
        isinstance(files.get(name), dict) and {"bytes", "sha256"} <= set(files[name]) for name in _SCHEMAS
    )
    counts = manifest.get("counts")
    if not complete or not isinstance(counts, dict) or not set(counts.get("splits", {"?": 0})) <= set(SPLITS):
        raise DataError(f"{path}: damaged: files or counts are not listed in full; make the data set again")
    if not isinstance(manifest.get("name"), str) or not isinstance(manifest.get("provenance"), dict):
        raise DataError(f"{path}: damaged: name or provenance is missing; make the data set again")
    return manifest


def _verified(path: Path, expected: Mapping[str, Any]) -> bytes | str:
    """Return the content of a file, or what is wrong with it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return f"{path}: missing; make the data set again"
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
    if len(content) < expected["bytes"]:
        return f"{path}: cut short at {len(content):,} of {expected['bytes']:,} bytes; make the data set again"
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        return f"{path}: its checksum is not the one in {MANIFEST}: it was changed; make the data set again"
    return content


def _parsed(path: Path, content: bytes | str) -> Any:
    try:
        table = pq.read_table(pa.BufferReader(content))
        return table.select(_SCHEMAS[path.name].names).cast(_SCHEMAS[path.name])
    except (pa.ArrowException, KeyError, OSError) as error:
        return f"{path}: not a table of this format ({str(error).splitlines()[0]}); make the data set again"


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
    faults += [f"{path}: unknown split {word!r}" for word in words if word not in SPLITS]
    _raise_faults(faults)
    everything = Comparisons(
        rows.column("user").to_numpy(),
        rows.column("chosen").to_numpy(),
        rows.column("rejected").to_numpy(),
        rows.column("weight").to_numpy(),
        rows.column("controversial").to_numpy(),
    )
    codes = split.indices.to_numpy() if len(rows) else np.empty(0, dtype=np.int8)
    found = {word: everything.take(codes == code) for code, word in enumerate(words)}
    return {name: found[name] for name in SPLITS if name in found}
