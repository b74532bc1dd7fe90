"""The log of events in a database: SQLite beside a run, or PostgreSQL for more than one machine.

Events are added and never changed; what a user said is a function of the user's events alone, so that a state is right
whenever its version, the number of events and the last of them, is that of the log. Only forgetting a user removes.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

import sqlalchemy as sql
from attrs import frozen
from sqlalchemy.exc import IntegrityError

from copl.data.events.database import address, engine_of, listed, shown_address, told
from copl.data.events.evidence import Event, says_something
from copl.errors import CoplError, DataError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.engine.reflection import Inspector

FORMAT = 1
_PREPARING = 0x636F706C  # "copl", the lock of whoever makes tables

Version: TypeAlias = tuple[int, int]
"""Number of a user's events, and id of the last."""

_metadata = sql.MetaData()
_EVENTS = sql.Table(
    "copl_events",
    _metadata,
    sql.Column("id", sql.BigInteger().with_variant(sql.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sql.Column("user_id", sql.Text, nullable=False),
    sql.Column("key", sql.Text, nullable=False),
    sql.Column("part", sql.Integer, nullable=False),
    sql.Column("kind", sql.Text, nullable=False),
    sql.Column("subject", sql.Text, nullable=False),
    sql.Column("body", sql.Text, nullable=False),
    sql.Column("created", sql.Double, nullable=False),
    sql.UniqueConstraint("user_id", "key", "part"),
    sql.Index("copl_events_of_user", "user_id", "id"),
    sql.Index("copl_events_about", "subject"),
    sqlite_autoincrement=True,  # the id of a removed event is never given again
)
_FORGOTTEN = sql.Table(
    "copl_forgotten",
    _metadata,
    sql.Column("digest", sql.Text, primary_key=True),
    sql.Column("created", sql.Double, nullable=False),
)
_FORMAT = sql.Table("copl_format", _metadata, sql.Column("format", sql.Integer, primary_key=True))
TOKENS = sql.Table(
    "copl_tokens",
    _metadata,
    sql.Column("id", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("digest", sql.Text, nullable=False, unique=True),
    sql.Column("scope", sql.Text, nullable=False),
    sql.Column("user_id", sql.Text),
    sql.Column("created", sql.Double, nullable=False),
    sql.Column("revoked", sql.Double),
)
"""Who may ask; one of the tables of a store, for a store that has lost it would be open to everybody."""


@final
class DamagedError(CoplError):
    """What is kept is not what was written there."""


@final
class ConflictError(Exception):
    """An idempotency key was used before, for something else."""


@final
@frozen
class Entry:
    """An event to be added: what `Event` has beside its place in the log and its request."""

    kind: str
    subject: str
    body: Mapping[str, Any]


@final
@frozen
class Appended:
    """What became of entries.

    Attributes:
        events: the events, as they stand in the log.
        is_new: whether they were added now; false where the same request came before.
    """

    events: tuple[Event, ...]
    is_new: bool


def user_digest(user: str) -> str:
    """Return what is kept of the id of a user who is forgotten."""
    return hashlib.sha256(b"copl forgotten\x00" + user.encode("utf-8", "surrogatepass")).hexdigest()


@final
class EventLog:
    """Events of all users in a database, for any number of processes at once.

    Args:
        url: address of the database as SQLAlchemy has it, such as ``sqlite:///serve.sqlite``; a path is a SQLite file.

    Raises:
        OptionsError: there is no such kind of database, or its driver is missing.
        DataError: it cannot be opened, was written by another version or program, or a table is missing.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = address(url)
        self.engine = engine_of(self.url, set(_metadata.tables))
        self._writing = threading.Lock()  # threads queue here rather than in SQLite, which would poll
        with told(self.url):
            self._prepare()

    def _prepare(self) -> None:
        with self.writing() as connection:
            if connection.dialect.name == "postgresql":  # where two that make the same table at once do not wait
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_PREPARING)))
            self._require_own(sql.inspect(connection))
            _metadata.create_all(connection)
            formats = connection.execute(sql.select(_FORMAT.c.format)).scalars().all()
            if not formats:
                connection.execute(sql.insert(_FORMAT).values(format=FORMAT))
            elif list(formats) != [FORMAT]:
                shown = shown_address(self.url)
                other = next((one for one in formats if one != FORMAT), FORMAT)
                raise DataError(f"{shown}: events of format {other}; this version of copl has format {FORMAT}")

    def _require_own(self, inspector: Inspector) -> None:
        """Refuse a store of which a table or a column is gone; the tables of others are nobody's business."""
        names = set(inspector.get_table_names())
        if not names & set(_metadata.tables):
            return
        lacking = set(_metadata.tables) - names
        for name in set(_metadata.tables) & names:
            columns = {column["name"] for column in inspector.get_columns(name)}
            lacking |= {f"{name}.{column.name}" for column in _metadata.tables[name].columns} - {
                f"{name}.{column}" for column in columns
            }
        if lacking:
            shown = shown_address(self.url)
            raise DataError(f"{shown}: damaged, {listed(lacking)} is missing; put back a copy of it")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes; one at a time."""
        with self._writing, self.engine.connect().execution_options(copl_writes=True) as connection:
            if connection.dialect.name == "postgresql":
                with connection.begin():
                    connection.execute(sql.text("SET LOCAL lock_timeout = '30s'"))
                    yield connection
            else:
                with connection.begin():
                    yield connection

    def append(self, user: str, key: str, entries: Sequence[Entry], *, began: float | None = None) -> Appended:
        """Add what one request said, all of it or nothing; the same request again adds nothing.

        Args:
            user: the user's id.
            key: the request's idempotency key.
            entries: what was said, in order.
            began: when the request began, in seconds since 1970, where it took a while: nothing is added for a user who
                was forgotten since.

        Raises:
            ConflictError: the key was used before by this user, for something else.
        """
        created = time.time()
        rows = [
            {"user_id": user, "key": key, "part": part, "kind": entry.kind, "subject": entry.subject,
             "body": _written(entry.body), "created": created}
            for part, entry in enumerate(entries)
        ]  # fmt: skip
        try:
            with self.writing() as connection:
                if began is not None and self._is_forgotten_since(connection, user, began):
                    return Appended((), False)
                before = self._of_request(connection, user, key)
                if not before:
                    for row in rows:
                        connection.execute(sql.insert(_EVENTS).values(row))
                    return Appended(tuple(self._of_request(connection, user, key)), True)
        except IntegrityError:  # another process was quicker with the same request
            with self.engine.connect() as connection:
                before = self._of_request(connection, user, key)
            if not before:
                raise
        same = [(event.kind, event.subject, _written(event.body)) for event in before]
        if same != [(row["kind"], row["subject"], row["body"]) for row in rows]:
            raise ConflictError
        return Appended(tuple(before), False)

    def _is_forgotten_since(self, connection: Connection, user: str, began: float) -> bool:
        asked = sql.select(_FORGOTTEN.c.created).where(_FORGOTTEN.c.digest == user_digest(user))
        forgotten: float | None = connection.execute(asked).scalar()
        return forgotten is not None and forgotten >= began

    def _of_request(self, connection: Connection, user: str, key: str) -> list[Event]:
        asked = sql.select(_EVENTS).where(_EVENTS.c.user_id == user, _EVENTS.c.key == key).order_by(_EVENTS.c.part)
        return [_event(row) for row in connection.execute(asked)]

    def version(self, user: str) -> tuple[Version, bool]:
        """Return the version of what a user said, and whether the user was forgotten; every request asks for it."""
        last = sql.func.coalesce(sql.func.max(_EVENTS.c.id), 0)
        forgotten = sql.exists().where(_FORGOTTEN.c.digest == user_digest(user))
        asked = sql.select(sql.func.count(), last, forgotten).where(_EVENTS.c.user_id == user)
        with self.engine.connect() as connection:
            row = connection.execute(asked).one()
        return (int(row[0]), int(row[1])), bool(row[2])

    def of_user(self, user: str) -> list[Event]:
        """Return all events of a user, in order."""
        return list(self._select(_EVENTS.c.user_id == user))

    def about(self, subject: str, kind: str) -> Event | None:
        """Return the last event of a kind about a subject."""
        events = list(self._select(sql.and_(_EVENTS.c.subject == subject, _EVENTS.c.kind == kind)))
        return events[-1] if events else None

    def by_user(self) -> Iterator[tuple[str, list[Event]]]:
        """Yield all users with their events, in one view of the log."""
        asked = sql.select(_EVENTS).order_by(_EVENTS.c.user_id, _EVENTS.c.id)
        user, events = "", list[Event]()
        with self.engine.connect() as connection:
            for row in connection.execution_options(yield_per=1000).execute(asked):
                event = _event(row)
                if event.user != user and events:
                    yield user, events
                    events = []
                user = event.user
                events.append(event)
        if events:
            yield user, events

    def _select(self, condition: Any) -> Iterator[Event]:
        asked = sql.select(_EVENTS).where(condition).order_by(_EVENTS.c.id)
        with self.engine.connect() as connection:
            rows = connection.execute(asked).all()
        return (_event(row) for row in rows)

    def last(self, count: int, kinds: Sequence[str]) -> list[Event]:
        """Return the latest events of some kinds, the last one first."""
        asked = sql.select(_EVENTS).where(_EVENTS.c.kind.in_(kinds)).order_by(_EVENTS.c.id.desc()).limit(count)
        with self.engine.connect() as connection:
            return [_event(row) for row in connection.execute(asked)]

    def count_by_user(self) -> dict[str, int]:
        """Return the number of events of each user."""
        asked = sql.select(_EVENTS.c.user_id, sql.func.count()).group_by(_EVENTS.c.user_id)
        with self.engine.connect() as connection:
            return {user: int(count) for user, count in connection.execute(asked.order_by(_EVENTS.c.user_id))}

    def count_by_day(self) -> list[tuple[str, str, int]]:
        """Return the number of events by day (UTC) and kind."""
        day = sql.cast(sql.func.floor(_EVENTS.c.created / 86400), sql.Integer)
        asked = sql.select(day, _EVENTS.c.kind, sql.func.count()).group_by(day, _EVENTS.c.kind).order_by(day)
        with self.engine.connect() as connection:
            rows = connection.execute(asked).all()
        return [(time.strftime("%Y-%m-%d", time.gmtime(int(n) * 86400)), kind, int(count)) for n, kind, count in rows]

    def forget(self, user: str) -> int:
        """Remove all events of a user and remember that nothing is to be known of them; return how many there were."""
        digest = user_digest(user)
        with self.writing() as connection:
            removed = connection.execute(sql.delete(_EVENTS).where(_EVENTS.c.user_id == user)).rowcount
            connection.execute(sql.delete(_FORGOTTEN).where(_FORGOTTEN.c.digest == digest))
            connection.execute(sql.insert(_FORGOTTEN).values(digest=digest, created=time.time()))
        if self.engine.dialect.name == "sqlite":
            raw = self.engine.raw_connection()
            try:  # nothing of it stays in the write-ahead log, as soon as nobody reads there any more
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                raw.close()
        return int(removed)

    def forgotten(self) -> frozenset[str]:
        """Return the digests of all users who were forgotten."""
        with self.engine.connect() as connection:
            return frozenset(connection.execute(sql.select(_FORGOTTEN.c.digest)).scalars())

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _written(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _event(row: Any) -> Event:
    """Return the event of a row.

    Raises:
        DamagedError: it is none that was written here.
    """
    try:
        body = json.loads(row.body)
    except (TypeError, ValueError, RecursionError):
        body = None
    texts = (row.user_id, row.key, row.kind, row.subject)
    whole = all(isinstance(text, str) for text in texts) and isinstance(row.created, float)
    if not (whole and isinstance(body, dict) and says_something(row.kind, body)):
        raise DamagedError(f"the store: event {row.id} is damaged; put back a copy of the store")
    return Event(row.id, row.user_id, row.key, row.part, row.kind, row.subject, body, row.created)
