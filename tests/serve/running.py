"""A service in this process, on a free port of loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import httpx
import uvicorn

from copl.serve.app import create_app, create_service
from copl.serve.service import Service
from copl.serve.settings import ServeOptions


@final
class Running:
    """A service that runs in a thread."""

    def __init__(self, service: Service, server: uvicorn.Server, url: str) -> None:
        self.service = service
        self.server = server
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=60)

    def token(self, scope: str, user: str | None = None) -> dict[str, str]:
        """Make a token and return the headers that send it."""
        return {"Authorization": f"Bearer {self.service.tokens.new(scope, user=user)}"}

    def counted(self, **labels: str) -> float:
        """Return how many requests were counted, which is done when an answer is already on its way."""
        for _ in range(1000):
            if number := self.service.metrics.value("copl_requests_total", **labels):
                return number
            time.sleep(0.01)
        return 0.0


@contextmanager
def running(run: Path, options: ServeOptions, *, wait: bool = True) -> Iterator[Running]:
    failures: list[BaseException] = []
    service = create_service(run, options, failed=failures.append)
    server = uvicorn.Server(uvicorn.Config(create_app(service), port=0, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    one = Running(service, server, f"http://127.0.0.1:{port}")
    try:
        while wait and one.http.get("/readyz").status_code != 200 and time.monotonic() < deadline:
            if failures:
                raise failures[0]
            time.sleep(0.05)
        yield one
    finally:
        one.http.close()
        server.should_exit = True
        thread.join(timeout=60)
