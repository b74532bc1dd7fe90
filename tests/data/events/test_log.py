"""The log of events: whole requests, once each, from several processes; what is forgotten is gone from the file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from copl.data.events.database import shown_address
from copl.data.events.evidence import words
from copl.data.events.log import ConflictError, DamagedError, Entry, EventLog
from copl.errors import CoplError, DataError, OptionsError


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    opened = EventLog(tmp_path / "events.sqlite")
    yield opened
    opened.close()


def said(text: str) -> Entry:
    return Entry("comparison", f"pair:{text}", {"prompt": "p", "chosen": text, "rejected": "other"})


def test_a_request_is_added_once(log: EventLog) -> None:
    first = log.append("ann", "k", [said("a"), said("b")])
    again = log.append("ann", "k", [said("a"), said("b")])
    assert (first.is_new, again.is_new) == (True, False)
    assert again.events == first.events
    assert [event.body["chosen"] for event in log.of_user("ann")] == ["a", "b"]
    assert log.version("ann") == ((2, first.events[-1].id), False)
    assert log.append("ben", "k", [said("a")]).is_new, "a key is a user's own"


def test_a_key_for_something_else_is_refused_and_adds_nothing(log: EventLog) -> None:
    log.append("ann", "k", [said("a")])
    for other in ([said("b")], [said("a"), said("b")]):
        with pytest.raises(ConflictError):
            log.append("ann", "k", other)
    assert log.version("ann")[0][0] == 1


def test_threads_with_the_same_request_add_it_once(log: EventLog) -> None:
    appended = []
    threads = [
        threading.Thread(target=lambda: appended.append(log.append("ann", "k", [said("a")]).is_new)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(appended) == [False] * 7 + [True]


WRITER = """
import sys
from copl.data.events.log import Entry, EventLog
log = EventLog(sys.argv[1])
for n in range(40):
    log.append("u" + str(n % 3), sys.argv[2] + str(n), [Entry("withdrawal", "s" + str(n), {"n": n})])
    log.append("both", str(n), [Entry("withdrawal", "s" + str(n), {"n": n})])
