"""What each user said, read from the log again only when there is something new."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import final

from copl.data.events.evidence import words
from copl.data.events.log import EventLog
from copl.records import NOBODY
from copl.serve.served import History

_MAX_HISTORIES = 4096
_MAX_WORDS = 2000
"""Latest words of a user that make up the state, which everybody else waits for; training hears all."""


@final
class Histories:
    """Histories of users by the version of the log, so that whatever another process wrote is seen at once."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._kept: OrderedDict[str, History] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, user: str | None) -> History:
        """Return what a user said as of now; nothing for nobody."""
        if user is None or user == NOBODY:
            return History(NOBODY, (0, 0), ())
        version, is_forgotten = self._log.version(user)
        with self._lock:
            kept = self._kept.get(user)
            if kept is not None and (kept.version, kept.is_forgotten) == (version, is_forgotten):
                self._kept.move_to_end(user)
                return kept
        events = self._log.of_user(user)
        version = (len(events), events[-1].id if events else 0)
        history = History(user, version, tuple(words(events))[-_MAX_WORDS:], is_forgotten)
        with self._lock:
            self._kept[user] = history
            self._kept.move_to_end(user)
            if len(self._kept) > _MAX_HISTORIES:
                self._kept.popitem(last=False)
        return history

    def forget(self, user: str) -> None:
        """Drop what is kept of a user."""
        with self._lock:
            self._kept.pop(user, None)
