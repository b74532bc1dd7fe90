"""From a table of rows to comparisons: the row schema, checked row by row.

A row has ``user_id``, ``prompt`` (text or chat messages), ``chosen`` and ``rejected`` (text, or a list of one assistant
message), and may have ``split``, ``group``, ``controversial``, ``weight`` and ``timestamp`` (ISO 8601 with its zone, or
seconds or milliseconds since 1970, all rows alike).
Ids and texts are read in their one spelling (`copl.data.canonical`), and the notes say which were written otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np

from copl.data.canonical import ValueFaultError
from copl.data.pairs import intern_responses, intern_users
from copl.data.reading import values
from copl.data.reading.columns import NOTHING, EncodedColumn, encode, encode_together, first_places
from copl.data.reading.faults import Faults
from copl.data.reading.table import Table, table_of_objects
from copl.errors import quoted, suggest
from copl.records import Comparisons, ComparisonSet, UserTable

if TYPE_CHECKING:
    from copl.data.reading.values import Convert
    from copl.records import FloatArray, IntArray

REQUIRED = ("user_id", "prompt", "chosen", "rejected")
OPTIONAL = ("split", "group", "controversial", "weight", "timestamp")

COLUMNS_HELP = "names of the file's columns where they differ, such as "
NO_NAMES: object = attrs.Factory(dict)
"""Help, which goes on with an example, and default of the option that says what columns are called."""


def column_faults(columns: Mapping[str, str], schema: Sequence[str]) -> list[str]:
    """Return what is wrong with the names that a file's columns are said to have.

    Args:
        columns: names of columns in the file, by the schema's name.
        schema: names in the schema.
    """
    faults = [
        f"option columns: {quoted(name)} is no column of the schema{suggest(name, schema)}"
        for name in columns
        if name not in schema
    ]
    meant: dict[str, str] = {}
    for name, column in columns.items():
        if (other := meant.setdefault(column, name)) != name:
            faults.append(f"option columns: {quoted(column)} is said to be {other} and {name}; name one for each")
    return faults


def missing_column(column: str, name: str, columns: Iterable[str], *, can_be_named: bool) -> str:
    """Return the fault of a column that a file has not.

    Args:
        column: the column.
        name: its name in the schema.
        columns: columns of the file.
        can_be_named: whether the option columns may say what it is called.
    """
    known = list(columns)
    advice = f"; if one of these is meant, name it with columns={name}=..." if can_be_named else ""
    return f"no column {quoted(column)}{suggest(column, known)}; it has {', '.join(known)}{advice}"


def unread_column(column: str, names: Mapping[str, str]) -> str:
    """Return a remark on a column that is not read.

    Args:
        column: the column.
        names: names of columns in the file, by the schema's name.
    """
    if column in names:
        return f"Column {quoted(column)} was not read: {quoted(names[column])} is read in its place."
    return f"Column {quoted(column)} is not part of the row schema and was not read{suggest(column, names)}."


@final
@attrs.frozen(eq=False)
class Rows:
    """Checked rows.

    Attributes:
        data: the comparisons, in the order of the rows.
        split: the split each row names, or None where the table has no such column.
        table: the table they were read from, for messages.
        unread: a remark on each column that is not part of the schema.
        respelt: a remark on each column with values in another spelling.
    """

    data: ComparisonSet
    split: EncodedColumn | None
    table: Table
    unread: tuple[str, ...]
    respelt: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know."""
        return (*self.unread, *self.respelt)

    def require_times(self) -> None:
        """Refuse rows without a time.

        Raises:
            DataError: one fault for each.
        """
        faults, table = Faults(self.table.where), self.table
        missing = np.flatnonzero(np.isnan(self.data.comparisons.time))
        message = "timestamp: missing; strategy=time needs the time of every row"
        faults.add_each(missing, lambda place: (int(table.rows[place]), message, table.label(place)))
        faults.raise_any()


def read_comparison_rows(rows: ComparisonSet | Sequence[Mapping[str, object]]) -> ComparisonSet:
    """Return rows given as objects, of every kind, as comparisons, and comparisons as they are.

    A split that rows name is not regarded, and of what a user says again of the same the last counts.

    Warns of keys that are not part of the schema.

    Raises:
        DataError: one fault for each row that is wrong.
    """
    if isinstance(rows, ComparisonSet):
        return rows
    from copl.data.making.mixed import collect_rows, is_mixed
    from copl.records.said import in_force

    table = table_of_objects("rows", rows, list(range(1, len(rows) + 1)), "row")
    if is_mixed(table):
        collected, notes = collect_rows(table)
        said = collected.as_set()
    else:
        read = parse_rows(table)
        said, notes = in_force(read.data), read.unread
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)
    return said


