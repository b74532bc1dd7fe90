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
from copl.data.pairs import intern_responses, intern_users
from copl.data.reading.columns import NOTHING, EncodedColumn, encode, encode_together, first_places
from copl.data.reading.files import Faults, Table, table_of_objects
from copl.errors import suggest
from copl.records import SPLITS, Comparisons, ComparisonSet, UserTable

if TYPE_CHECKING:
    from copl.records import BoolArray, FloatArray, IntArray

REQUIRED = ("user_id", "prompt", "chosen", "rejected")
USED = ("split", "group", "controversial", "weight")
OPTIONAL = (*USED, "timestamp")


@final
@attrs.frozen(eq=False)
class Rows:
    """Checked rows.

    Attributes:
        data: the comparisons, in the order of the rows.
        split: the split each row names, or None where the table has no such column.
        table: the table they were read from, for messages.
        notes: what a person should know: columns that were not used.
    """

    data: ComparisonSet
    split: EncodedColumn | None
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
    chosen, rejected = encode_together([chosen, rejected])
    same = np.flatnonzero((chosen.codes == rejected.codes) & (chosen.codes != NOTHING))
    reader.report("chosen", same, "chosen and rejected are the same text; a comparison needs two different responses")
    split = reader.optional("split", _split)
    group = reader.optional("group", _group)
    controversial = reader.optional("controversial", _controversial)
    weight = reader.weights()
    reader.faults.raise_any()

    ids, user_row = intern_users(user)
    responses, chosen_row, rejected_row = intern_responses(prompt, chosen, rejected)
    groups = reader.groups(ids, user_row, group)
    if split is not None:
        reader.check_split_users(ids, user_row, split)
    reader.faults.raise_any()
    marks = controversial or EncodedColumn(np.full(len(table), NOTHING), ())
    marked = marks.mapped(marks.values, -1, np.int8)
    comparisons = Comparisons(user_row, chosen_row, rejected_row, weight, marked)
    data = ComparisonSet(UserTable(ids, groups), responses, comparisons)
    return Rows(data, split, table, reader.notes())


class ValueFaultError(Exception):
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
        raise ValueFaultError(f"expected text, got {_kind(value)}")
    return str(value)


def _prompt(value: Any) -> str:
    if isinstance(value, str):
        return value
    fault = message_fault(value) if isinstance(value, list) else f"expected text or chat messages, got {_kind(value)}"
    if fault:
        raise ValueFaultError(fault)
    return encode_messages(value)


