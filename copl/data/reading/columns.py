"""Columns that hold each distinct value once, so that checks look at values, not at rows.

A column of ten million rows is an array of codes, 40 MB, beside a list of the values that occur. Values are coded
without a loop over rows: one pass of a dictionary's own lookup, or Arrow's dictionary encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, final

import attrs
import numpy as np
from numpy.typing import NDArray

from copl.data.canonical import Foreign

if TYPE_CHECKING:
    from copl.records import BoolArray, IntArray

Codes: TypeAlias = NDArray[np.int32]

NOTHING = -1
"""Code of a row without a value."""


@final
@attrs.frozen(eq=False)
class EncodedColumn:
    """A column as codes.

    Attributes:
        codes: place of each row's value in `values`, or `NOTHING` [N].
        values: the distinct values, in the order in which they first occur.
        is_typed: whether the file tells text from other things, so that text that looks like a list is text.
    """

    codes: Codes
    values: Sequence[Any]
    is_typed: bool = False

    def __len__(self) -> int:
        return len(self.codes)

    def to_list(self) -> list[Any]:
        """Return the value of each row, None where it has none."""
        values = [*self.values, None]
        return [values[code] for code in self.codes.tolist()]

    def rows_where(self, mask: BoolArray | Sequence[bool], *, nothing: bool = False) -> IntArray:
        """Return the rows, in order, whose value is marked in `mask` [values]; rows without a value if `nothing`."""
        rows: IntArray = np.flatnonzero(np.append(np.asarray(mask, dtype=np.bool_), nothing)[self.codes])
        return rows

    def mapped(self, values: Iterable[Any], nothing: Any, dtype: Any) -> NDArray[Any]:
        """Return an array [N] of one of `values` a row, in the order of the distinct ones, or of `nothing`."""
        return np.array([*values, nothing], dtype=dtype)[self.codes]

    def converted(self, values: Sequence[Any]) -> EncodedColumn:
        """Return the column with each distinct value replaced, which may make some equal; None is no value."""
        encoder = ColumnEncoder()
        codes = np.append(encoder.codes_of(values), np.int32(NOTHING))
        return EncodedColumn(codes[self.codes], encoder.finish().values, self.is_typed)


class _Numbers(dict[object, int]):
    """Numbers values of one type in the order in which they are first asked for."""

    def __init__(self, values: list[Any]) -> None:
        super().__init__({None: NOTHING})
        self._values = values

    def __missing__(self, value: object) -> int:
        self[value] = number = len(self._values)
        self._values.append(value)
        return number


@final
class ColumnEncoder:
    """Makes an `EncodedColumn` of values that come in parts."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        # By type, for 1 == True == 1.0.
        self._numbers: dict[type, _Numbers] = {}
        self._odd: dict[tuple[type, str], int] = {}
        self._parts: list[Codes] = []

    def add(self, values: Sequence[Any]) -> None:
        """Add values in Python's types; None is no value."""
        self._parts.append(self.codes_of(values))

    def add_array(self, array: Any) -> None:
        """Add an Arrow array."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if pa.types.is_string_view(array.type):  # Arrow cannot take from one
            array = array.cast(pa.large_string())
        try:
            array = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        except pa.ArrowNotImplementedError:  # nested, or no kind of value that is repeated
            self.add(python_values(array))
            return
        indices = pc.fill_null(array.indices, NOTHING).to_numpy(zero_copy_only=False)
        # Dictionaries come in any order, and may hold values that no row has.
        first = first_places(indices, len(array.dictionary))
        used = np.flatnonzero(first < len(indices))
        used = used[np.argsort(first[used])]
        codes = np.full(len(array.dictionary) + 1, NOTHING, dtype=np.int32)
        codes[used] = self.codes_of(python_values(array.dictionary.take(pa.array(used))))
        self._parts.append(codes[indices])

    def skip(self, count: int) -> None:
        """Add rows without a value."""
        self._parts.append(np.full(count, NOTHING, dtype=np.int32))

    def codes_of(self, values: Sequence[object]) -> Codes:
        """Return the codes of values, giving new ones to those not met before."""
        kinds = set(map(type, values)) - {type(None)}
        lookup: Callable[[object], int] = self._code
        if len(kinds) <= 1 and kinds <= {str, int, bool}:
            lookup = self._of_type(kinds.pop() if kinds else str).__getitem__
        return np.fromiter(map(lookup, values), dtype=np.int32, count=len(values))

    def finish(self, is_typed: bool = False) -> EncodedColumn:
        """Return the column of all that was added."""
        codes = np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.int32)
        return EncodedColumn(codes, self._values, is_typed)

    def _of_type(self, kind: type) -> _Numbers:
        return self._numbers.setdefault(kind, _Numbers(self._values))

    def _code(self, value: object) -> int:
        if value is None or isinstance(value, str | int):
            return self._of_type(str if value is None else type(value))[value]
        key = type(value), repr(value)
        if key not in self._odd:
            self._odd[key] = len(self._values)
            self._values.append(value)
        return self._odd[key]


def python_values(array: Any) -> list[Any]:
    """Return the values of an Arrow array; those that Python has no type for, such as nanoseconds, as `Foreign`."""
    import pyarrow as pa

    try:
        if getattr(array.type, "unit", "") == "ns":  # pandas has a type for these, where it is installed
            raise ValueError("Python has no type for nanoseconds")
        return list(array.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        texts = [" ".join(array.slice(place, 1).to_string().split())[2:-2] for place in range(len(array))]
        return [
            Foreign(str(array.type), text) if is_valid else None
            for text, is_valid in zip(texts, array.is_valid().to_pylist(), strict=True)
        ]


def encode(column: Any) -> EncodedColumn:
    """Return a column of a table as codes: an Arrow array, or a sequence of Python's values."""
    import pyarrow as pa  # options of sources stand on this module, and listing them needs no Arrow

    if isinstance(column, EncodedColumn):
        return column
    encoder = ColumnEncoder()
    if isinstance(column, pa.Array | pa.ChunkedArray):
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            encoder.add_array(chunk)
        return encoder.finish(is_typed=True)
    encoder.add(column)
    return encoder.finish()


def encode_together(columns: Sequence[Any]) -> list[EncodedColumn]:
    """Return columns with the same values, so that equal codes are equal values across them."""
    encoder = ColumnEncoder()
    encoded = [encode(column) for column in columns]
    codes = [np.append(encoder.codes_of(column.values), np.int32(NOTHING)) for column in encoded]
    values = encoder.finish().values
    return [
        EncodedColumn(code[column.codes], values, column.is_typed) for code, column in zip(codes, encoded, strict=True)
    ]


def first_places(codes: NDArray[Any], count: int) -> IntArray:
    """Return where each of `count` codes first occurs in `codes` [N]; N where it does not; negative codes are left out.

    >>> first_places(np.array([2, -1, 0, 2]), 3)
    array([2, 4, 0])
    """
    places: IntArray = np.full(count + 1, len(codes), dtype=np.int64)
    # Assigned backwards: of several places for one code, the last that is written stays.
    places[np.maximum(codes[::-1], NOTHING)] = np.arange(len(codes) - 1, -1, -1)
    return places[:count]
