"""Collects what is wrong with one file or table, so that all of it is said at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

from copl.errors import DataError

if TYPE_CHECKING:
    from copl.records import IntArray

SHOWN = 20
"""Faults of one file that are shown; the rest are counted."""


@final
class Faults:
    """Faults of one file or table, by row.

    Attributes:
        where: name of the file or table, for messages.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._lines: list[tuple[int, str]] = []
        self._left_out = 0

    def add(self, message: str, *, row: int = 0, label: str = "") -> None:
        """Add one fault.

        Args:
            message: what is wrong and what to do.
            row: place in the file, by which faults are sorted; 0 for the file as a whole.
            label: how the row is named to the user, such as ``line 7``.
        """
        self._lines.append((row, f"{self.where}: {label}: {message}" if label else f"{self.where}: {message}"))
        if len(self._lines) > 10 * SHOWN:  # a file may be wrong in every row
            kept = self._first()[:SHOWN]
            self._left_out += len(self._lines) - len(kept)
            self._lines = kept

    def add_each(self, places: Sequence[int] | IntArray, tell: Callable[[int], tuple[int, str, str]]) -> None:
        """Add a fault for each of many rows; messages are made of those alone that may be shown.

        Args:
            places: the rows, in the order of the file.
            tell: gives row, message and label of a place, see `add`.
        """
        for place in places[:SHOWN]:
            row, message, label = tell(int(place))
            self.add(message, row=row, label=label)
        self._left_out += max(len(places) - SHOWN, 0)

    def _first(self) -> list[tuple[int, str]]:
        return sorted(self._lines, key=lambda fault: fault[0])

    def __len__(self) -> int:
        return len(self._lines) + self._left_out

    def raise_any(self) -> None:
        """Raise when there are faults.

        Raises:
            DataError: the first faults in order of rows, and how many more there are.
        """
        if self._lines:
            lines = [message for _, message in self._first()]
            more = len(self) - SHOWN
            raise DataError(lines[:SHOWN] + ([f"{self.where}: and {more:,} more faults"] if more > 0 else []))