def parse_rows(table: Table, columns: Mapping[str, str] | None = None) -> Rows:
    """Check a table against the row schema and number its users and responses.

    Args:
        table: the table.
        columns: names of columns in the table, by the schema's name, where they differ; None where nobody can say so.

    Raises:
        DataError: one fault for each row that could not be read, each missing column and each wrong value, with row and
            column.
    """
    reader = RowReader(table, columns)
    user = reader.text("user_id")
    prompt = reader.text("prompt")
    same = "chosen and rejected are the same text; a comparison needs two different responses"
    chosen, rejected = reader.different("chosen", "rejected", "chosen", same)
    split = reader.optional("split", values.split)
    group = reader.optional("group", values.group)
    controversial = reader.optional("controversial", values.controversial)
    weight, time = reader.weights(), reader.times()
    reader.faults.raise_any()

    ids, user_row = intern_users(user)
    responses, chosen_row, rejected_row = intern_responses(prompt, chosen, rejected)
    groups = reader.groups(ids, user_row, group)
    if split is not None:
        reader.check_split_users(ids, user_row, split)
    reader.faults.raise_any()
    marks = controversial or EncodedColumn(np.full(len(table), NOTHING), ())
    marked = marks.mapped(marks.values, -1, np.int8)
    comparisons = Comparisons(user_row, chosen_row, rejected_row, weight, marked, time)
    data = ComparisonSet(UserTable(ids, groups), responses, comparisons)
    return Rows(data, split, table, reader.unread(), reader.respelt())


