"""Sources that read the export of a tool, entry by entry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar, final

from copl.data.making.collected import Collected, CollectedOptions
from copl.data.making.origin import Origin
from copl.data.reading.exports import Export, read_export

if TYPE_CHECKING:
    from copl.records import PreferenceData

OptionsT = TypeVar("OptionsT", bound=CollectedOptions)


class ExportSource(ABC, Generic[OptionsT]):
    """Reads an export and collects what its entries say.

    Attributes:
        name: name of the source.
        construction: what becomes of an entry, in a sentence.
    """

    name: str
    construction: str

    def __init__(self, options: OptionsT) -> None:
        self._options = options

    @final
    def load(self, *, seed: int) -> PreferenceData:
        """Read the export.

        Raises:
            DataError: the file cannot be read, one fault for each entry that is malformed, or nothing is left.
        """
        options = self._options
        export, collected = read_export(options.path), Collected()
        self._check(export)
        for number, entry in zip(export.numbers, export.entries, strict=True):
            self._read(export, number, entry, collected)
        export.faults.raise_any()
        origin = Origin(self.name, options.licence, options.attribution, self.construction)
        return collected.data(
            options,
            origin,
            where=options.path,
            eval_pairs=options.eval_pairs_per_user,
            seed=seed,
            notes=export.notes,
        )

    def _check(self, export: Export) -> None:
        """Refuse an export as a whole.

        Raises:
            DataError: it is of something else.
        """

    @abstractmethod
    def _read(self, export: Export, number: int, entry: Mapping[str, object], collected: Collected) -> None:
        """Collect what an entry says, or add what is wrong with it to the faults of the export."""
