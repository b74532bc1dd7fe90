"""Two services on one PostgreSQL, which the tests start and stop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from copl.data.events.log import Entry, EventLog
from copl.plugins import load
from copl.serve.settings import ServeOptions
from copl.serve.tokens import Tokens
from tests.serve.running import running

PROMPT, TEXTS = "How do I boil an egg?", ["Eight minutes.", "Place the egg in cold water. Then wait."]


def test_two_services_share_what_users_say(postgresql: str, run: Path) -> None:
    options = ServeOptions(store=postgresql)
    said = {"comparisons": [{"prompt": PROMPT, "chosen": TEXTS[1], "rejected": TEXTS[0]}]}
    asked = {"prompt": PROMPT, "responses": TEXTS}
    with running(run, options) as one, running(run, options) as other:
        before = other.http.post("/v1/users/ann/score", json=asked).json()["rewards"]
        assert one.http.post("/v1/users/ann/comparisons", json=said).status_code == 200
        after = other.http.post("/v1/users/ann/score", json=asked).json()["rewards"]
        assert after[1] - after[0] > before[1] - before[0]
        assert one.http.post("/v1/users/ann/score", json=asked).json()["rewards"] == pytest.approx(after, abs=2e-6)
        key = {"Idempotency-Key": "once"}
        with ThreadPoolExecutor(8) as pool:
            sent = [
                pool.submit(service.http.post, "/v1/users/ben/comparisons", json=said, headers=key)
                for service in (one, other) * 4
            ]
            answers = [answer.result(60).json() for answer in sent]
        assert [answer["new"] for answer in answers].count(True) == 1
        assert other.http.get("/v1/users/ben").json()["num_events"] == 1
        assert one.http.delete("/v1/users/ann").status_code == 200
        assert other.http.post("/v1/users/ann/score", json=asked).json()["rewards"] == pytest.approx(before, abs=2e-6)
        assert one.http.get("/v1/admin/overview").json()["num_users"] == 1
        header = one.token("user", "ben")
        assert other.http.get("/v1/users/ben", headers=header).status_code == 200
    data = (
        load()
        .registry("source")
        .create("events", {"store": postgresql, "test_fraction": 0, "validation_fraction": 0})
        .load(seed=0)
    )
    assert data.users.ids == ("ben",)


def test_stores_that_are_made_at_once_do_not_disturb_each_other(postgresql: str) -> None:
    first = EventLog(postgresql)
    with first.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE DATABASE fresh")
    first.close()
    address = postgresql.rpartition("/")[0] + "/fresh"

    def make(_: int) -> int:
        log = EventLog(address)
        tokens = len(Tokens(log).all())
        log.close()
        return tokens

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(8))) == [0] * 8


def test_ids_are_given_in_the_order_of_a_users_events(postgresql: str) -> None:
    log = EventLog(postgresql)
    for number in range(5):
        log.append("order", str(number), [Entry("comparison", "s", {"n": number})] * 1)
    assert [event.body["n"] for event in log.of_user("order")] == list(range(5))
    log.close()