@final
class RowReader:
    """Takes columns out of a table, collecting faults, those of the table among them.

    Args:
        table: the table.
        columns: names of columns in the table, by the schema's name, where they differ; None where nobody can say so.
        required: columns that must be there.
        optional: columns that may be there, of those that a caller reads.
    """

    def __init__(
        self,
        table: Table,
        columns: Mapping[str, str] | None = None,
        required: Sequence[str] = REQUIRED,
        optional: Sequence[str] = OPTIONAL,
    ) -> None:
        can_be_named, columns = columns is not None, columns or {}
        self._table = table
        self._names = {name: columns.get(name, name) for name in (*required, *optional)}
        self._respelt: list[str] = []
        self.faults = table.faults
        if not len(table):
            if not len(self.faults):
                self.faults.add("there are no rows")
            self.faults.raise_any()
        num_unread = len(self.faults)
        for fault in column_faults(columns, list(self._names)):
            self.faults.add(fault)
        for name in (*required, *(name for name in optional if name in columns)):
            column = self._names[name]
            if column not in table.columns:
                self.faults.add(missing_column(column, name, table.columns, can_be_named=can_be_named))
        if len(self.faults) > num_unread:
            self.faults.raise_any()

    def _unread_columns(self) -> list[str]:
        used = set(self._names.values())
        return [name for name in self._table.columns if name not in used]

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
        """Return a column of text in its one spelling; values at fault are left out and have been reported."""
        column = encode(self._table.columns[self._names[name]])
        convert = values.TEXTS[name]
        texts, wrong = _converted(column, convert if column.is_typed else values.in_text(convert))
        self._report_values(name, column, wrong, f"missing{suggest(name, self._unread_columns())}")
        if name == "user_id":
            self._check_kinds(column)
        spelt = column.converted(texts)
        self._note_spelling(name, column, spelt, texts)
        return spelt

    def different(self, one: str, other: str, at: str, message: str) -> list[EncodedColumn]:
        """Return two columns of text over the same values; rows in which they do not differ are reported.

        Args:
            one: one column, by its name in the schema.
            other: the other one.
            at: the column at which it is reported.
            message: what is wrong.
        """
        first, second = encode_together([self.text(one), self.text(other)])
        same = np.flatnonzero((first.codes == second.codes) & (first.codes != NOTHING))
        self.report(at, same, message)
        return [first, second]

    def _note_spelling(self, name: str, column: EncodedColumn, spelt: EncodedColumn, texts: Sequence[object]) -> None:
        respelt = [
            isinstance(value, str) and text not in (None, value) and values.messages_in_text(value) is value
            for value, text in zip(column.values, texts, strict=True)
        ]
        if not any(respelt):
            return
        example = respelt.index(True)
        merged = sum(text is not None for text in texts) - len(spelt.values)
        self._respelt.append(
            f"{len(column.rows_where(respelt)):,} values of column {quoted(self._names[name])} were put into the one "
            f"spelling of texts, such as {quoted(column.values[example])} into {quoted(texts[example])}"
            + (f"; {merged:,} thereby became the same as others." if merged else ".")
        )

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
            if values.fault_of(values.user_id, value) is None:
                first.setdefault("text" if isinstance(value, str) else "a number", code)
        if len(first) > 1:
            places = first_places(column.codes, len(column.values))
            (kind, place), (other, later) = ((kind, int(places[code])) for kind, code in first.items())
            message = f"{other} here, {kind} in {self._table.label(place)}; write ids in one way throughout"
            self.report("user_id", np.array([later]), message)

    def optional(self, name: str, convert: Convert) -> EncodedColumn | None:
        """Return an optional column, or None where the table has no such column; its values may be None."""
        if self._names[name] not in self._table.columns:
            return None
        column = encode(self._table.columns[self._names[name]])
        converted, wrong = _converted(column, convert)
        self._report_values(name, column, wrong, values.fault_of(convert, None))
        return column.converted(converted)

    def weights(self) -> FloatArray:
        """Return the weight of each row, 1 where it has none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        given = self._table.columns.get(self._names["weight"])
        if not isinstance(given, pa.Array | pa.ChunkedArray) or not pa.types.is_floating(given.type):
            column = self.optional("weight", values.weight)
            ones = np.ones(len(self._table), dtype=np.float64)
            return ones if column is None else column.mapped(column.values, 1.0, np.float64)
        numbers = pc.fill_null(given.cast(pa.float64()), 1.0).to_numpy()
        wrong = np.flatnonzero(~((numbers >= values.LEAST_WEIGHT) & (numbers <= values.MOST_WEIGHT)))
        self.report("weight", wrong, lambda place: values.fault_of(values.weight, given[place].as_py()) or "")
        return np.asarray(numbers, dtype=np.float64)

    def times(self) -> FloatArray:
        """Return the time of each row in seconds since 1970, NaN where it has none; all must be written alike."""
        unknown = np.full(len(self._table), np.nan)
        if self._names["timestamp"] not in self._table.columns:
            return unknown
        column = encode(self._table.columns[self._names["timestamp"]])
        converted, wrong = _converted(column, values.timestamp)
        self._report_values("timestamp", column, wrong, None)
        kinds = [None if entry is None else entry[1] for entry in converted]
        usual = next((kind for kind in kinds if kind is not None), None)
        places = column.rows_where([kind not in (None, usual) for kind in kinds])
        self.report(
            "timestamp",
            places,
            lambda place: f"{kinds[column.codes[place]]} here, {usual} before; write times in one way throughout",
        )
        return column.mapped([np.nan if entry is None else entry[0] for entry in converted], np.nan, np.float64)

    def groups(self, ids: tuple[str, ...], user: IntArray, group: EncodedColumn | None) -> list[str | None]:
        """Return the group of each user; two groups for one user are a fault."""
        if group is None:
            return [None] * len(ids)
        places = np.flatnonzero(group.codes != NOTHING)
        first = first_places(user[places], len(ids))
        of_user = np.append(group.codes[places], NOTHING)[first]
        names = [*group.values, None]

        def tell(place: int) -> str:
            here, before = names[group.codes[place]], names[of_user[user[place]]]
            return f"user {quoted(ids[user[place]])} is in group {quoted(here)} here and in {quoted(before)} before"

        self.report("group", places[group.codes[places] != of_user[user[places]]], tell)
        return [names[code] for code in of_user.tolist()]

    def check_split_users(self, ids: tuple[str, ...], user: IntArray, split: EncodedColumn) -> None:
        """A user is seen or unseen, not both."""
        unseen = split.mapped([name in ("support", "heldout") for name in split.values], False, np.bool_)
        never = len(user)
        first_unseen, first_seen = (
            np.append(np.flatnonzero(mask), never)[first_places(user[mask], len(ids))] for mask in (unseen, ~unseen)
        )

        def tell(place: int) -> str:
            one, other = (split.values[split.codes[row]] for row in (place, first_seen[user[place]]))
            return f"user {quoted(ids[user[place]])} is unseen ({one}) here but also in {other}"

        self.report("split", np.sort(first_unseen[(first_unseen < never) & (first_seen < never)]), tell)

    def unread(self) -> tuple[str, ...]:
        """Return a remark on each column that is not used."""
        return tuple(unread_column(name, self._names) for name in self._unread_columns())

    def respelt(self) -> tuple[str, ...]:
        """Return a remark on each column of text taken so far that has values in another spelling."""
        return tuple(self._respelt)


def _converted(column: EncodedColumn, convert: Convert) -> tuple[list[Any], dict[int, str]]:
    """Return what each distinct value means, None where that is nothing, and what is wrong with which."""
    converted: list[Any] = []
    wrong: dict[int, str] = {}
    for code, value in enumerate(column.values):
        try:
            converted.append(convert(value))
        except ValueFaultError as fault:
            converted.append(None)
            wrong[code] = str(fault)
    return converted, wrong