"""


def test_processes_that_begin_at_once_lose_nothing_and_lock_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], stderr=subprocess.PIPE, text=True)
        for name in ("a", "b", "c")
    ]
    errors = [writer.communicate()[1] for writer in writers]
    assert errors == ["", "", ""]
    log = EventLog(path)
    assert {user: len(events) for user, events in log.by_user()} == {"u0": 42, "u1": 39, "u2": 39, "both": 40}
    log.close()


def test_what_is_forgotten_is_gone_from_the_files(tmp_path: Path, log: EventLog) -> None:
    log.append("ann", "k", [said("a secret of Ann")])
    log.append("ben", "k", [said("something of Ben")])
    assert log.forget("ann") == 1
    assert (log.of_user("ann"), log.version("ann")) == ([], ((0, 0), True))
    assert log.version("ben") == ((len(log.of_user("ben")), log.of_user("ben")[-1].id), False)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"secret of Ann" not in content
    assert b"ann" not in content
    assert b"something of Ben" in content
    log.append("ann", "k", [said("back again")])
    (count, _), is_forgotten = log.version("ann")
    assert count == 1
    assert is_forgotten, "what training knew stays out of use"


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("sqlite://", "is a file"),
        ("mysql://a:geheim@h/d", "only sqlite and postgresql"),
        ("nonsense://x", "only sqlite and postgresql"),
        ("", "is a file"),
        ("postgresql+nodriver://a:geheim@h/d", "no address of a database"),
        ("postgresql+psycopg://a:geheim@127.0.0.1:1/d", "cannot be used"),
        ("/nowhere/at/all/x.sqlite", "no such directory"),
        ("a\x00b.sqlite", "no path of a file"),
        ("sqlite:///a.sqlite?mode=ro", "has no options such as 'mode'"),
    ],
)
def test_a_place_that_is_none_is_one_line_without_the_password(place: str, fault: str) -> None:
    with pytest.raises(CoplError, match=fault) as raised:
        EventLog(place)
    assert len(raised.value.faults) == 1
    assert "geheim" not in str(raised.value)


def test_a_file_of_another_kind_or_version_is_refused(tmp_path: Path, log: EventLog) -> None:
    other = tmp_path / "other.sqlite"
    other.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(DataError, match="not a database"):
        EventLog(other)
    with log.writing() as connection:
        connection.exec_driver_sql("UPDATE copl_format SET format = 99")
    with pytest.raises(DataError, match="format 99"):
        EventLog(log.url)


def changed(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "places.sqlite"
    changed(path, "CREATE TABLE places (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(DataError, match="a database of something else \\('places'\\); name another file"):
        EventLog(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {path.name: before}


@pytest.mark.parametrize(
    ("statement", "gone"),
    [
        ("DROP TABLE copl_events", "copl_events"),
        ("DROP TABLE copl_format", "copl_format"),
        ("DROP TABLE copl_forgotten", "copl_forgotten"),
        ("DROP TABLE copl_tokens", "copl_tokens"),
        ("ALTER TABLE copl_events RENAME COLUMN created TO made", "copl_events.created"),
    ],
)
def test_a_store_that_has_lost_a_table_is_not_begun_anew(
    tmp_path: Path, log: EventLog, statement: str, gone: str
) -> None:
    log.append("ann", "k", [said("a")])
    log.close()
    changed(tmp_path / "events.sqlite", statement)
    with pytest.raises(DataError, match=f"damaged, '{gone}' is missing; put back a copy of it"):
        EventLog(log.url)


@pytest.mark.parametrize(
    "change",
    [
        "body = 'null'", "body = '{'", "body = x'ff00'", "body = '[1]'", "body = '{}'",
        "created = 'now'", "user_id = x'ff'",
        """body = '{"prompt": 1, "chosen": "a", "rejected": "b"}'""",
        """kind = 'rating', body = '{"prompt": "p", "response": "r", "rating": NaN}'""",
        """kind = 'thumb', body = '{"thumb": "up"}'""",
        """kind = 'completion', body = '{"prompt": "p", "candidates": ["a"], "shown": 1}'""",
    ],
)  # fmt: skip
def test_a_damaged_event_is_named_and_the_others_are_read(tmp_path: Path, log: EventLog, change: str) -> None:
    log.append("ann", "k", [said("a"), said("b")])
    log.append("ben", "k", [said("a")])
    changed(tmp_path / "events.sqlite", f"UPDATE copl_events SET {change} WHERE id = 2")
    with pytest.raises(DamagedError, match="event 2 is damaged; put back a copy"):
        list(log.by_user())
    assert [event.body["chosen"] for event in log.of_user("ben")] == ["a"]


def test_an_event_of_a_kind_to_come_is_read_and_says_nothing(log: EventLog) -> None:
    log.append("ann", "k", [Entry("gesture", "s", {"wave": 1}), said("a")])
    assert [word.kind for word in words(log.of_user("ann"))] == ["comparison"]


@pytest.mark.parametrize("name", ["what? #1.sqlite", "50%20.sqlite", "sqlite-ü\n.sqlite", "a@b:c.sqlite"])
def test_a_path_is_that_path(tmp_path: Path, name: str) -> None:
    EventLog(tmp_path / name).close()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_address_is_shown_without_its_password() -> None:
    assert shown_address("postgresql+psycopg://me:geheim@h/d") == "postgresql+psycopg://me:***@h/d"
    with pytest.raises(OptionsError):
        EventLog("sqlite:///:memory:")


def test_without_sqlalchemy_the_extra_is_named() -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None; import copl.data.events.evidence"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1].endswith("a log of events needs SQLAlchemy: pip install 'copl[serve]'")
