"""Rows of published data sets: from the Hugging Face Hub where there is one, else from a copy on this machine.

A copy is a file (JSON lines, also gzipped; JSON; CSV; Parquet; Arrow), a directory of such files, such as a clone of
the data set's repository, or a directory written by ``datasets.save_to_disk``, which is read without that package. Rows
come one at a time and hold only the columns asked for, so that a large data set passes through in little memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, final

import attrs

from copl.data.reading.columns import python_values
from copl.data.reading.faults import Faults
from copl.data.reading.files import is_packed, open_bytes, require_file, unknown_kind, unpacked_name
from copl.data.reading.parts import csv_parts, json_parts
from copl.errors import DataError, quoted, suggest
from copl.options import option

Row: TypeAlias = dict[str, Any]
Names: TypeAlias = dict[str, None]

Read: TypeAlias = Callable[[tuple[str, ...], Names], Iterator[tuple[str, Row]]]
"""Yields rows with their labels, of the columns wanted at least, and adds the names of all columns there are."""

_BATCH = 1000
PARQUET = (".parquet", ".pq")
"""Endings of Parquet files."""

_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", *PARQUET, ".arrow")
_NOT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_SPLIT_WORDS = {"valid": "validation", "val": "validation", "dev": "validation"}
_SPLIT = re.compile(r"(?:^|[^a-z])(train|test|validation|valid|val|dev)(?=[^a-z]|$)")


@attrs.frozen(kw_only=True, slots=False)  # one base of several
class PublishedOptions:
    """Where a published data set is taken from; the base of the options of its source."""

    path: Path | None = option(
        None,
        help="a copy on this machine: a JSON-lines, JSON, CSV or Parquet file, a directory of them, or what "
        "datasets.save_to_disk wrote; from the Hugging Face Hub where none is named",
    )
    revision: str | None = option(None, help="revision to take from the Hub: a commit for data that never changes")


@final
@attrs.frozen
class Published:
    """A data set as it is published.

    Attributes:
        repository: its name on the Hub.
        config: the part of it that is meant, as the Hub calls it.
        directory: the directory of it that is meant.
        advice: what to do where a column is missing.
    """

    repository: str
    config: str | None = None
    directory: str | None = None
    advice: str = attrs.field(kw_only=True)

    @advice.default
    def _ask(self) -> str:
        return f"is this a copy of {self.repository}?"


@final
class PublishedRows:
    """The rows of one split; iterating a second time reads them again.

    Attributes:
        where: name of the data set or file, for messages.
        place: name of the row last given, for messages, such as ``a.jsonl: line 7``.
        names: names of all columns met so far, those not asked for among them.
    """

    def __init__(
        self,
        parts: Sequence[_Part],
        columns: Sequence[str],
        optional: Sequence[str],
        ids: Sequence[str],
        published: Published,
    ) -> None:
        self._parts, self._columns, self._ids, self._advice = parts, tuple(columns), tuple(ids), published.advice
        self._wanted = (*columns, *optional)
        self.where = parts[0].where if len(parts) == 1 else published.repository
        self.place = self.where
        self.names: dict[str, None] = {}

    def __iter__(self) -> Iterator[Row]:
        kinds: dict[str, tuple[str, str]] = {}
        for part in self._parts:
            fresh = True
            for label, row in part.read(self._wanted, self.names):
                self.place = f"{part.where}: {label}"
                if fresh:
                    self._check_columns(part.where, row)
                    fresh = False
                for name in self._ids:
                    self._check_kind(name, row.get(name), kinds)
                yield row

    def _check_columns(self, where: str, row: Row) -> None:
        lacking = [name for name in self._columns if name not in row]
        if lacking:
            raise DataError(
                [
                    f"{where}: no column {quoted(name)}{suggest(name, row)}; it has {', '.join(row)}; {self._advice}"
                    for name in lacking
                ]
            )

    def _check_kind(self, name: str, value: Any, kinds: dict[str, tuple[str, str]]) -> None:
        if value is None:
            return
        kind = "text" if isinstance(value, str) else "a number"
        first, place = kinds.setdefault(name, (kind, self.place))
        if first != kind:
            raise DataError(
                f"{self.place}: column {quoted(name)} holds {kind}, but {first} in {place}; write ids in one way "
                "throughout, or one user may be taken for two"
            )


@final
@attrs.frozen(eq=False)
class _Part:
    """One file, or one split of the Hub."""

    where: str
    read: Read


def read_published(
    published: Published,
    options: PublishedOptions,
    *,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    split: str = "train",
    ids: Sequence[str] = (),
) -> PublishedRows | None:
    """Return the rows of one split, or None where the data set, or its copy, has no such split.

    Args:
        published: what is wanted.
        options: where to take it from.
        columns: columns that must be there; with none named, rows hold all there are.
        optional: columns that may be there.
        split: which split; a copy that names none is ``train``.
        ids: columns that hold ids, which must be text throughout or numbers throughout.

    Raises:
        DataError: nothing can be read there; or, when iterated, a file is damaged or lacks a column.
    """
    if options.path is None:
        part = _hub_part(published, options.revision, split)
        return PublishedRows([part], columns, optional, ids, published) if part else None
    files = _by_split(options.path, published).get(split)
    if not files:
        return None
    parts = [_Part(str(path), _reader(path)) for path in files]
    return PublishedRows(parts, columns, optional, ids, published)


def require_published(
    published: Published,
    options: PublishedOptions,
    *,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    ids: Sequence[str] = (),
) -> PublishedRows:
    """Return the rows of split ``train``; see `read_published` for the arguments.

    Raises:
        DataError: there is no such split, or see `read_published`.
    """
    rows = read_published(published, options, columns=columns, optional=optional, ids=ids)
    if rows is None:
        raise DataError(f"{options.path or published.repository}: has no split 'train'; name the data set as a whole")
    return rows


def _hub_part(published: Published, revision: str | None, split: str) -> _Part | None:
    name = published.repository
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError(
            f"{name}: reading from the Hugging Face Hub needs the package datasets: pip install 'copl[hub]'; "
            "or name a copy on this machine with path=..."
        ) from None
    try:
        data = load_dataset(name, published.config, data_dir=published.directory, revision=revision)
    except Exception as error:
        # Whatever goes wrong on the way to the Hub has its own class: sockets, HTTP, access, cache, missing split.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{name}: cannot be loaded from the Hugging Face Hub ({type(error).__name__}: {reason}); check the name, "
            "the connection and your access to it, or name a copy on this machine with path=..."
        ) from error

    if split not in data:
        return None
    part = data[split]

    def rows(columns: tuple[str, ...], names: Names) -> Iterator[tuple[str, Row]]:
        names.update(dict.fromkeys(part.column_names))
        for number, row in enumerate(part.select_columns(_present(columns, part.column_names)), start=1):
            yield f"row {number}", row

    return _Part(f"{name} ({split})", rows)


def _by_split(path: Path, published: Published) -> Mapping[str, list[Path]]:
    """Return the files of a local copy by split."""
    if path.is_file():
        return {"train": [path]}
    if not path.is_dir():
        require_file(path)
    for part in (published.directory, published.config):
        if part and (path / part).is_dir():
            path = path / part
    if (path / "dataset_dict.json").is_file():
        names = _json(path / "dataset_dict.json").get("splits", [])
        return {name: _saved_files(path / name) for name in names}
    if (path / "state.json").is_file():
        return {"train": _saved_files(path)}
    files = sorted(file for file in path.rglob("*") if _is_data(file.relative_to(path)))
    if published.config and any(published.config in file.stem for file in files):
        files = [file for file in files if published.config in file.stem]
    if not files:
        raise DataError(f"{path}: holds no file of {', '.join(_ENDINGS)}; name a copy of {published.repository}")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        words = _SPLIT.findall(str(file.relative_to(path)).lower())
        split = words[-1] if words else "train"
        by_split.setdefault(_SPLIT_WORDS.get(split, split), []).append(file)
    return by_split


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.name not in _NOT_DATA and unpacked_name(path).suffix in _ENDINGS


def _json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cut short or damaged; save the data set again") from error
    return value if isinstance(value, dict) else {}


def _saved_files(directory: Path) -> list[Path]:
    listed = [str(entry.get("filename")) for entry in _json(directory / "state.json").get("_data_files") or []]
    lacking = [name for name in listed if not (directory / name).is_file()]
    if lacking or not listed:
        raise DataError(f"{directory}: {', '.join(lacking) or 'its files'} are missing; save the data set again")
    return [directory / name for name in listed]


def _reader(path: Path) -> Read:
    ending = unpacked_name(path).suffix.lower()
    readers = {".csv": _csv_rows, **dict.fromkeys(PARQUET, parquet_rows), ".arrow": _arrow_rows}
    if ending not in _ENDINGS:
        raise unknown_kind(path, ", ".join(_ENDINGS))
    read = readers.get(ending, _json_rows)
    return lambda columns, names: read(path, columns, names)


def _json_rows(path: Path, columns: tuple[str, ...], names: Names) -> Iterator[tuple[str, Row]]:
    with open_bytes(path) as file:
        opening = file.read(256).lstrip()[:1] if not is_packed(path) else b""
    if opening == b"[":
        try:
            values = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON, or cut short") from error
        if not all(isinstance(value, dict) for value in values):
            raise DataError(f"{path}: a list of objects is expected")
        for number, row in enumerate(values, start=1):
            names.update(dict.fromkeys(row))
            yield f"object {number}", row
        return
    faults = Faults(str(path))
    for part in json_parts(path, faults):
        faults.raise_any()
        for number, row in zip(part.lines.tolist(), part.objects, strict=True):
            names.update(dict.fromkeys(row))
            yield f"line {number}", row
    faults.raise_any()


def _csv_rows(path: Path, columns: tuple[str, ...], names: Names) -> Iterator[tuple[str, Row]]:
    faults = Faults(str(path))
    for header, records, lines in csv_parts(path, faults):
        faults.raise_any()
        names.update(dict.fromkeys(header))
        for number, record in zip(lines.tolist(), records, strict=True):
            yield f"line {number}", dict(zip(header, record, strict=True))
    faults.raise_any()


def parquet_rows(path: Path, columns: tuple[str, ...] = (), names: Names | None = None) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a Parquet file with their labels.

    Args:
        path: the file.
        columns: columns wanted; all where none is named.
        names: is given the names of all columns there are.

    Raises:
        DataError: no such file, or not a whole Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = {} if names is None else names
    try:
        with open_bytes(path) as handle:
            file = pq.ParquetFile(handle)
            names.update(dict.fromkeys(file.schema_arrow.names))
            wanted = _present(columns, file.schema_arrow.names)
            yield from _numbered(file.iter_batches(batch_size=_BATCH, columns=wanted, use_threads=False))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a whole Parquet file ({str(error).splitlines()[0]})") from error


def _arrow_rows(path: Path, columns: tuple[str, ...], names: Names) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa

    try:
        require_file(path)
        with pa.memory_map(str(path)) as source:
            stream = pa.ipc.open_stream(source)
            names.update(dict.fromkeys(stream.schema.names))
            wanted = _present(columns, stream.schema.names)
            yield from _numbered(batch.select(wanted) for batch in stream)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a whole Arrow file ({str(error).splitlines()[0]})") from error


def _present(columns: tuple[str, ...], names: Sequence[str]) -> list[str]:
    """Return which columns to read: all where none are wanted, or none of those wanted is there (for the message)."""
    return [name for name in names if name in columns] or list(names)


def _numbered(batches: Iterable[Any]) -> Iterator[tuple[str, Row]]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            part = batch.slice(start, _BATCH)
            for row in zip(*map(python_values, part.columns), strict=True):
                number += 1
                yield f"row {number}", dict(zip(part.schema.names, row, strict=True))
