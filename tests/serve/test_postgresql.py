"""Two services on one PostgreSQL, which the tests start and stop."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import httpx
import pytest
from attrs import define, field

from copl.data.events.log import Entry, EventLog
from copl.plugins import load
from copl.serve.settings import ServeOptions
from copl.serve.tokens import Tokens
from tests.serve.postgresql import PostgreSQL
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


@final
@define
class Voters:
    """What users of a service that votes and asks without a pause have seen."""

    url: str
    acknowledged: set[str] = field(factory=set)
    refused: list[httpx.Response] = field(factory=list)
    ended: threading.Event = field(factory=threading.Event)

    def say(self, worker: int) -> None:
        """Vote and ask until the end; a vote that was refused is sent again."""
        path = f"/v1/users/user {worker % 3}"
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for number in itertools.count():
                key = f"{worker}-{number}"
                said = {"comparisons": [{"prompt": PROMPT, "chosen": f"{key} a", "rejected": f"{key} b"}]}
                while not self.sent(client.post(f"{path}/comparisons", json=said, headers={"Idempotency-Key": key})):
                    if self.ended.wait(0.1):
                        return
                self.acknowledged.add(key)
                self.sent(client.post(f"{path}/score", json={"prompt": PROMPT, "responses": TEXTS}))
                if self.ended.is_set():
                    return

    def sent(self, answer: httpx.Response) -> bool:
        if answer.status_code != 200:
            self.refused.append(answer)
        return answer.status_code == 200

    def wait_for(self, seen: Collection[Any], more: int = 16) -> None:
        """Wait until so many more have seen something."""
        before = len(seen)
        for _ in range(6000):
            if len(seen) >= before + more:
                return
            self.ended.wait(0.01)
        raise AssertionError(f"{len(seen) - before} instead of {more} within a minute")


def test_clients_see_503_while_the_server_is_down_and_lose_nothing(
    postgresql: str, postgresql_server: PostgreSQL, run: Path
) -> None:
    options = ServeOptions(store=postgresql)
    with running(run, options) as service, ThreadPoolExecutor(8) as pool:
        voters = Voters(service.url)
        workers = [pool.submit(voters.say, worker) for worker in range(8)]
        try:
            voters.wait_for(voters.acknowledged)
            postgresql_server.crash()
            try:
                voters.wait_for(voters.refused)
                assert service.http.get("/healthz").status_code == 200
                assert service.http.get("/readyz").status_code == 503
            finally:
                postgresql_server.start()
            voters.wait_for(voters.acknowledged)
        finally:
            voters.ended.set()
        for worker in workers:
            worker.result(60)
        assert service.http.get("/readyz").status_code == 200
        kept = Counter(event.key for _, events in service.service.log.by_user() for event in events)
    assert {answer.status_code for answer in voters.refused} == {503}, [answer.text for answer in voters.refused]
    assert {answer.headers["Retry-After"] for answer in voters.refused} == {"2"}
    assert voters.acknowledged <= kept.keys()
    assert max(kept.values()) == 1


def test_stores_that_are_made_at_once_do_not_disturb_each_other(postgresql: str) -> None:
    def make(_: int) -> int:
        log = EventLog(postgresql)
        tokens = len(Tokens(log).all())
        log.close()
        return tokens

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(8))) == [0] * 8


def test_ids_are_given_in_the_order_of_a_users_events(postgresql: str) -> None:
    log = EventLog(postgresql)
    for number in range(5):
        log.append("order", str(number), [Entry("withdrawal", "s", {"n": number})])
    assert [event.body["n"] for event in log.of_user("order")] == list(range(5))
    log.close()
