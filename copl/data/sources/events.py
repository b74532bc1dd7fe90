"""Source ``events``: what people said to `copl serve`, so that tomorrow's training set is yesterday's service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs

from copl.data.dataset import load_dataset
from copl.data.living import AddOptions, add_rows, forget_users
from copl.data.reading.rows import Rows, parse_rows
from copl.data.reading.table import table_of_objects
from copl.data.sources.tables import RowOptions, data_of_rows
from copl.errors import DataError
from copl.options import option
from copl.plugins import Component

if TYPE_CHECKING:
    from copl.data.events.log import EventLog
    from copl.interfaces import DatasetSource
    from copl.records import PreferenceData

_NAME = "events"


@final
@attrs.frozen(kw_only=True)
class EventsOptions(RowOptions):
    """Options of the source."""

    store: str = option(
        help="the store of the service: a SQLite file, such as run.serve.sqlite, or postgresql+psycopg://…"
    )
    base: Path | None = option(
        None,
        help="directory of the data set that the service's run was trained on: what was said since is added to it, and "
        "who was forgotten is taken out of it",
    )


@final
class EventsSource:
    """Reads what is in force of everything that users said: a vote changed counts once, one withdrawn not at all."""

    def __init__(self, options: EventsOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the store.

        Raises:
            DataError: the store cannot be read, or nobody said anything yet.
        """
        from copl.data.events.log import EventLog, address

        store = self._options.store
        if "://" not in store and not Path(store).is_file():
            raise DataError(f"{store}: no such store; `copl serve` says at its start where it keeps one")
        log = EventLog(address(store))
        try:
            rows, notes = _rows(log)
            forgotten = log.forgotten()
        finally:
            log.close()
        if self._options.base is not None:
            return self._added(self._options.base, rows, forgotten, notes)
        if rows is None:
            raise DataError(f"{store}: nobody has compared anything there yet")
        return data_of_rows(rows, self._options, source=_NAME, name=_NAME, seed=seed, notes=notes)

    def _added(
        self, base: Path, rows: Rows | None, forgotten: frozenset[str], notes: tuple[str, ...]
    ) -> PreferenceData:
        from copl.data.events.log import user_digest

        data = load_dataset(base)
        gone = [user for user in data.users.ids if user_digest(user) in forgotten] if forgotten else []
        if gone:
            data = forget_users(data, gone)
        if rows is not None:
            data = add_rows(data, rows, AddOptions(contradictions="keep"), name="the service")
        provenance = {**data.provenance, "notes": [*data.provenance.get("notes", ()), *notes]}
        return attrs.evolve(data, provenance=provenance)


def _rows(log: EventLog) -> tuple[Rows | None, tuple[str, ...]]:
    """Return the comparisons in force of all users, and what there is to say of the others."""
    from copl.data.events.evidence import FEEDBACK, in_force, judgements

    rows, ids = [], []
    num_said = num_in_force = num_silent = 0
    for user, events in log.by_user():
        standing, following = in_force(events), judgements(events)
        num_said += sum(event.kind in FEEDBACK for event in events)
        num_in_force += len(standing)
        num_silent += len({event.id for event in standing} - {judgement.event for judgement in following})
        created = {event.id: event.created for event in events}
        rows += [{**judgement.row(user), "timestamp": created[judgement.event]} for judgement in following]
        ids += [judgement.event for judgement in following]
    notes = [f"{num_said - num_in_force:,} of {num_said:,} answers were withdrawn or given anew since."]
    if num_silent:
        notes.append(
            f"{num_silent:,} answers say nothing of two responses: ties, single ratings, or pairs decided otherwise."
        )
    if not rows:
        return None, tuple(notes)
    return parse_rows(table_of_objects("events", rows, ids, "event")), tuple(notes)


def _build(options: EventsOptions) -> DatasetSource:
    return EventsSource(options)


COMPONENTS = [
    Component(
        _NAME, EventsOptions, _build, "what people said to `copl serve`: choices, edits, thumbs, comparisons, ratings"
    )
]
