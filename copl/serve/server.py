"""Runs the application: the port answers before the model is there, and a run that cannot be loaded ends it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from copl.data.events.database import shown_address
from copl.errors import OptionsError, of_system
from copl.serve.app import create_app, create_service
from copl.serve.settings import ServeOptions

_BACKLOG = 2048


def serve(run: Path, options: ServeOptions, tell: Callable[[str], None]) -> None:
    """Serve a run until the program is ended.

    Args:
        run: the run directory.
        options: how it is served.
        tell: is told where the service is, and what goes wrong.

    Raises:
        CoplError: the service cannot begin, or the run cannot be loaded.
    """
    # The model's threads share the processors with those that answer: one that waits for work is not to spin meanwhile.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded, which is after this
    logging.basicConfig(level=logging.WARNING, format="copl serve: %(message)s")
    logging.getLogger("copl.serve").setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    service = create_service(run, options, failed=failed)
    config = uvicorn.Config(
        create_app(service), log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=10
    )
    server = uvicorn.Server(config)
    listening = listen(options)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    tell(f"http://{shown}:{port}  (events: {shown_address(service.log.url)}; Ctrl-C ends)")
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()
    if failures:
        raise failures[0]


def listen(options: ServeOptions) -> socket.socket:
    """Return a socket that is bound to the address of a service.

    Raises:
        OptionsError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio has small packets sent at once only where the protocol is named: else an answer waits 40 ms for its body
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
        listening.listen(_BACKLOG)  # from here on nobody is refused, however soon after the address is told
    except (OSError, OverflowError) as error:
        listening.close()
        reason = of_system(error) if isinstance(error, OSError) else "a port is a number from 0 to 65535"
        raise OptionsError(f"--host {options.host} --port {options.port}: {reason}") from error
    return listening
