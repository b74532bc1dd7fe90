"""Databases by their address: SQLite files, and PostgreSQL where more than one machine writes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Set
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from copl.errors import DataError, OptionsError, one_line, quoted

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

_PATIENCE = 30.0
"""Seconds that a writer waits for another one."""


def address(place: str | Path) -> str:
    """Return the address of a database from an address or the path of a SQLite file."""
    text = str(place)
    if "://" in text:
        return text
    return sql.URL.create("sqlite", database=text).render_as_string()  # a path may hold ? and %, which mean something


def shown_address(url: str) -> str:
    """Return an address without its password; of a SQLite file its path."""
    try:
        parsed = sql.make_url(url)
        is_file = parsed.get_backend_name() == "sqlite" and parsed.database
        return one_line(str(parsed.database)) if is_file else parsed.render_as_string(hide_password=True)
    except (ArgumentError, NoSuchModuleError):
        return quoted(url.partition("@")[2] or url)


def engine_of(url: str, own: Set[str]) -> Engine:
    """Return what connects to a database.

    Args:
        url: its address.
        own: names of the tables of this program; a SQLite file that has others and none of these is left alone.

    Raises:
        OptionsError: there is no such kind of database, or its driver is missing.
        DataError: it is no place for a file, or a database of another program.
    """
    try:
        parsed = sql.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise OptionsError("store: a SQLite store is a file, for what is in memory is lost with the process")
            if "\x00" in parsed.database:
                raise OptionsError(f"store {quoted(parsed.database)}: no path of a file")
            if parsed.query:
                raise OptionsError(
                    f"store {shown_address(url)}: a SQLite store has no options such as {listed(parsed.query)}"
                )
            if not Path(parsed.database).absolute().parent.is_dir():
                raise DataError(f"{parsed.database}: no such directory")
            _require_no_other(Path(parsed.database), own)
            engine = sql.create_engine(parsed, pool_size=16, max_overflow=64, connect_args={"timeout": _PATIENCE})
            sql.event.listen(engine, "connect", _set_up_sqlite)
            sql.event.listen(engine, "begin", _begin_sqlite)
            return engine
        if parsed.get_backend_name() == "postgresql":
            # whoever asks is told after some seconds, where the system would wait minutes for a host that is gone
            patience = {} if "connect_timeout" in parsed.query else {"connect_timeout": 10}
            return sql.create_engine(parsed, pool_size=8, max_overflow=56, pool_pre_ping=True, connect_args=patience)
    except (ArgumentError, NoSuchModuleError):
        raise OptionsError(
            f"store {shown_address(url)}: no address of a database; such are serve.sqlite and "
            "postgresql+psycopg://user:password@host/database"
        ) from None
    except ImportError as error:
        raise OptionsError(f"store {shown_address(url)}: the driver {error.name} is missing; install it") from error
    raise OptionsError(f"store {shown_address(url)}: only sqlite and postgresql are known")


def _require_no_other(path: Path, own: Set[str]) -> None:
    """Refuse a SQLite file of another program before anything is changed in it."""
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:  # whoever opens it to write says what is wrong
        return
    if names and not names & own:
        raise DataError(f"{path}: a database of something else ({listed(names)}); name another file")


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(_PATIENCE * 1000)}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")  # what was acknowledged is there after a loss of power, too
    cursor.execute("PRAGMA secure_delete = ON")  # what is forgotten does not stay in free pages
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    """Have a write-ahead log; two processes that switch at once do not wait for each other by themselves."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    # a transaction that reads before it writes could not become a writer while another one writes
    writes = connection.get_execution_options().get("copl_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def told(url: str) -> Iterator[None]:
    """Turn what a database says when it cannot be opened into one line."""
    try:
        yield
    except DBAPIError as error:
        raise DataError(f"{shown_address(url)}: cannot be used: {one_line(str(error.orig).strip())}") from error


def listed(names: Iterable[str]) -> str:
    """Return some names, as a message has them."""
    return ", ".join(quoted(name) for name in sorted(names)[:5])
