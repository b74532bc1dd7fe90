"""What `copl serve` bears: clients of all dialects at once, `/healthz` meanwhile, kills, and what was kept.

    python -m benchmarks.serve_load run/copl                       64 clients for 60 s, 30 kills
    python -m benchmarks.serve_load run/copl --seconds 8 --kills 2     the short form

Part 1 has clients score, rerank, vote and complete without a pause, each text a new one, and asks `/healthz` all along.
Throughput is set against the same number of texts of the same lengths scored in one offline batch, in another process
on as many threads. A vote is about two texts, which nobody asks the score of but which the service reads as well, for
the user's state at the next request: they are told apart. Part 2 kills the process with -9 at random moments under
votes and counts what was acknowledged. The server's clients run on the same machine, so its figures are those of what
they leave to it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from attrs import define, field

from benchmarks.measured import RESULTS, markdown_table, provenance
from copl.data.events.log import EventLog
from copl.system.files import write_text

_WORDS = ("a", "water", "heat", "stir", "wait", "slowly", "pan", "egg", "bread", "first", "then", "example")
_TEXTS = 4
_HEALTH_EVERY = 0.1
_PROMPT = "How can I pay off my credit card faster?"

_OFFLINE = """
import sys, time, random
from benchmarks.serve_load import texts_of
from copl.model import Model
model, count = Model.open(sys.argv[1]), int(sys.argv[2])
texts = [text for n in range(count // 4) for text in texts_of(-1 - n)]
model.score("warm", "Up?", ["one"])
started, processor = time.perf_counter(), time.process_time()
model.score("somebody", "How can I pay off my credit card faster?", texts)
print(len(texts) / (time.perf_counter() - started), (time.process_time() - processor) / len(texts))
"""


def texts_of(number: int) -> list[str]:
    """Return texts of one request, of a length as answers have it; other numbers, other texts."""
    rng = random.Random(number)
    return [f"{number} {place} " + " ".join(rng.choices(_WORDS, k=rng.randint(10, 60))) for place in range(_TEXTS)]


@define
class Outcome:
    """What clients saw."""

    statuses: Counter[str] = field(factory=Counter)
    num_texts: int = 0
    num_voted: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    clients: float = 0.0
    latencies: list[float] = field(factory=list)
    health: list[float] = field(factory=list)
    acknowledged: set[str] = field(factory=set)
    lock: Any = field(factory=threading.Lock)


@contextmanager
def served(run: Path, store: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the program; it is killed in the end."""
    command = [sys.executable, "-m", "copl.cli", "serve", str(run), "--port", "0", "--store", str(store)]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    try:
        yield started, started.stderr.readline().split()[0]
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait(30)
        started.stderr.close()


class Client:
    """A connection that stays: the standard library's, since whatever clients take is lacking to the service."""

    def __init__(self, url: str, timeout: float = 120) -> None:
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout)

    def ask(self, path: str, body: dict[str, Any] | None = None, key: str | None = None) -> int:
        """Ask, read the answer to its end, and return its status."""
        headers = {"Content-Type": "application/json"} | ({} if key is None else {"Idempotency-Key": key})
        content = None if body is None else json.dumps(body).encode()
        self._connection.request("GET" if body is None else "POST", path, content, headers)
        with self._connection.getresponse() as answer:
            answer.read()
            return answer.status

    def vote(self, user: str, texts: list[str], key: str) -> int:
        """Say that the first of some texts is better than the second."""
        said = [{"prompt": _PROMPT, "chosen": texts[0], "rejected": texts[1]}]
        return self.ask(f"/v1/users/{quote(user)}/comparisons", {"comparisons": said}, key)


def _request(client: Client, number: int) -> tuple[int, int]:
    user, texts = f"user {number % 97}", texts_of(number)
    match number % 8:
        case 0 | 4:
            asked: dict[str, Any] = {"prompt": _PROMPT, "responses": texts}
            return client.ask(f"/v1/users/{quote(user)}/score", asked), len(texts)
        case 1 | 5:
            return client.ask("/rerank", {"query": _PROMPT, "documents": texts, "user": user}), len(texts)
        case 2:
            return client.ask("/score", {"text_1": _PROMPT, "text_2": texts, "user": user}), len(texts)
        case 3:
            asked = {"query": [_PROMPT + text for text in texts], "prompts": [_PROMPT] * len(texts)}
            return client.ask("/v1/openrlhf", {**asked, "labels": [user] * len(texts)}), len(texts)
        case 6:
            asked = {"messages": [{"role": "user", "content": _PROMPT}], "user": user, "candidates": _TEXTS}
            return client.ask("/v1/chat/completions", asked), len(texts)
    return client.vote(user, texts, f"vote-{number}"), 0


def _client(client: Client, first: int, until: float, outcome: Outcome) -> None:
    number = first
    while time.monotonic() < until:
        started = time.perf_counter()
        status, size = _request(client, number)
        with outcome.lock:
            outcome.statuses[str(status)] += 1
            outcome.latencies.append(time.perf_counter() - started)
            outcome.num_texts += size if status == 200 else 0
            if number % 8 == 7 and status == 200:
                outcome.acknowledged.add(f"vote-{number}")
                outcome.num_voted += 2
        number += 1


def _ask_health(client: Client, until: float, outcome: Outcome) -> None:
    while time.monotonic() < until:
        started = time.perf_counter()
        client.ask("/healthz")
        outcome.health.append(time.perf_counter() - started)
        time.sleep(_HEALTH_EVERY)


def load(run: Path, store: Path, num_clients: int, seconds: float) -> Outcome:
    """Have clients ask for some time; what they began by then is waited for, and counts with the time it takes."""
    outcome = Outcome()
    with served(run, store) as (server, url):
        clients = [Client(url) for _ in range(num_clients + 1)]
        while clients[0].ask("/readyz") != 200:
            time.sleep(0.1)
        processor, own, started = _processor_seconds(server.pid), time.process_time(), time.monotonic()
        until = started + seconds
        threads = [
            threading.Thread(target=_client, args=(client, 1_000_000 * n + n, until, outcome))
            for n, client in enumerate(clients[1:])
        ]
        threads.append(threading.Thread(target=_ask_health, args=(clients[0], until, outcome)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outcome.seconds = time.monotonic() - started
        outcome.processor = _processor_seconds(server.pid) - processor
        outcome.clients = time.process_time() - own
    return outcome


def _processor_seconds(pid: int) -> float:
    """Return the seconds that all threads of a process took; Linux alone tells."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kills(run: Path, store: Path, count: int) -> Outcome:
    """Kill the program at random moments under votes; clients send what was not acknowledged again."""
    outcome, rng = Outcome(), random.Random(0)
    for round_ in range(count):
        with served(run, store) as (server, url):

            def vote(worker: int, round_: int = round_, url: str = url) -> None:
                client = Client(url, timeout=20)
                for number in range(200 * round_, 200 * round_ + 10_000):
                    key = f"kill-{worker}-{number}"
                    try:
                        status = client.vote(f"user {number % 7}", texts_of(number), key)
                    except (OSError, http.client.HTTPException):
                        return
                    if status == 200:
                        with outcome.lock:
                            outcome.acknowledged.add(key)

            threads = [threading.Thread(target=vote, args=(worker,)) for worker in range(8)]
            for thread in threads:
                thread.start()
            begun = len(outcome.acknowledged)
            while len(outcome.acknowledged) == begun:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.05, 1.5))
            server.send_signal(signal.SIGKILL)
            for thread in threads:
                thread.join()
    return outcome


def _kept(store: Path, outcome: Outcome) -> str:
    log = EventLog(store)
    keys = Counter(event.key for _, events in log.by_user() for event in events)
    log.close()
    lost = sum(key not in keys for key in outcome.acknowledged)
    twice = sum(count > 1 for count in keys.values())
    return f"{len(outcome.acknowledged)} acknowledged, {lost} lost, {twice} twice"


def main() -> None:
    """Measure and write a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS / "serve_load.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "load.sqlite"
        outcome = load(arguments.run, store, arguments.clients, arguments.seconds)
        kept = _kept(store, outcome)
        count = max(4, outcome.num_texts)
        told = subprocess.run(
            [sys.executable, "-c", _OFFLINE, str(arguments.run), str(count)],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ).stdout  # fmt: skip
        offline, offline_processor = map(float, told.split())
        store = Path(scratch) / "kills.sqlite"
        killed = _kept(store, kills(arguments.run, store, arguments.kills)) if arguments.kills else "not done"
    online, read = outcome.num_texts / outcome.seconds, outcome.num_texts + outcome.num_voted
    rows = [
        ("requests by status", ", ".join(f"{status}: {number}" for status, number in sorted(outcome.statuses.items()))),
        ("texts scored a second", f"{online:.1f}"),
        ("the same in one offline batch, without clients", f"{offline:.1f}"),
        ("share", f"{online / offline:.2f}"),
        ("texts of votes beside, a second", f"{outcome.num_voted / outcome.seconds:.1f}"),
        ("share, with the texts of votes", f"{read / outcome.seconds / offline:.2f}"),
        (
            "processor time a text, with those of votes, all that the service does; and offline",
            f"{1000 * outcome.processor / max(1, read):.1f} and {1000 * offline_processor:.1f} ms",
        ),
        ("the clients beside, a text", f"{1000 * outcome.clients / max(1, outcome.num_texts):.1f} ms"),
        ("latency, median and 99 %", " and ".join(f"{np.quantile(outcome.latencies, q):.3f} s" for q in (0.5, 0.99))),
        ("`/healthz`, 99 % and longest", f"{np.quantile(outcome.health, 0.99):.3f} and {max(outcome.health):.3f} s"),
        ("votes under load", kept),
        (f"votes under {arguments.kills} kills", killed),
    ]
    lines = [
        f"# `copl serve` under {arguments.clients} clients for {arguments.seconds:g} s",
        "",
        *markdown_table(("what", "measured"), rows),
        "",
        *provenance(f"python -m benchmarks.serve_load {arguments.run}", threads=os.cpu_count() or 1),
    ]
    text = "\n".join(lines) + "\n"
    write_text(arguments.out, text)
    print(text)


if __name__ == "__main__":
    main()
