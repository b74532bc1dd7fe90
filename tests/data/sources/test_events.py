"""Source ``events``: what is in force in a service's store, alone or added to the data set before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from copl.data.dataset import load_dataset
from copl.data.events.evidence import pair_subject, rating_subject
from copl.data.events.log import Entry, EventLog
from copl.errors import DataError
from copl.plugins import load
from copl.records import PreferenceData
from copl.records.judgements import Judgements


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    opened = EventLog(tmp_path / "run.serve.sqlite")
    yield opened
    opened.close()


def made(log: EventLog, **options: Any) -> PreferenceData:
    store = log.url.removeprefix("sqlite:///")
    data: PreferenceData = load().registry("source").create("events", {"store": store, **options}).load(seed=0)
    return data


def say(log: EventLog, user: str, number: int, *, turned: bool = False) -> None:
    chosen, rejected = (f"no {number}", f"yes {number}") if turned else (f"yes {number}", f"no {number}")
    body = {"prompt": f"prompt {number}", "chosen": chosen, "rejected": rejected}
    entry = Entry("comparison", pair_subject(f"prompt {number}", chosen, rejected), body)
    log.append(user, f"{number}{turned}", [entry])


def rows(data: PreferenceData) -> set[tuple[str, str, str]]:
    texts, ids = data.responses.texts, data.users.ids
    return {
        (ids[user], texts[chosen], texts[rejected])
        for part in data.splits.values()
        for user, chosen, rejected in zip(part.user, part.chosen, part.rejected, strict=True)
    }


def test_votes_changed_and_withdrawn_count_once_or_not_at_all(log: EventLog) -> None:
    for user in ("ann", "ben", "cat"):
        for number in range(6):
            say(log, user, number)
    say(log, "ann", 0, turned=True)
    log.append("ben", "w", [Entry("withdrawal", pair_subject("prompt 1", "yes 1", "no 1"), {})])
    data = made(log)
    assert ("ann", "no 0", "yes 0") in rows(data)
    assert ("ann", "yes 0", "no 0") not in rows(data)
    assert ("ben", "yes 1", "no 1") not in rows(data)
    assert sum(map(len, data.splits.values())) == 17
    assert "2 of 19 answers were withdrawn or given anew since." in data.provenance["notes"]


def test_ties_ratings_and_thumbs_are_kept_as_what_they_are(log: EventLog) -> None:
    for number in range(6):
        say(log, "ann", number)
    tie = {"prompt": "prompt 9", "chosen": "a", "rejected": "b", "tie": True}
    rated = {"prompt": "prompt 9", "response": "c", "rating": 2.5}
    shown = {"prompt": "prompt 8", "candidates": ["d"], "shown": 0}
    entries = [
        Entry("comparison", pair_subject("prompt 9", "a", "b"), tie),
        Entry("rating", rating_subject("prompt 9", "c"), rated),
        Entry("completion", "one", shown),
        Entry("thumb", "one", {"thumb": -1}),
    ]
    log.append("ann", "kinds", entries)
    assert Judgements.concat(list(made(log).judgements.values())).counts() == {"tie": 1, "thumb": 1, "rating": 1}


def test_judgements_are_added_to_the_data_set_before(log: EventLog, small_data: Path) -> None:
    user = load_dataset(small_data).users.ids[0]
    body = {"prompt": "prompt 9", "response": "c", "rating": 2.5}
    log.append(user, "rated", [Entry("rating", rating_subject("prompt 9", "c"), body)])
    data = made(log, base=small_data)
    assert {name: part.counts() for name, part in data.judgements.items()} == {"train": {"rating": 1}}
    assert rows(data) == rows(load_dataset(small_data))


def test_added_to_the_data_set_before_without_those_who_were_forgotten(log: EventLog, small_data: Path) -> None:
    before = load_dataset(small_data)
    stays, goes = before.users.ids[0], before.users.ids[1]
    say(log, stays, 1)
    say(log, goes, 1)
    say(log, "somebody new", 1)
    log.forget(goes)
    data = made(log, base=small_data)
    assert goes not in data.users.ids
    assert (stays, "yes 1", "no 1") in rows(data)
    assert ("somebody new", "yes 1", "no 1") in rows(data)
    assert rows(data) - {(stays, "yes 1", "no 1"), ("somebody new", "yes 1", "no 1")} == {
        row for row in rows(before) if row[0] != goes
    }


def test_a_store_that_is_not_there_or_empty_is_one_line(log: EventLog, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nobody has compared anything"):
        made(log)
    missing = tmp_path / "missing.sqlite"
    with pytest.raises(DataError, match="no such store"):
        load().registry("source").create("events", {"store": str(missing)}).load(seed=0)
    assert not missing.exists()
