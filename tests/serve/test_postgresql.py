"""Two services on one PostgreSQL, which the test starts and stops; Debian's server binaries are used."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from copl.data.events.log import Entry, EventLog
from copl.plugins import load
from copl.serve.settings import ServeOptions
from tests.serve.running import running

PROMPT, TEXTS = "How do I boil an egg?", ["Eight minutes.", "Place the egg in cold water. Then wait."]


def _binaries() -> Path | None:
    there = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return there[-1].parent if there else Path(on_path).parent if on_path else None


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """Address of a database of a server of the test's own."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server binaries (Debian: apt-get install postgresql)")
    user = None
    if os.geteuid() == 0:  # the server does not run as root
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            user = "nobody"
    directory = Path(tempfile.mkdtemp(prefix="copl-pg-"))
    if user is not None:
        shutil.chown(directory, user)

    def call(program: str, *arguments: str) -> None:
        command = [str(binaries / program), *arguments]
        done = subprocess.run(command, user=user, cwd=directory, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr + done.stdout

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = directory / "data"
    try:
        call("initdb", "-D", str(data), "-U", "copl", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
        options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories={directory} -c fsync=off"
        call("pg_ctl", "-D", str(data), "-o", options, "-l", str(directory / "log"), "-w", "start")
        try:
            yield f"postgresql+psycopg://copl@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


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


def test_ids_are_given_in_the_order_of_a_users_events(postgresql: str) -> None:
    log = EventLog(postgresql)
    for number in range(5):
        log.append("order", str(number), [Entry("comparison", "s", {"n": number})] * 1)
    assert [event.body["n"] for event in log.of_user("order")] == list(range(5))
    log.close()