def _response(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueFaultError(f"expected text, got {_kind(value)}")
    if not value or not all(isinstance(message, Mapping) for message in value):
        raise ValueFaultError("a list where text belongs; a response is text or a list of one assistant message")
    if len(value) != 1:
        raise ValueFaultError(
            f"a list of {len(value)} messages; a response is one assistant message, the others belong to the prompt"
        )
    fault = message_fault(value)
    if fault:
        raise ValueFaultError(fault)
    if value[0]["role"] != "assistant":
        raise ValueFaultError(f"a message of role {value[0]['role']!r}; a response is by the 'assistant'")
    return str(value[0]["content"])


def _split(value: Any) -> str:
    if value is None:
        raise ValueFaultError("empty; where the table has a split column every row needs one")
    if value not in SPLITS:
        raise ValueFaultError(f"unknown split {value!r}{suggest(str(value), SPLITS)}; there are {', '.join(SPLITS)}")
    return str(value)


def _group(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueFaultError(f"expected text, got {_kind(value)}")
    return str(value)


_TRUTH = {"1": 1, "true": 1, "yes": 1, "0": 0, "false": 0, "no": 0, "-1": None}


def _controversial(value: Any) -> int | None:
    if value is None:
        return None
    # Not `value in (0, 1)`: 1.0 comes from tables where some rows have no value.
    spelt = str(int(value)) if isinstance(value, bool | int | float) and value == int(value) else str(value).lower()
    if spelt not in _TRUTH:
        raise ValueFaultError(f"expected 1, 0 or nothing, got {value!r}")
    return _TRUTH[spelt]


def _weight(value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        weight = float(value)
    except (TypeError, ValueError):
        raise ValueFaultError(f"expected a number, got {value!r}") from None
    if not math.isfinite(weight) or weight <= 0:
        raise ValueFaultError(f"a weight must be positive and finite, got {value!r}")
    return weight


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "user_id": _user_id,
    "prompt": _prompt,
    "chosen": _response,
    "rejected": _response,
    "response": _response,
    "first": _response,
    "second": _response,
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

    def report(self, name: str, places: IntArray, message: str | Callable[[int], str]) -> None:
        """Add a fault for each of some rows.

        Args:
            name: the column, by its name in the schema.
            places: the rows, ascending.
            message: what is wrong, or what tells that of a row.
        """
        column, table = self._names[name], self._table

        def tell(place: int) -> tuple[int, str, str]:
            what = message if isinstance(message, str) else message(place)
            return int(table.rows[place]), f"{column}: {what}", table.label(place)

        self.faults.add_each(places, tell)

    def text(self, name: str) -> EncodedColumn:
        """Return a column of text; values at fault are left out and have been reported."""
        column = encode(self._table.columns[self._names[name]])
        texts, wrong = self._converted(name, column, _TEXTS[name])
        self._report_values(name, column, wrong, "missing")
        if name == "user_id":
            self._check_kinds(column)
        made = column.converted(texts)
        array = pa.array(made.values, pa.large_string())
        empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(array)), 0)
        self.report(name, made.rows_where(_mask(empty)), "empty text")
        nul = pc.match_substring(array, "\x00")
        self.report(name, made.rows_where(_mask(nul)), "the text holds a NUL byte; remove it")
        return made

    def _converted(
        self, name: str, column: EncodedColumn, convert: Callable[[Any], Any]
    ) -> tuple[list[Any], dict[int, str]]:
        """Return what each distinct value means, None where that is nothing, and what is wrong with which."""
        converted: list[Any] = []
        wrong: dict[int, str] = {}
        for code, value in enumerate(column.values):
            made = None
            try:
                # In CSV, chat messages can only stand as JSON text, in whatever spacing.
                is_json = name == "prompt" and not column.is_typed and _looks_like_messages(value)
                made = convert(json.loads(value) if is_json else value)
                if isinstance(made, str):
                    made.encode("utf-8")
            except ValueFaultError as fault:
                wrong[code] = str(fault)
            except UnicodeEncodeError:
                made = None
                wrong[code] = "the text holds half of a surrogate pair, which is no character; remove it"
            converted.append(made)
        return converted, wrong

    def _report_values(self, name: str, column: EncodedColumn, wrong: Mapping[int, str], nothing: str | None) -> None:
        """Add a fault for each row with a wrong value, or with none where `nothing` says what is wrong with that."""
        if wrong or nothing is not None:
            mask = np.zeros(len(column.values), dtype=np.bool_)
            mask[list(wrong)] = True
            places = column.rows_where(mask, nothing=nothing is not None)
            self.report(name, places, lambda place: wrong.get(int(column.codes[place]), nothing or ""))

    def _check_kinds(self, column: EncodedColumn) -> None:
        """Ids are numbers or text: 7 and "7" are hardly two users, and "007" hardly the same."""
        first: dict[str, int] = {}
        for code, value in enumerate(column.values):
            if isinstance(value, str | int) and not isinstance(value, bool):
                first.setdefault("text" if isinstance(value, str) else "a number", code)
        if len(first) > 1:
            places = first_places(column.codes, len(column.values))
            (kind, place), (other, later) = ((kind, int(places[code])) for kind, code in first.items())
            message = f"{other} here, {kind} in {self._table.label(place)}; write ids in one way throughout"
            self.report("user_id", np.array([later]), message)

    def optional(self, name: str, convert: Callable[[Any], Any]) -> EncodedColumn | None:
        """Return an optional column, or None where the table has no such column; its values may be None."""
        if self._names[name] not in self._table.columns:
            return None
        column = encode(self._table.columns[self._names[name]])

        def made(value: Any) -> Any:
            return convert(None if value == "" or (isinstance(value, float) and math.isnan(value)) else value)

        values, wrong = self._converted(name, column, made)
        self._report_values(name, column, wrong, _fault(convert, None))
        return column.converted(values)

    def weights(self) -> FloatArray:
        """Return the weight of each row, 1 where it has none."""
        values = self._table.columns.get(self._names["weight"])
        if not isinstance(values, pa.Array | pa.ChunkedArray) or not pa.types.is_floating(values.type):
            column = self.optional("weight", _weight)
            ones = np.ones(len(self._table), dtype=np.float64)
            return ones if column is None else column.mapped(column.values, 1.0, np.float64)
        numbers = pc.fill_null(values.cast(pa.float64()), math.nan).to_numpy()
        wrong = np.flatnonzero(~np.isnan(numbers) & ~(np.isfinite(numbers) & (numbers > 0)))
        self.report("weight", wrong, lambda place: _fault(_weight, values[place].as_py()) or "")
        return np.where(np.isnan(numbers), 1.0, numbers)

    def groups(self, ids: tuple[str, ...], user: IntArray, group: EncodedColumn | None) -> list[str | None]:
        """Return the group of each user; two groups for one user are a fault."""
        if group is None:
            return [None] * len(ids)
        places = np.flatnonzero(group.codes != NOTHING)
        first = first_places(user[places], len(ids))
        found = np.append(group.codes[places], NOTHING)[first]
        names = [*group.values, None]
        other = places[group.codes[places] != found[user[places]]]

        def tell(place: int) -> str:
            here, before = names[group.codes[place]], names[found[user[place]]]
            return f"user {ids[user[place]]!r} is in group {here!r} here and in {before!r} before"

        self.report("group", other, tell)
        return [names[code] for code in found.tolist()]

    def check_split_users(self, ids: tuple[str, ...], user: IntArray, split: EncodedColumn) -> None:
        """A user is seen or unseen, not both."""
        unseen = split.mapped([name in ("support", "heldout") for name in split.values], False, np.bool_)
        never = len(user)
        here, there = (
            np.append(np.flatnonzero(mask), never)[first_places(user[mask], len(ids))] for mask in (unseen, ~unseen)
        )

        def tell(place: int) -> str:
            one, other = (split.values[split.codes[row]] for row in (place, there[user[place]]))
            return f"user {ids[user[place]]!r} is unseen ({one}) here but also in {other}"

        self.report("split", np.sort(here[(here < never) & (there < never)]), tell)

    def notes(self) -> tuple[str, ...]:
        """Return remarks on columns that are not used."""
        used = set(self._names.values())
        schema = [name for name in self._names if self._names[name] not in self._table.columns]
        return tuple(
            f"Column {name!r} is not part of the row schema and was not read{suggest(name, schema)}."
            for name in self._table.columns
            if name not in used
        )


def _fault(convert: Callable[[Any], Any], value: Any) -> str | None:
    try:
        convert(value)
    except ValueFaultError as fault:
        return str(fault)
    return None


def _mask(values: Any) -> BoolArray:
    mask: BoolArray = values.to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask


def _looks_like_messages(value: Any) -> bool:
    if not isinstance(value, str) or not value.startswith(("[{", "[ {")):
        return False
    try:
        return message_fault(json.loads(value)) is None
    except (ValueError, RecursionError):
        return False
