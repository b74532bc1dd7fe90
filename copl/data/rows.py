"""From a table of rows to comparisons: the row schema, checked row by row.

A row has ``user_id``, ``prompt`` (text or chat messages), ``chosen`` and ``rejected`` (text, or a list of one assistant
message), and may have ``split``, ``group``, ``controversial``, ``weight`` and ``timestamp`` (which nothing uses yet).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from copl.data.chat import encode_messages, message_fault
from copl.data.files import Faults, Table, table_of_objects
from copl.data.pairs import intern_responses, intern_users
from copl.errors import suggest
from copl.records import SPLITS, Comparisons, ComparisonSet, UserTable

if TYPE_CHECKING:
    from copl.records import FloatArray, IntArray

REQUIRED = ("user_id", "prompt", "chosen", "rejected")
OPTIONAL = ("split", "group", "controversial", "weight", "timestamp")


@final
@attrs.frozen(eq=False)
class Rows:
    """Checked rows.

    Attributes:
        data: the comparisons, in the order of the rows.
        split: the split each row names [N], or None where the table has no such column.
        table: the table they were read from, for messages.
        notes: what a person should know: columns that were not used.
    """

    data: ComparisonSet
    split: tuple[str, ...] | None
    table: Table
    notes: tuple[str, ...]


def read_comparison_rows(rows: Sequence[Mapping[str, Any]]) -> ComparisonSet:
    """Return rows given as objects as comparisons; a split they name is not regarded.

    Raises:
        DataError: one fault for each row that is wrong.
    """
    objects = [dict(row) for row in rows]
    return parse_rows(table_of_objects("rows", objects, list(range(1, len(objects) + 1)), "row")).data


def parse_rows(table: Table, columns: Mapping[str, str] | None = None) -> Rows:
    """Check a table against the row schema and number its users and responses.

    Args:
        table: the table.
        columns: names of columns in the table, by the schema's name, where they differ.

    Raises:
        DataError: one fault for each missing column and each wrong value, with row and column.
    """
    reader = RowReader(table, columns)
    user = reader.text("user_id")
    prompt = reader.text("prompt")
    chosen = reader.text("chosen")
    rejected = reader.text("rejected")
    same = pc.fill_null(pc.equal(chosen, rejected), False)
    reader.report("chosen", same, "chosen and rejected are the same text; a comparison needs two different responses")
    split = reader.optional("split", _split)
    group = reader.optional("group", _group)
    controversial = reader.optional("controversial", _controversial)
    weight = reader.optional("weight", _weight)
    reader.faults.raise_any()

    ids, user_row = intern_users(user)
    responses, chosen_row, rejected_row = intern_responses(prompt, chosen, rejected)
    groups = reader.groups(ids, user_row, group)
    if split is not None:
        reader.check_split_users(ids, user_row, split)
    reader.faults.raise_any()
    comparisons = Comparisons(
        user_row,
        chosen_row,
        rejected_row,
        _weights(weight, len(table)),
        np.array(
            [-1 if v is None else v for v in controversial] if controversial else [-1] * len(table), dtype=np.int8
        ),
    )
    data = ComparisonSet(UserTable(ids, groups), responses, comparisons)
    return Rows(data, None if split is None else tuple(split), table, reader.notes())


def _weights(values: list[Any] | None, count: int) -> FloatArray:
    if values is None:
        return np.ones(count, dtype=np.float64)
    return np.array([1.0 if value is None else value for value in values], dtype=np.float64)


class _ValueError(Exception):
    """What is wrong with one value."""


def _kind(value: Any) -> str:
    names: dict[type, str] = {
        list: "a list",
        dict: "an object",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        bytes: "bytes",
    }
    return names.get(type(value), type(value).__name__)


def _user_id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _ValueError(f"expected text, got {_kind(value)}")
    return str(value)


def _prompt(value: Any) -> str:
    if isinstance(value, str):
        return value
    fault = message_fault(value) if isinstance(value, list) else f"expected text or chat messages, got {_kind(value)}"
    if fault:
        raise _ValueError(fault)
    return encode_messages(value)


def _response(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _ValueError(f"expected text, got {_kind(value)}")
    if not value or not all(isinstance(message, Mapping) for message in value):
        raise _ValueError("a list where text belongs; a response is text or a list of one assistant message")
    if len(value) != 1:
        raise _ValueError(
            f"a list of {len(value)} messages; a response is one assistant message, the others belong to the prompt"
        )
    fault = message_fault(value)
    if fault:
        raise _ValueError(fault)
    if value[0]["role"] != "assistant":
        raise _ValueError(f"a message of role {value[0]['role']!r}; a response is by the 'assistant'")
    return str(value[0]["content"])


def _split(value: Any) -> str:
    if value is None:
        raise _ValueError("empty; where the table has a split column every row needs one")
    if value not in SPLITS:
        raise _ValueError(f"unknown split {value!r}{suggest(str(value), SPLITS)}; there are {', '.join(SPLITS)}")
    return str(value)


def _group(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _ValueError(f"expected text, got {_kind(value)}")
    return str(value)


_TRUTH = {"1": 1, "true": 1, "yes": 1, "0": 0, "false": 0, "no": 0, "-1": None}


def _controversial(value: Any) -> int | None:
    if value is None:
        return None
    # Not `value in (0, 1)`: 1.0 comes from tables where some rows have no value.
    spelt = str(int(value)) if isinstance(value, bool | int | float) and value == int(value) else str(value).lower()
    if spelt not in _TRUTH:
        raise _ValueError(f"expected 1, 0 or nothing, got {value!r}")
    return _TRUTH[spelt]


def _weight(value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        weight = float(value)
    except (TypeError, ValueError):
        raise _ValueError(f"expected a number, got {value!r}") from None
    if not math.isfinite(weight) or weight <= 0:
        raise _ValueError(f"a weight must be positive and finite, got {value!r}")
    return weight


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "user_id": _user_id,
    "prompt": _prompt,
    "chosen": _response,
    "rejected": _response,
    "response": _response,
}


@final
class RowReader:
    """Takes columns out of a table, collecting faults.

    Args:
        table: the table.
        columns: names of columns in the table, by the schema's name, where they differ.
        required: columns that must be there; the `OPTIONAL` ones may.
    """

    def __init__(
        self, table: Table, columns: Mapping[str, str] | None = None, required: Sequence[str] = REQUIRED
    ) -> None:
        columns = columns or {}
        self._table = table
        self._names = {name: columns.get(name, name) for name in (*required, *OPTIONAL)}
        self.faults = Faults(table.where)
        known = ", ".join(table.columns)
        for name in columns:
            if name not in self._names:
                self.faults.add(f"option columns: {name!r} is no column of the schema{suggest(name, self._names)}")
            elif columns[name] not in table.columns:
                self.faults.add(f"no column {columns[name]!r}{suggest(columns[name], table.columns)}; it has {known}")
        for name in required:
            if name not in columns and name not in table.columns:
                self.faults.add(f"no column {name!r}{suggest(name, table.columns)}; it has {known}")
        if not table.columns or not len(table):
            self.faults = Faults(table.where)
            self.faults.add("there are no rows")
        self.faults.raise_any()

    def report(self, name: str, mask: Any, message: str) -> None:
        """Add a fault for every row of a mask."""
        for place in np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist():
            self.add(name, place, message)

    def add(self, name: str, place: int, message: str) -> None:
        column = self._names[name]
        self.faults.add(f"{column}: {message}", row=self._table.rows[place], label=self._table.label(place))

    def text(self, name: str) -> Any:
        """Return a text column as an Arrow array; values at fault are null and have been reported."""
        values = self._table.columns[self._names[name]]
        array = None if self._messages_as_text(name, values) else _as_strings(values)
        if array is None:
            array = self._convert(name, _to_list(values), _TEXTS[name])
        else:
            self.report(name, pc.is_null(array), "missing")
        empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(array)), 0)
        self.report(name, pc.fill_null(empty, False), "empty text")
        nul = pc.match_substring(array, "\x00")
        self.report(name, pc.fill_null(nul, False), "the text holds a NUL byte; remove it")
        return array

    @staticmethod
    def _messages_as_text(name: str, values: Any) -> bool:
        # In CSV, chat messages can only stand as JSON text, in whatever spacing.
        return name == "prompt" and isinstance(values, list) and any(_looks_like_messages(value) for value in values)

    def _convert(self, name: str, values: list[Any], convert: Callable[[Any], str]) -> Any:
        converted: list[str | None] = []
        for place, value in enumerate(values):
            text = None
            if value is None:
                self.add(name, place, "missing")
            else:
                try:
                    text = convert(json.loads(value) if _looks_like_messages(value) and name == "prompt" else value)
                    text.encode("utf-8")
                except _ValueError as fault:
                    self.add(name, place, str(fault))
                except UnicodeEncodeError:
                    text = None
                    self.add(name, place, "the text holds half of a surrogate pair, which is no character; remove it")
            converted.append(text)
        return pa.chunked_array([pa.array(converted, pa.large_string())])

    def optional(self, name: str, convert: Callable[[Any], Any]) -> list[Any] | None:
        """Return the values of an optional column, or None where the table has no such column."""
        if self._names[name] not in self._table.columns:
            return None
        converted = []
        for place, value in enumerate(_to_list(self._table.columns[self._names[name]])):
            absent = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
            try:
                converted.append(convert(None if absent else value))
            except _ValueError as fault:
                converted.append(None)
                self.add(name, place, str(fault))
        return converted

    def groups(self, ids: tuple[str, ...], user: IntArray, group: list[Any] | None) -> list[str | None]:
        """Return the group of each user; two groups for one user are a fault."""
        found: list[str | None] = [None] * len(ids)
        for place, (row, value) in enumerate(zip(user.tolist(), group or [], strict=False)):
            if value is None or value == found[row]:
                continue
            if found[row] is not None:
                self.add("group", place, f"user {ids[row]!r} is in group {value!r} here and in {found[row]!r} before")
            else:
                found[row] = value
        return found

    def check_split_users(self, ids: tuple[str, ...], user: IntArray, split: list[str]) -> None:
        """A user is seen or unseen, not both."""
        unseen = np.array([name in ("support", "heldout") for name in split])
        for row in np.intersect1d(user[unseen], user[~unseen]).tolist():
            place = int(np.flatnonzero((user == row) & unseen)[0])
            other = split[int(np.flatnonzero((user == row) & ~unseen)[0])]
            self.add("split", place, f"user {ids[row]!r} is unseen ({split[place]}) here but also in {other}")

    def notes(self) -> tuple[str, ...]:
        """Return remarks on columns that are not used."""
        used = set(self._names.values())
        schema = [name for name in self._names if self._names[name] not in self._table.columns]
        return tuple(
            f"Column {name!r} is not part of the row schema and was not read{suggest(name, schema)}."
            for name in self._table.columns
            if name not in used
        )


def _looks_like_messages(value: Any) -> bool:
    if not isinstance(value, str) or not value.startswith(("[{", "[ {")):
        return False
    try:
        return message_fault(json.loads(value)) is None
    except (ValueError, RecursionError):
        return False


def _to_list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else list(values.to_pylist())


def _as_strings(values: Any) -> Any:
    """Return values as an Arrow string array, or None where some are no text."""
    try:
        if isinstance(values, list):
            return pa.chunked_array([pa.array(values, pa.large_string())])
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            return values.cast(pa.large_string())
    except (pa.ArrowException, UnicodeEncodeError):
        return None
    return None
