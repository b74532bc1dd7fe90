"""Rows as columns, as they come from a file or from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import attrs

from copl.data.reading.columns import encode
from copl.data.reading.faults import Faults

if TYPE_CHECKING:
    from copl.records import IntArray


@final
@attrs.frozen(eq=False)
class Table:
    """A table as read from a file or given as rows: columns of equal length.

    Attributes:
        where: name of the file, for messages.
        columns: values by column name: a list of Python values, an Arrow array, a
            `copl.data.reading.columns.EncodedColumn`, or None where the column is there and was not read.
        rows: number of each row in the file, as a person counts.
        unit: what the numbers count: ``line`` or ``row``.
        faults: what is wrong with rows that could not be read and are not among `columns`; whoever uses the table adds
            what else is wrong and raises all of it, or calls `checked`.
    """

    where: str
    columns: dict[str, Any]
    rows: Sequence[int] | IntArray
    unit: str = "line"
    faults: Faults = attrs.field(default=attrs.Factory(lambda self: Faults(self.where), takes_self=True))

    def __len__(self) -> int:
        return len(self.rows)

    def label(self, place: int) -> str:
        """Return how the row at `place` is named to a person."""
        return f"{self.unit} {self.rows[place]}"

    def values(self, name: str) -> list[Any]:
        """Return a column as Python values, None where a row has none."""
        return encode(self.columns[name]).to_list()

    def checked(self) -> Table:
        """Return this table if every row of the file could be read.

        Raises:
            DataError: one fault for each row that could not.
        """
        self.faults.raise_any()
        return self


def table_of_objects(
    where: str, objects: Sequence[Mapping[str, Any]], rows: list[int], unit: str, faults: Faults | None = None
) -> Table:
    """Return objects as a table; keys that some of them lack are None there. See `Table` for the arguments."""
    names = dict.fromkeys(name for value in objects for name in value)
    columns = {name: [value.get(name) for value in objects] for name in names}
    return Table(where, columns, rows, unit, Faults(where) if faults is None else faults)
