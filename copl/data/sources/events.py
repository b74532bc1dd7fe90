"""Source ``events``: what people said to `copl serve`, so that tomorrow's training set is yesterday's service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs

from copl.data.making.collected import Collected
from copl.data.making.mixed import collect_rows
from copl.data.making.notes import noted
from copl.data.making.origin import ATTRIBUTION_HELP, LICENCE_HELP, Origin
from copl.data.making.splits import ComparisonSplitOptions
from copl.data.reading.table import table_of_objects
from copl.errors import DataError
from copl.options import option
from copl.plugins import Component

if TYPE_CHECKING:
    from copl.data.events.log import EventLog
    from copl.records import PreferenceData

_NAME = "events"


@final
@attrs.frozen(kw_only=True)
class EventsOptions(ComparisonSplitOptions):
    """Options of the source."""

    store: str = option(
        help="the store of the service: a SQLite file, such as run.serve.sqlite, or postgresql+psycopg://…"
    )
    base: Path | None = option(
        None,
        help="directory of the data set that the service's run was trained on: what was said since is added to it, and "
        "who was forgotten is taken out of it",
    )
    licence: str = option("", help=LICENCE_HELP)
    attribution: str = option("", help=ATTRIBUTION_HELP)


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
        from copl.data.events.database import address
        from copl.data.events.log import EventLog

        store = self._options.store
        if "://" not in store and not Path(store).is_file():
            raise DataError(f"{store}: no such store; `copl serve` says at its start where it keeps one")
        log = EventLog(address(store))
        try:
            said, notes = _collected(log)
            forgotten = log.forgotten()
        finally:
            log.close()
        if self._options.base is not None:
            return _added(self._options.base, said, forgotten, notes)
        if not len(said):
            raise DataError(f"{store}: nobody has compared anything there yet")
        origin = Origin(_NAME, self._options.licence, self._options.attribution, "")
        return said.data(self._options, origin, where=Path(_NAME), seed=seed, notes=notes)


def _added(base: Path, said: Collected, forgotten: frozenset[str], notes: tuple[str, ...]) -> PreferenceData:
    from copl.data.adding import add_said
    from copl.data.dataset import load_dataset
    from copl.data.events.log import user_digest
    from copl.data.forgetting import forget_users

    data = load_dataset(base)
    gone = [user for user in data.users.ids if user_digest(user) in forgotten] if forgotten else []
    if gone:
        data = forget_users(data, gone)
    if len(said):
        data = add_said(data, said.as_set(), name="the service")
    provenance = {**data.provenance, **noted(data.provenance, notes)}
    return attrs.evolve(data, provenance=provenance)


def _collected(log: EventLog) -> tuple[Collected, tuple[str, ...]]:
    """Return what is in force of all users, and what there is to say of the rest."""
    from copl.data.events.evidence import FEEDBACK, in_force, words

    rows, ids = [], []
    num_said = num_in_force = num_silent = 0
    for user, events in log.by_user():
        standing, following = in_force(events), words(events)
        num_said += sum(event.kind in FEEDBACK for event in events)
        num_in_force += len(standing)
        num_silent += len({event.id for event in standing} - {word.event for word in following})
        created = {event.id: event.created for event in events}
        rows += [{**word.row(user), "timestamp": created[word.event]} for word in following]
        ids += [word.event for word in following]
    notes = [f"{num_said - num_in_force:,} of {num_said:,} answers were withdrawn or given anew since."]
    if num_silent:
        notes.append(f"{num_silent:,} answers say nothing: of a pair that was decided otherwise, or a thumb of 0.")
    if not rows:
        return Collected(), tuple(notes)
    return collect_rows(table_of_objects("events", rows, ids, "event"))[0], tuple(notes)


COMPONENTS = [
    Component(
        _NAME,
        EventsOptions,
        EventsSource,
        "what people said to `copl serve`: choices, edits, thumbs, comparisons, ratings",
    )
]
