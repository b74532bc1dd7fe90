"""Source ``thumbs``: any table of users who give a thumb up or down to single responses.

A row has ``user_id``, ``prompt``, ``response`` and ``thumb``, and may have ``timestamp``, ``weight`` and ``group``.
TRL's format for unpaired preferences, with ``completion`` and ``label``, is read as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs
import numpy as np

from copl.data.making.collected import Collected, CollectedOptions, Said
from copl.data.making.origin import Origin
from copl.data.reading import values
from copl.data.reading.rows import COLUMNS_HELP, NO_NAMES, RowReader
from copl.data.reading.thumbs import sign_of_zero, thumb_sign, zeros_read_as_down
from copl.data.sources.tables import read_table
from copl.options import option
from copl.plugins import Component

if TYPE_CHECKING:
    from copl.data.reading.table import Table
    from copl.records import PreferenceData

_OPTIONAL = ("group", "weight", "timestamp")
_OTHER_NAMES = {"response": "completion", "thumb": "label"}


@final
@attrs.frozen(kw_only=True)
class ThumbOptions(CollectedOptions):
    """Options of tables of thumbs."""

    columns: dict[str, str] = option(NO_NAMES, help=f"{COLUMNS_HELP}user_id=account,thumb=score")


@final
class ThumbsSource:
    """Reads a table of thumbs."""

    def __init__(self, options: ThumbOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the table.

        Raises:
            DataError: the file cannot be read, one fault for each row that is wrong, or nothing is left.
        """
        options = self._options
        table = read_table(options.path)
        names = _names(table, options.columns)
        reader = RowReader(table, names, ("user_id", "prompt", "response", "thumb"), _OPTIONAL)
        texts = [reader.text(name).to_list() for name in ("user_id", "prompt", "response")]
        thumb = reader.optional("thumb", thumb_sign)
        group = reader.optional("group", values.group)
        weight, time = reader.weights(), reader.times()
        reader.faults.raise_any()
        marks = [] if thumb is None else thumb.to_list()
        column = names.get("thumb", "thumb")
        zero = sign_of_zero(table.values(column))
        collected = Collected()
        for user, prompt, response, mark, when, much in zip(*texts, marks, time, weight, strict=True):
            sign = zero if mark == 0 else mark
            if not sign:
                collected.drop("without a thumb")
                continue
            collected.thumb(Said(user, prompt, float(when), float(much)), response, up=sign > 0)
        if group is not None:
            ids = dict.fromkeys(texts[0])
            places = {user: place for place, user in enumerate(ids)}
            rows = np.array([places[user] for user in texts[0]])
            groups = reader.groups(tuple(ids), rows, group)
            reader.faults.raise_any()
            collected.groups |= {user: name for user, name in zip(ids, groups, strict=True) if name is not None}
        origin = Origin("thumbs", options.licence, options.attribution, "Thumbs up and down for single responses.")
        notes = (*reader.unread(), *reader.respelt(), zeros_read_as_down(column, table.values(column)))
        return collected.data(
            options, origin, where=options.path, eval_pairs=options.eval_pairs_per_user, seed=seed, notes=notes
        )


def _names(table: Table, columns: dict[str, str]) -> dict[str, str]:
    """Return the names of columns, those of TRL's format among them."""
    usual = {
        name: other for name, other in _OTHER_NAMES.items() if name not in table.columns and other in table.columns
    }
    return {**usual, **columns}


COMPONENTS = [
    Component("thumbs", ThumbOptions, ThumbsSource, "own table of users who give single responses a thumb up or down")
]
